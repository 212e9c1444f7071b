"""Where activation quantizers start from: step sizes and shifts of groups of steps, from a store.

Works on observations (`activations/<site>`), lazily, with the same rules as the analyses.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.groups import groups as time_groups
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import step_groups
from taqstore.analysis.scales import scales
from taqstore.analysis.shared.inputs import Bounds, channel_bounds, require
from taqstore.analysis.shifts import midpoint_shift
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.kinds.quantized_linears import InputQuantizer
from taqstore.quantization import quantizer as quantization
from taqstore.store.given import handed

_NAME = "activation start"


@handed
def activation_start(
    dataset: xr.Dataset,
    *,
    bits: int,
    groups: int | None = 1,
    clip: Rule = "absmax",
    shifted: bool = False,
) -> xr.Dataset:
    """Symmetric per-tensor activation quantizers for one or more groups of steps.

    Parameters
    ----------
    dataset
        Observations of one site.
    bits
        2 to 16.
    groups
        Groups of neighbouring steps: those of least expected error for all layers of the site
        together (`analysis.groups`); 1: all steps, and None: every step its own, for which no
        histogram is needed.
    clip
        Rule of the clip bound, as in `analysis.scales`.
    shifted
        Subtract the shift of each channel first: the mean over the group's steps of
        `analysis.shifts`. The bound is then the absmax of what is left, which extrema tell.

    Returns
    -------
    Dataset
        `step_size` float64 (layer, time_group); `shift` float64 (layer, time_group, channel) if
        `shifted`; coordinate `sigma_lower` float32 (time_group), the noise level each group reaches
        down to, 0 for the last.

    Raises
    ------
    MissingError
        Extrema, histograms or sigma are not there.
    TaqError
        More groups than steps, or a rule that cannot see shifted values.
    """
    if shifted and clip != "absmax":
        what = f"clip rule {clip!r} cannot see shifted values"
        raise MisuseError(problem(what, remedy="use absmax, or no shift"))
    require(dataset, ("step", "sigma"), analysis=_NAME)
    cuts = _cuts(dataset, bits, groups)
    if shifted:
        result = _shifted(dataset, cuts, bits)
    else:
        found = scales(dataset, bits=bits, clip=clip, cuts=cuts or "static")
        result = found[["step_size"]].rename(step_group="time_group")
    sigma = dataset["sigma"].values.astype(np.float32)
    lower = np.array([sigma[part][-1] for part in step_groups(dataset, cuts)], np.float32)
    lower[-1] = 0
    result = result.drop_vars(("first_step", "last_step"), errors="ignore")
    named = result.assign_coords(sigma_lower=("time_group", lower))
    return named.transpose("layer", "time_group", ...)


def input_quantizer(started: xr.Dataset, layer: str, bits: int) -> InputQuantizer:
    """The quantizer of one layer's input, of what `activation_start` found.

    Raises
    ------
    MissingError
        The layer was not observed.
    """
    if layer not in started["layer"].values:
        remedy = "taqstore collect observes them"
        raise MissingError(problem(f"no activations of layer {layer}", remedy=remedy))
    found = started.sel(layer=layer)
    step = found["step_size"].values.astype(np.float32)
    return InputQuantizer(
        step,
        np.zeros(step.shape, np.int32),
        np.full(step.shape, bits, np.int8),
        found["sigma_lower"].values,
        found["shift"].values.astype(np.float32) if "shift" in found else None,
    )


def _cuts(dataset: xr.Dataset, bits: int, count: int | None) -> tuple[int, ...]:
    """Labels of the steps that begin a group."""
    if count == 1:
        return ()
    if count is None:
        return tuple(int(label) for label in dataset["step"].values[1:])
    group = time_groups(dataset, bits=bits, count=count, shared=True)["group"].values
    starts = np.flatnonzero(np.diff(group)) + 1
    return tuple(int(label) for label in dataset["step"].values[starts])


def _shifted(dataset: xr.Dataset, cuts: tuple[int, ...], bits: int) -> xr.Dataset:
    shift, bounds = midpoint_shift(dataset), channel_bounds(dataset, analysis=_NAME)
    parts = []
    for part in step_groups(dataset, cuts):
        mean = shift.isel(step=part).mean("step", skipna=False)
        left = Bounds(
            bounds.lower.isel(step=part).min("step", skipna=False) - mean,
            bounds.upper.isel(step=part).max("step", skipna=False) - mean,
        )
        alpha = left.absmax.max("channel", skipna=False)
        _, qmax = quantization.integer_range(bits)
        parts.append(xr.Dataset({"step_size": alpha / qmax, "shift": mean}))
    return xr.concat(parts, dim="time_group", coords="minimal", compat="override")
