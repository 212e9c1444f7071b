"""What a forward leaves behind: inputs of linears, and residual streams at block boundaries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .backend import backend
from .failures import inside_model
from .hooks import Hook, observing
from .layers import Linear, ModelBlock, blocks, linears
from .load import Tensor

# Called with linears and their inputs (row, token, 1, channel), evaluated; must not keep these.
Take = Callable[[Sequence[tuple[Linear, Tensor]]], None]

# Bytes of tensors that are let wait for one evaluation.
_HELD = 32 << 20


@contextmanager
def watching_inputs(mmdit: Any, sites: Collection[str], take: Take) -> Iterator[None]:
    """Hand every distinct linear input of these sites to `take`, in every forward.

    Tensors are evaluated together with the result of a block once they exceed `_HELD`, and after
    the last one: a large model holds one block's inputs, a small one has its graph cut once and
    its many small tensors handed over together.
    """
    seen: list[tuple[Linear, Tensor]] = []
    every = blocks(mmdit)

    def note(linear: Linear, arguments: tuple[Any, ...], result: Any) -> None:
        seen.append((linear, arguments[0]))

    def flush(block: ModelBlock, arguments: tuple[Any, ...], result: Any) -> None:
        held = sum(tensor.nbytes for _, tensor in seen)
        if held <= _HELD and block is not every[-1]:
            return
        with inside_model(block.name):
            backend().mx.eval([tensor for _, tensor in seen], result)
        take(seen)
        seen.clear()

    hooks: list[tuple[Any, Hook]] = [
        (linear.module, partial(note, linear)) for linear in linears(mmdit) if linear.site in sites
    ]
    hooks += [(block.module, partial(flush, block)) for block in every]
    with observing(hooks):
        yield


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
