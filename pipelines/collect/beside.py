"""What is done with the tensors of a forward while the model goes on with the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ..models.inputs import Input
from ..models.load import Tensor, to_numpy

# Tensors of one forward that are held beside those of the next; larger ones are worth no thread.
_MOST_BYTES = 32 << 20
Inputs = Sequence[tuple[Input, Tensor]]


class Beside:
    """Does one thing after the other, in order: in a thread of its own where it has one.

    NumPy lets go of the interpreter where it works, and so does MLX: on the reference model the
    statistics of a forward take a quarter of its time, and cost nothing beside it.
    """

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool, self._begun = pool, list[Future[Any]]()

    def then(self, do: Callable[[], None]) -> None:
        """Do something small after all that was begun."""
        if self._pool is None:
            do()
        else:
            self._begun.append(self._pool.submit(do))

    def take(self, do: Callable[[Inputs], None], inputs: Inputs) -> None:
        """Do something with evaluated tensors, which are MLX's to ask for by this thread alone.

        One forward is held: the one before is waited for. Large tensors are done with at once.
        """
        self.settle()
        arrays = inputs if self._pool is None else as_arrays(inputs)
        held = sum(tensor.nbytes for tensor in {id(x): x for _, x in arrays}.values())
        if self._pool is None or held > _MOST_BYTES:
            do(arrays)
        else:
            self._begun.append(self._pool.submit(do, arrays))

    def settle(self) -> None:
        """Wait for all that was begun, and raise what the first of it raised."""
        begun, self._begun = self._begun, []
        for future in begun:
            future.result()


@contextmanager
def beside(threaded: bool) -> Iterator[Beside]:
    """A `Beside` that has done everything at the end, where nothing failed."""
    with ThreadPoolExecutor(1) if threaded else nullcontext() as pool:
        one = Beside(pool)
        yield one
        one.settle()


def as_arrays(inputs: Inputs) -> list[tuple[Input, np.ndarray]]:
    """The same as arrays; a tensor that several read is one array."""
    distinct = {id(tensor): to_numpy(tensor) for _, tensor in inputs}
    return [(one, distinct[id(tensor)]) for one, tensor in inputs]
