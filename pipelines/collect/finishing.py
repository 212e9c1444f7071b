"""A batch is written to its end while the model goes on with the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack

from taqstore.kinds.nonfinite import counted
from taqstore.store.group_writer import GroupWriter

Submit = Callable[[Callable[[], None]], "Future[None]"]


class Finishing:
    """One batch at a time that waits for the disk: it keeps what it holds until it is flagged.

    Where the next one is to be finished too, that waits: what is held is bounded.
    """

    def __init__(self) -> None:
        self._under_way: tuple[Future[None], ExitStack] | None = None
        self.sound: Counter[str] = Counter()
        """Batches that were written, all values of them finite, by path of their group."""

    def begin(self, finish: Callable[[], None], submit: Submit, held: ExitStack) -> None:
        """Finish a batch by another thread, then close what it holds.

        Raises
        ------
        Exception
            Of the batch before.
        """
        with ExitStack() as stack:
            stack.push(held)
            self.settle()
            self._under_way = submit(finish), stack.pop_all()

    def settle(self) -> None:
        """Wait for the batch that is under way, and raise what it raised."""
        if self._under_way is None:
            return
        future, held = self._under_way
        self._under_way = None
        with held:
            future.result()

    def all_sound(self, groups: Mapping[str, GroupWriter]) -> bool:
        """Whether nothing is flagged in these groups but what was written here and is sound."""
        return all(
            int(group.look_again().mask.sum()) == self.sound[path]
            for path, group in groups.items()
            if counted(path) == path
        )
