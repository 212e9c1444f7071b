"""A loaded model that runs quantized: weights on their grid, inputs of linears rounded to theirs.

Fake quantization: values are rounded to what integers could hold, and computed with as before. The
model it is made from stays as it is and can run beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, MissingError, problem
from taqstore.kinds.quantized_linears import InputQuantizer
from taqstore.kinds.weights import time_group_of
from taqstore.names import LayerName
from taqstore.quantization.quantizer import integer_range

from ..backend import backend
from ..inputs import Reader, check_floats
from ..load import LoadedModel, Prompt, Tensor
from .activation import rounded
from .linear import Slot, installed

_Key = tuple[bytes, int, int, bytes]


@dataclass(frozen=True)
class LinearPlan:
    """What one linear runs with.

    Parameters
    ----------
    weight
        float ``(out, in)``; None: the model's own.
    input
        Quantizer of its input; None: not quantized.
    """

    weight: np.ndarray | None = None
    input: InputQuantizer | None = None


@dataclass
class _Grid:
    """Quantizer of a tensor in one time group; `scale` is step times multiplier.

    Linears that read one tensor on one grid share it, and it is rounded for all of them once.
    """

    scale: Tensor
    zero_point: int
    bounds: tuple[int, int]
    shift: Tensor | None
    _seen: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Rounded in float32, whatever the dtype of `x`, and given back in that dtype."""
        if self._seen is None or self._seen[0] is not x:
            self._seen = x, self._rounded(x)
        return self._seen[1]

    def forget(self) -> None:
        """Let go of the tensor that was rounded last, and of its graph."""
        self._seen = None

    def _rounded(self, x: Tensor) -> Tensor:
        mx = backend().mx
        wide = x.astype(mx.float32)
        centred = wide if self.shift is None else wide - self.shift
        # Bounds are whole numbers: what is clipped first is rounded to the same.
        low, high = (bound - self.zero_point for bound in self.bounds)
        found = rounded(mx.clip(centred / self.scale, low, high)) * self.scale
        return (found if self.shift is None else found + self.shift).astype(x.dtype)


@dataclass
class _Fixed(Slot):
    """A linear with its grids, one for each time group (None: input left as it is)."""

    grids: tuple[_Grid | None, ...] = ()
    sigma_lower: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))
    grid: _Grid | None = None

    def at(self, sigma: float) -> None:
        """Take the grid of this noise level."""
        self.grid = self.grids[int(time_group_of(sigma, self.sigma_lower))] if self.grids else None

    def quantized(self, x: Tensor) -> Tensor:
        """The input as the linear is to see it."""
        return x if self.grid is None else self.grid(x)


@dataclass(frozen=True)
class QuantizedModel(LoadedModel):
    """A model whose forwards run quantized; make it with `quantize`."""

    slots: tuple[_Fixed, ...] = ()

    def denoise(self, x: Tensor, timestep: Tensor, sigma: Tensor, prompt: Prompt) -> Tensor:
        """As of `LoadedModel`; activation quantizers are those of `sigma`."""
        for slot in self.slots:
            slot.at(float(sigma))
        # Tensors are immutable: a graph that is not evaluated yet keeps the weights it was built
        # with when the model gets its own back.
        try:
            with installed(self.slots):
                return super().denoise(x, timestep, sigma, prompt)
        finally:
            for slot in self.slots:
                if slot.grid is not None:
                    slot.grid.forget()


def quantize(model: LoadedModel, plans: Mapping[LayerName, LinearPlan]) -> QuantizedModel:
    """Make a model that runs these linears by their plans, and the others as they are.

    Raises
    ------
    MissingError
        The model has no such linear.
    LayoutError
        A weight or a channel vector does not fit its linear.
    """
    known = {reader.name: reader for one in model.inputs() for reader in one.readers}
    absent = [name.full for name in plans if name not in known]
    if absent:
        what = f"{model.row.name} has no linear {', '.join(absent[:3])}"
        raise MissingError(problem(what, found=f"{len(known)} others"))
    shared = dict[_Key, _Grid]()
    slots = tuple(_slot(name, known[name], plan, shared) for name, plan in plans.items())
    return QuantizedModel(model.row, model.pipeline, model.checkpoint, model.digest, slots)


def _slot(name: LayerName, reader: Reader, plan: LinearPlan, shared: dict[_Key, _Grid]) -> _Fixed:
    """A linear by its plan; `shared` are the grids of those before it."""
    module, weight = reader.module, None
    if plan.weight is not None:
        check_floats([reader])
        _fits(name, "weight", plan.weight, reader.shape)
        weight = backend().mx.array(plan.weight).astype(module.weight.dtype)
        weight = weight.reshape(module.weight.shape)
    if plan.input is None:
        return _Fixed(name, module, weight=weight)
    _by_tensor(name, plan.input, module)
    grids = tuple(_grids(name, plan.input, reader.shape[1], shared))
    return _Fixed(name, module, weight=weight, grids=grids, sigma_lower=plan.input.sigma_lower)


def _by_tensor(name: LayerName, quantizer: InputQuantizer, module: Any) -> None:
    """Refuse channels of a patch: a convolution is called with the latent, not with patches."""
    if module.weight.ndim > 2 and not (quantizer.shift is None and quantizer.multiplier is None):
        what = "a convolution's input has one step for all channels"
        raise LayoutError(problem(what, where=name.full, remedy="leave shift and multiplier out"))


def _grids(
    name: LayerName, quantizer: InputQuantizer, channels: int, shared: dict[_Key, _Grid]
) -> Iterable[_Grid | None]:
    mx, count = backend().mx, len(quantizer.sigma_lower)
    scale: Any = np.float32(1)
    if quantizer.multiplier is not None:
        _fits(name, "multiplier", quantizer.multiplier, (channels,))
        scale = np.asarray(quantizer.multiplier, np.float32)
    if quantizer.shift is not None:
        _fits(name, "shift", quantizer.shift, (count, channels))
    for group in range(count):
        bits, step = int(quantizer.bits[group]), np.float32(quantizer.step[group])
        if not bits or np.isnan(step) or not step:
            yield None
            continue
        shift = None if quantizer.shift is None else np.float32(quantizer.shift[group])
        zero_point, size = int(quantizer.zero_point[group]), np.asarray(step * scale)
        key = size.tobytes(), zero_point, bits, b"" if shift is None else shift.tobytes()
        if key not in shared:
            moved = None if shift is None else mx.array(shift)
            shared[key] = _Grid(mx.array(size), zero_point, integer_range(bits), moved)
        yield shared[key]


def _fits(name: LayerName, what: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        text = f"the {what} does not fit the linear's {shape}"
        raise LayoutError(problem(text, where=name.full, found=str(values.shape)))
