"""What a forward leaves behind: inputs of linears, and residual streams at block boundaries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from taqstore.errors import TaqError, problem

from .backend import backend
from .failures import inside_model
from .hooks import Hook, observing
from .inputs import Input
from .layers import ModelBlock, blocks
from .seam import Model, Tensor

# Inputs and their tensors (..., channel). One tensor that stands under two sites is one object.
Seen = Sequence[tuple[Input, Tensor]]
# Called with what was seen, evaluated; must not keep these.
Take = Callable[[Seen], None]

# Bytes of tensors that are let wait for one evaluation.
_HELD = 32 << 20


@contextmanager
def watching_inputs(
    model: Model, sites: Collection[str], take: Take | None
) -> Iterator[Callable[[], Seen]]:
    """Hand every distinct linear input of these sites to `take`, in every forward.

    Tensors are evaluated together with the result of a block once they exceed `_HELD`, and at the
    end of the forward: a large model holds one block's inputs, a small one has its graph cut once
    and its many small tensors handed over together.

    Raises
    ------
    TaqError
        A forward ended, and a linear that is watched was not called in it.
    """
    watched = [one for one in model.inputs() if one.site in sites]
    watch = _Watch(model, watched, take)
    hooks: list[tuple[Any, Hook]] = [(one.module, partial(watch.note, one)) for one in watched]
    hooks += [(block.module, partial(watch.block, block)) for block in model.blocks()]
    with observing([*hooks, (model.module, watch.end)]):
        yield watch.seen


@dataclass
class _Watch:
    """What was seen in a forward, and what of it was not handed over yet."""

    model: Model
    watched: Sequence[Input]
    take: Take | None
    held: list[tuple[Input, Tensor]] = field(default_factory=list)
    called: set[tuple[str, str]] = field(default_factory=set)

    def note(self, one: Input, arguments: tuple[Any, ...], result: Any) -> None:
        """An input's first reader ran."""
        self.called.add((one.site, one.layer))
        self.held.append((one, self.model.seen_by(one, arguments[0])))

    def block(self, block: ModelBlock, arguments: tuple[Any, ...], result: Any) -> None:
        """A block ran."""
        if sum(tensor.nbytes for _, tensor in self.held) > _HELD:
            self._hand_over(block.name, result)

    def end(self, arguments: tuple[Any, ...], result: Any) -> None:
        """The forward ended."""
        never = [x for x in self.watched if (x.site, x.layer) not in self.called]
        self.called.clear()
        if never:
            self.held.clear()
            names = ", ".join(one.readers[0].name.full for one in never[:3])
            what = f"{len(never)} linears to be watched were never called: {names}"
            remedy = "a function compiled before is not seen; set MLX_DISABLE_COMPILE=1"
            raise TaqError(problem(what, where=self.model.row.name, remedy=remedy))
        self._hand_over("", result)

    def seen(self) -> Seen:
        """What was held since the last call."""
        seen, self.held = self.held, []
        return seen

    def _hand_over(self, place: str, result: Any) -> None:
        if not self.held or self.take is None:
            return
        with inside_model(place):
            backend().mx.eval([tensor for _, tensor in self.held], result)
        self.take(self.held)
        self.held.clear()


@dataclass
class Streams:
    """Residual streams by boundary, each ``(row, token, 1, channel)``; empty until a forward ran.

    Boundary i of a stream is the input of its block i, the last one the output of its last block.
    """

    img: dict[int, Tensor] = field(default_factory=dict)
    txt: dict[int, Tensor] = field(default_factory=dict)
    uni: dict[int, Tensor] = field(default_factory=dict)

    def by_name(self) -> dict[str, dict[int, Tensor]]:
        """The streams that hold something, by name."""
        return {name: stream for name, stream in vars(self).items() if stream}


@contextmanager
def watching_blocks(mmdit: Any, chosen: Collection[str] | None = None) -> Iterator[Streams]:
    """Collect inputs and outputs of these blocks (None: all), not evaluated."""
    streams = Streams()
    hooks = [
        (block.module, partial(_note_block, streams, block))
        for block in blocks(mmdit)
        if chosen is None or block.name in chosen
    ]
    with observing(hooks):
        yield streams


def _note_block(
    streams: Streams, block: ModelBlock, arguments: tuple[Any, ...], result: Any
) -> None:
    index = block.index
    if block.unified:
        streams.uni |= {index: arguments[0], index + 1: result}
        return
    streams.img |= {index: arguments[0], index + 1: result[0]}
    streams.txt[index] = arguments[1]
    if result[1] is not None:
        streams.txt[index + 1] = result[1]
