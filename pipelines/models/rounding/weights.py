"""The weights of a block while their rounding is learned: rounding variables, their slopes, Adam.

What each weight asks for in an iteration are some thirty operations on arrays of its size. On a
CPU they run over pieces that stay in its cache: over whole weights of SD3-Medium's size most of
their time is memory's. All of them are of elements, so that pieces change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ..backend import backend
from ..load import Tensor
from .soft import SoftWeight, rounding_loss, sigmoid, unsettled

# MLX's optimisers want a mapping at the root.
_ALL = "all"
# Elements of a piece: 2 MB of float32, the fastest of 0.1 to 10 MB with 1 MB of cache by core.
_PIECE = 1 << 19
# Pieces begin where vector instructions would have: the last few elements are computed otherwise.
_ROWS = 16


class SoftWeights:
    """Rounding variables of a block's linears, and Adam over them.

    Parameters
    ----------
    split
        Of each linear its `SoftWeight` and the V float32 ``(out, group, input)`` it starts from.
    learning_rate
        Adam's.
    """

    def __init__(self, split: Iterable[tuple[SoftWeight, Tensor]], *, learning_rate: float) -> None:
        pairs = list(split)
        self.whole = [soft for soft, _ in pairs]
        self._counts = [_pieces(soft) for soft in self.whole]
        self._soft = [
            piece
            for soft, count in zip(self.whole, self._counts, strict=True)
            for piece in _soft_pieces(soft, count)
        ]
        self._v = self._cut([v for _, v in pairs])
        adam: Any = import_module("mlx.optimizers").Adam
        self._adam = adam(learning_rate, bias_correction=True)
        self._adam.init({_ALL: self._v})
        self._sigmoids: list[Tensor] = []

    @property
    def v(self) -> list[Tensor]:
        """V float32 ``(out, group, input)`` of each linear."""
        return self.joined(self._v)

    @v.setter
    def v(self, values: Sequence[Tensor]) -> None:
        self._v = self._cut(values)

    @property
    def evaluated(self) -> list[Any]:
        """What an evaluation of an iteration has to bring: V and what Adam keeps."""
        return [self._v, self._adam.state]

    def soften(self) -> list[Tensor]:
        """Weights float32 ``(out, in)`` of each linear as they stand."""
        self._sigmoids = [sigmoid(v) for v in self._v]
        pairs = zip(self._soft, self._sigmoids, strict=True)
        return self.joined([soft.soft(s) for soft, s in pairs])

    def slopes(
        self, of_weights: Sequence[Tensor], *, beta: float | None, share: float
    ) -> list[Tensor]:
        """Gradients with respect to V, by piece: those of `soften`'s weights and of the term.

        Parameters
        ----------
        of_weights
            Gradients of the loss with respect to what `soften` gave last, which is let go.
        beta, share
            As of `SoftWeight.gradient`.
        """
        sigmoids, self._sigmoids = self._sigmoids, []
        pieces = self._cut(of_weights)
        return [
            soft.gradient(s, of_weight, beta=beta, share=share)
            for soft, s, of_weight in zip(self._soft, sigmoids, pieces, strict=True)
        ]

    def learn(self, slopes: list[Tensor]) -> None:
        """A step of Adam, not evaluated; `slopes` as that function gives them."""
        self._v = self._adam.apply_gradients({_ALL: slopes}, {_ALL: self._v})[_ALL]

    def joined(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """What is given by piece, such as `slopes`, by linear: the reverse of `_cut`."""
        given, mx = iter(pieces), backend().mx
        parts = [[next(given) for _ in range(count)] for count in self._counts]
        return [part[0] if len(part) == 1 else mx.concatenate(part) for part in parts]

    def unsettled(self) -> float:
        """Share of weights that are neither up nor down yet."""
        count = sum(unsettled(v) for v in self._v).item()
        return float(count) / sum(int(v.size) for v in self._v)

    def rounding_loss(self, beta: float) -> float:
        """``sum(1 - |2 h(V) - 1|^beta)`` over all weights."""
        return float(sum(rounding_loss(v, beta).item() for v in self.v))

    def adam_state(self) -> dict[str, Any]:
        """What Adam keeps, by linear."""
        return self._of_state(self.joined)

    def restore(self, v: Sequence[Tensor], adam_state: Mapping[str, Any]) -> None:
        """Go on from what `v` and `adam_state` gave."""
        self.v = v
        self._adam.state = dict(adam_state)
        self._adam.state = self._of_state(self._cut)

    def _of_state(self, change: Callable[[Sequence[Tensor]], list[Tensor]]) -> dict[str, Any]:
        """Adam's state with its moments joined or cut."""
        state = self._adam.state
        moments = {name: change([one[name] for one in state[_ALL]]) for name in state[_ALL][0]}
        columns = zip(*moments.values(), strict=True)
        return {**state, _ALL: [dict(zip(moments, column, strict=True)) for column in columns]}

    def _cut(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Rows ``(out, ...)`` of each linear, piece by piece."""
        pairs = zip(values, self._counts, strict=True)
        return [piece for value, count in pairs for piece in _rows(value, count)]


def _pieces(soft: SoftWeight) -> int:
    """How many pieces a weight is taken in: on a GPU one, where each would be more launches."""
    mx = backend().mx
    if mx.default_device().type != mx.DeviceType.cpu:
        return 1
    size, rows = int(soft.base.size), int(soft.base.shape[0])
    return max(1, min(math.ceil(size / _PIECE), rows // _ROWS))


def _rows(value: Tensor, count: int) -> list[Tensor]:
    """The first axis in pieces of about as many rows."""
    if count == 1:
        return [value]
    rows = value.shape[0]
    ends = [rows * piece // count // _ROWS * _ROWS for piece in range(1, count)]
    pieces: list[Tensor] = backend().mx.split(value, ends)
    return pieces


def _soft_pieces(soft: SoftWeight, count: int) -> list[SoftWeight]:
    """A weight that stays as it is, in pieces."""
    offsets = [None] * count if soft.offset is None else _rows(soft.offset, count)
    parts = zip(_rows(soft.base, count), _rows(soft.step, count), offsets, strict=True)
    return [
        SoftWeight(base, step, (base.shape[0], soft.shape[1]), offset)
        for base, step, offset in parts
    ]
