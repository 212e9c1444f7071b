"""Input quantizers without a shift, for loaders that know none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.scales import scales
from taqstore.errors import MissingError, problem
from taqstore.kinds.quantized_linears import Groups, InputQuantizer, QuantizedLinear
from taqstore.kinds.weights import time_group_of
from taqstore.names import ACTIVATIONS

_REMEDY = "taqstore collect observes them; leave --no-shift out to keep the shifts"


@dataclass(frozen=True)
class Unshifted:
    """Linears of a store with the steps that their inputs need unshifted.

    As `adaround --shift ''` starts: symmetric, for the same groups of steps and the same bits, by
    the run's rule (`activation_clip`; absmax where it does not say).
    """

    store: Groups
    run: Mapping[str, Any]
    _steps: dict[Any, xr.DataArray] = field(default_factory=dict)

    def of(self, linear: QuantizedLinear) -> QuantizedLinear:
        """The linear without its shift; itself where it has none.

        Raises
        ------
        MissingError
            Its input, or a group of its steps, was not observed.
        """
        shifted = linear.input
        if shifted.shift is None:
            return linear
        step = np.array([self._step(linear, group) for group in range(shifted.step.size)])
        kept = {v: dtype for v, dtype in linear.original.items() if v != "activation_step"}
        without = InputQuantizer(
            step.astype(np.float32),
            np.zeros_like(shifted.zero_point),
            shifted.bits,
            shifted.sigma_lower,
            None,
            shifted.multiplier,
        )
        return replace(linear, input=without, original=kept)

    def _step(self, linear: QuantizedLinear, group: int) -> float:
        bits = int(linear.input.bits[group])
        if not bits:
            return float("nan")
        steps = self._of_site(linear, bits)
        if linear.name.layer not in steps["layer"].values:
            raise MissingError(problem(f"no activations of {linear.name.full}", remedy=_REMEDY))
        found = steps.sel(layer=linear.name.layer).isel(step_group=group)
        if "projection" in found.dims:
            found = found.sel(projection=linear.name.projection)
        # A tensor that was zero throughout has no step; any will do.
        return float(found) or 1.0

    def _of_site(self, linear: QuantizedLinear, bits: int) -> xr.DataArray:
        """Steps (layer, step_group) of all layers of a site."""
        site, lower = linear.name.site, linear.input.sigma_lower
        key = site, bits, tuple(lower.tolist())
        if key not in self._steps:
            path = f"{ACTIVATIONS}/{site}"
            if path not in self.store:
                what = f"no {path}, and {linear.name.full} is shifted"
                raise MissingError(problem(what, remedy=_REMEDY))
            observed = self.store[path]
            rule = self.run.get("activation_clip", "absmax")
            starts = _starts(observed, lower, linear.name.full)
            found = scales(observed, bits=bits, clip=rule, cuts=starts or "static")
            self._steps[key] = found["step_size"].load()
        return self._steps[key]


def _starts(observed: xr.Dataset, lower: np.ndarray, linear: str) -> tuple[int, ...]:
    """Labels of the steps at which a group of steps begins."""
    group = time_group_of(observed["sigma"].values, lower)
    missing = sorted(set(range(len(lower))) - set(group.tolist()))
    if missing:
        what = f"no step was observed in group {missing[0]} of the steps of {linear}"
        raise MissingError(problem(what, found=f"sigma_lower {lower.tolist()}", remedy=_REMEDY))
    starts = np.flatnonzero(np.diff(group)) + 1
    return tuple(int(label) for label in observed["step"].values[starts])
