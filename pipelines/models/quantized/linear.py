"""Linears of a block that run with other weights and quantized inputs for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import numpy as np

from taqstore.names import LayerName
from taqstore.quantization.quantizer import integer_range

from ..backend import backend
from ..load import Tensor
from .activation import fake_quantizer, keep_some


@dataclass(frozen=True)
class InputStart:
    """Where the quantizer of one linear's input starts from.

    Parameters
    ----------
    step
        float ``(time_group,)``.
    shift
        float ``(time_group, channel)``, subtracted before quantization and added after it; None:
        no shift.
    """

    step: np.ndarray
    shift: np.ndarray | None = None


@dataclass(frozen=True)
class Noise:
    """Randomness of QDrop: share of elements left as they are, and this iteration's key."""

    share: float
    key: Tensor


@dataclass
class Slot:
    """One linear and what it runs with.

    Parameters
    ----------
    name, module
        Which linear.
    bits
        Of its input; 0: not quantized.
    shift
        ``(time_group, channel)`` or None.
    weight, step
        Set before every forward: weight ``(out, in)``; step of each row ``(row, 1, 1, 1)``.
    group
        Set with them: time group of each row ``(row,)``.
    noise
        QDrop, or None.
    """

    name: LayerName
    module: Any
    bits: int = 0
    shift: Tensor | None = None
    weight: Tensor | None = None
    step: Tensor | None = None
    group: Tensor | None = None
    noise: Noise | None = None
    original: Tensor = field(init=False)
    classes: dict[type, type] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.original = self.module.weight

    def quantized(self, x: Tensor) -> Tensor:
        """The input as the linear is to see it."""
        if not self.bits:
            return x
        quantize = fake_quantizer(*integer_range(self.bits))
        if self.shift is None:
            found = quantize(x, self.step)
        else:
            shift = self.shift[self.group][:, None, None]
            found = quantize(x - shift, self.step) + shift
        if self.noise is None:
            return found
        return keep_some(x, found, share=self.noise.share, key=self.noise.key)


@contextmanager
def installed(slots: Sequence[Slot]) -> Iterator[None]:
    """Let the linears run by their slots until the block ends; then everything is as before.

    Each instance gets a subclass of its class (see `observe`); its weight is put back.
    """
    kinds = [type(slot.module) for slot in slots]
    try:
        for slot, kind in zip(slots, kinds, strict=True):
            slot.module.__class__ = _slotted(kind, slot)
        yield
    finally:
        for slot, kind in zip(slots, kinds, strict=True):
            slot.module.__class__ = kind
            slot.module.weight = slot.original


def _slotted(kind: type, slot: Slot) -> type:
    """The class of a slot's module, made once; it does not hold on to the slot and its weight."""
    if kind in slot.classes:
        return slot.classes[kind]
    base: Any = kind
    told = ref(slot)

    def call(self: Any, x: Tensor) -> Any:
        slot = told()
        assert slot is not None
        if slot.weight is not None:
            self.weight = slot.weight
        return base.__call__(self, slot.quantized(x))

    slot.classes[kind] = type(kind.__name__, (kind,), {"__call__": call})
    return slot.classes[kind]


def noise_of(count: int, *, share: float, seed: int, iteration: int) -> list[Noise]:
    """Noise of `count` linears, the same for the same seed and iteration."""
    mixed = np.random.SeedSequence([seed, iteration]).generate_state(1, np.uint64)[0]
    mx = backend().mx
    return [Noise(share, key) for key in mx.random.split(mx.random.key(int(mixed)), count)]
