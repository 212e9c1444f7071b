"""Squared errors of a block with given weights and activation steps, in parts that fit memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from taqstore.names import LayerName

from ...machine.blas import all_threads
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
# Threads of a machine whose minibatches are halved, and floats from which it pays.
_CORES, _WORTH = 2, 1 << 22


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

    def side_by_side(self, batch: Minibatch) -> int:
        """How many parts of a minibatch are run at once: two, where a machine has two cores.

        MLX does what is of elements on one thread. Two halves with a thread each take three
        quarters of the time of one whole with two threads for its products.
        """
        mx, floats = backend().mx, len(batch) * self._floats(batch)
        alone = mx.default_device().type != mx.DeviceType.cpu or all_threads() != _CORES
        return 1 if alone or floats < _WORTH or batch.rows < _CORES else _CORES

    def parts(self, batch: Minibatch, at_once: int = 1) -> Iterator[Minibatch]:
        """The minibatch in parts that so many passes at once have memory for.

        Where that is less than a sample for each, they share the rows of one.
        """
        most = PART_BYTES // at_once // (4 * self._floats(batch))
        few = min(most, -(-len(batch) // at_once))
        whole = at_once == 1 or (most and len(batch) > 1) or batch.rows < at_once * len(batch)
        for part in batch.parts(max(1, few)):
            yield from [part] if whole else part.cuts(at_once)

    def _floats(self, batch: Minibatch) -> int:
        """What a pass keeps of a sample."""
        _, rows, _, channels = next(iter(batch.inputs.values())).shape
        tokens = sum(x.shape[2] for x in batch.inputs.values())
        heads = self.run.block.module.config.num_heads
        return int(rows * tokens * (_PER_CHANNEL * channels + _PER_PAIR * heads * tokens))

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
