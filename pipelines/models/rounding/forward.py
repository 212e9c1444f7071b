"""Squared errors of a block with given weights and activation steps, in parts that fit memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from taqstore.names import LayerName

from ..backend import backend
from ..load import Tensor
from ..quantized.linear import InputStart, Noise, Slot, installed
from .block import BlockRun, Minibatch

# Bytes that a forward keeps for the backward pass are held near this: larger minibatches are
# taken in parts whose gradients add up.
PART_BYTES = 1 << 30
# Floats kept for each channel of each token: inputs of linears, of GELU (4 wide) and of norms,
# with their gradients; and for each pair of tokens and head.
_PER_CHANNEL, _PER_PAIR = 56, 5


@dataclass(frozen=True)
class Errors:
    """Sums over samples of a block's output, by stream: squared error, square, and elements."""

    error: dict[str, float] = field(default_factory=dict)
    power: dict[str, float] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, stream: str, square: Tensor, target: Tensor) -> None:
        """Add samples, in float64: a float32 sum would lose what two roundings differ by.

        Parameters
        ----------
        square, target
            Squared errors and floating-point outputs ``(sample, row, token, channel)``.
        """
        mx = backend().mx
        sums = square.sum(axis=-1), mx.square(target.astype(mx.float32)).sum(axis=-1)
        error, power = (float(np.array(per_token, np.float64).sum()) for per_token in sums)
        self.error[stream] = self.error.get(stream, 0.0) + error
        self.power[stream] = self.power.get(stream, 0.0) + power
        self.count[stream] = self.count.get(stream, 0) + square.size


class QuantizedForward:
    """A block whose linears take weights and activation steps that are given to every forward.

    Computes in float32, whatever the model's dtype: squared errors and their gradients leave the
    range of float16.

    Parameters
    ----------
    run
        The block.
    bits
        Of activations; 0: not quantized.
    starts
        The shifts, by linear.
    """

    def __init__(self, run: BlockRun, bits: int, starts: Mapping[LayerName, InputStart]) -> None:
        self.run = run
        self.slots = [
            Slot(name, module, bits, _shift(starts.get(name))) for name, module in run.linears
        ]

    @contextmanager
    def installed(self, noise: Sequence[Noise] | None = None) -> Iterator[None]:
        """Let the linears run as told until the block ends, with QDrop where there is noise.

        What they were told last is forgotten then: it would hold on to a whole graph.
        """
        for slot, its in zip_longest(self.slots, noise or ()):
            slot.noise = its
        try:
            with installed(self.slots):
                yield
        finally:
            for slot in self.slots:
                slot.weight = slot.step = slot.group = slot.noise = None

    def squares(
        self, weights: Sequence[Tensor], steps: Sequence[Tensor], part: Minibatch
    ) -> dict[str, Tensor]:
        """Squared errors ``(sample, row, token, channel)`` by stream, samples weighted.

        Parameters
        ----------
        weights
            float32 ``(out, in)`` of each linear.
        steps
            Logarithms of activation steps ``(time_group,)`` of each linear.
        """
        mx, outputs = backend().mx, self.outputs(weights, steps, part)
        squares = {n: mx.square(outputs[n] - target) for n, target in part.targets.items()}
        if part.weight is None:
            return squares
        weight = mx.array(part.weight.astype(np.float32))[:, None, None, None]
        return {name: square * weight for name, square in squares.items()}

    def outputs(
        self, weights: Sequence[Tensor], steps: Sequence[Tensor], part: Minibatch
    ) -> dict[str, Tensor]:
        """Outputs float32 ``(sample, row, token, channel)`` by stream; parameters as of `squares`.

        Only inside `installed`.
        """
        mx = backend().mx
        self._set(weights, steps, part)
        parameters = self.run.modulation(part.pooled, part.timestep)
        modulation = [values.astype(mx.float32) for values in parameters]
        inputs = {name: x.astype(mx.float32) for name, x in part.inputs.items()}
        return self.run.outputs(inputs, modulation)

    def _set(self, weights: Sequence[Tensor], steps: Sequence[Tensor], part: Minibatch) -> None:
        """What the linears run with, for the rows of `part`."""
        mx, rows = backend().mx, part.rows // len(part)
        first = np.zeros(len(part), np.int64)
        for slot, weight, step in zip(self.slots, weights, steps, strict=True):
            slot.weight = weight
            slot.group = mx.array(np.repeat(part.group.get(slot.name.site, first), rows))
            slot.step = mx.exp(step)[slot.group][:, None, None, None]

    def parts(self, batch: Minibatch) -> Iterator[Minibatch]:
        """The minibatch in parts that one forward and backward pass has memory for."""
        _, rows, _, channels = next(iter(batch.inputs.values())).shape
        tokens = sum(x.shape[2] for x in batch.inputs.values())
        heads = self.run.block.module.config.num_heads
        floats = rows * tokens * (_PER_CHANNEL * channels + _PER_PAIR * heads * tokens)
        return batch.parts(max(1, PART_BYTES // (4 * floats)))

    def errors(
        self, batches: Iterable[Minibatch], weights: Sequence[np.ndarray], steps: Sequence[Tensor]
    ) -> Errors:
        """Errors of the block's output over these samples; parameters as of `squares`."""
        given = [backend().mx.array(weight) for weight in weights]
        sums = Errors()
        with self.installed():
            for batch in batches:
                for part in self.parts(batch):
                    for stream, square in self.squares(given, steps, part).items():
                        sums.add(stream, square, part.targets[stream])
        return sums


def _shift(start: InputStart | None) -> Tensor | None:
    if start is None or start.shift is None:
        return None
    return backend().mx.array(start.shift.astype(np.float32))
