"""Bit widths by thresholds (A4/A6/A8), and what a shift gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from taqstore.analysis.pooling import POOLED_RULES, as_pooled
from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.shared.inputs import (
    Array,
    channel_bounds,
    finish,
    histogram_bins,
    is_post_gelu,
    mean_known,
    over,
    tensor_alpha,
)
from taqstore.analysis.table import of_row
from taqstore.analysis.temporal import over_steps
from taqstore.asked import number, ordered
from taqstore.quantization.search import Scheme

_NAME = "tiers"
_FLOOR = 1e-8
_DEAD = 1e-6
_TAIL = 99


@dataclass(frozen=True)
class Thresholds:
    """Parameters of the tier rule.

    Parameters
    ----------
    a4, a6
        4 bits below `a4`, 6 below `a6`, 8 from there.
    shifted_a4, shifted_a6
        The same for inputs of `mlp.fc2`.
    smoothquant_fraction, smoothquant_spike
        A layer is a SmoothQuant candidate if less than this share of its channels exceeds their
        99th percentile and the largest is more than this many times that percentile.
    smoothquant_margin
        A candidate goes from 6 to 4 bits below ``smoothquant_margin * a4``.
    variability
        Ratio of largest to smallest clip bound above which a layer is highly variable.
    benefit
        Share by which a shift must bring the mean closer to 0 to be effective.

    Raises
    ------
    MisuseError
        A number that is not above 0, or a threshold of 4 bits above that of 6.
    """

    a4: float = 6.0
    a6: float = 10.0
    shifted_a4: float = 5.0
    shifted_a6: float = 8.0
    smoothquant_fraction: float = 0.05
    smoothquant_spike: float = 5.0
    smoothquant_margin: float = 1.2
    variability: float = 2.0
    benefit: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number(value, name, least=0, above=True)
        for prefix in ("", "shifted_"):
            names = (f"{prefix}a4", f"{prefix}a6")
            ordered(getattr(self, names[0]), getattr(self, names[1]), names)


@of_row(_NAME)
def tiers(
    dataset: xr.Dataset,
    *,
    thresholds: Thresholds | None = None,
    clip: Rule = "absmax",
    percentile: float | None = None,
    momentum: float | None = None,
    order: Sequence[int] | None = None,
    bits: int | None = None,
    site: str = "",
) -> xr.Dataset:
    """Bits for every step and layer by the source's multi-tier rule.

    Bits follow from the clip bound. At the first step alone, a SmoothQuant candidate goes one tier
    down: from 8 to 6, and from 6 to 4 if close to the 4-bit threshold.

    Parameters
    ----------
    dataset
        Observations or a pooled source with extrema per channel.
    thresholds
        By default the source's.
    clip, percentile, momentum, order, bits
        Rule of the clip bound to compare, as in `scales`, and the width of rules that look for a
        least error. With `tensor_absmax` and `hist_p999`, the rules of the source's own script,
        SmoothQuant candidates too are told of observations as that script pooled them.
    site
        Site of the group, where its attributes do not say; `mlp.fc2` has thresholds of its own.

    Returns
    -------
    Dataset
        (step, layer[, projection]): `alpha`, `threshold_bits`, `bits` (0 where a layer is absent);
        (layer): `smoothquant`, `outlier_share`, `spike_ratio`, `switcher`, `high_variability`, and
        `alpha_mean`, `alpha_min`, `alpha_max`, `variability_ratio` of the absmax; (layer, channel):
        `smoothquant_scale`. With a shift and histograms, (layer): `shift_benefit`, `skewness`,
        `effective`.

    Raises
    ------
    MissingError
        A needed variable is not there.
    """
    limits = thresholds or Thresholds()
    rule = Clip(clip, percentile, momentum, order)
    shift_effect = _shift_effect(dataset, limits)
    if clip in POOLED_RULES:
        dataset = as_pooled(dataset, site=site)
    absmax = tensor_alpha(dataset, analysis=_NAME)
    alpha = clip_range(dataset, rule, Scheme(bits or 8, symmetric=True), analysis=_NAME).upper
    post_gelu = is_post_gelu(dataset, site)
    smoothquant = _smoothquant(dataset, limits)
    coarse = _threshold_bits(alpha, limits, post_gelu)
    widths = _step_down(coarse, alpha, smoothquant["smoothquant"], limits)
    summary = over_steps(absmax)
    result = xr.Dataset(
        {
            "alpha": alpha,
            "threshold_bits": coarse,
            "bits": widths,
            **smoothquant,
            **summary,
            "high_variability": summary["variability_ratio"] > limits.variability,
            "switcher": (widths == 4).any("step") & (widths == 8).any("step"),
            **shift_effect,
        }
    )
    stamp = {**rule.stamp, "per": None, "clip_bits": bits}
    return finish(result, dataset, _NAME, **stamp, site=site or None, **asdict(limits))


def _threshold_bits(alpha: xr.DataArray, limits: Thresholds, post_gelu: bool) -> xr.DataArray:
    a4, a6 = (limits.shifted_a4, limits.shifted_a6) if post_gelu else (limits.a4, limits.a6)
    bits: xr.DataArray = over(width_rule, alpha, core=((),), dtypes=(np.int64,), a4=a4, a6=a6)
    return bits


def width_rule(alpha: Array, *, a4: float, a6: float) -> Array:
    """4 below `a4`, else 6 below `a6`, else 8; 0 where `alpha` is NaN."""
    return np.select([np.isnan(alpha), alpha < a4, alpha < a6], [0, 4, 6], 8)


def _step_down(
    bits: xr.DataArray, alpha: xr.DataArray, candidate: xr.DataArray, limits: Thresholds
) -> xr.DataArray:
    first = bits["step"] == bits["step"].values[0]
    close = (bits == 6) & (alpha < limits.a4 * limits.smoothquant_margin)
    down = candidate & first & ((bits == 8) | close)
    lower: xr.DataArray = bits - down.astype(np.int64) * 2
    return lower.transpose(*bits.dims)


def _smoothquant(dataset: xr.Dataset, limits: Thresholds) -> dict[str, xr.DataArray]:
    absmax = channel_bounds(dataset, analysis=_NAME).absmax.isel(step=0)
    absmax = absmax.drop_vars(("step", "sigma", "timestep"), errors="ignore")
    names = ("smoothquant", "outlier_share", "spike_ratio", "smoothquant_scale")
    found = over(
        smoothquant_rule,
        absmax,
        core=(("channel",),),
        out=((), (), (), ("channel",)),
        dtypes=(bool, *[np.float64] * 3),
        fraction=limits.smoothquant_fraction,
        spike=limits.smoothquant_spike,
    )
    return dict(zip(names, found, strict=True))


def smoothquant_rule(
    absmax: Array, *, fraction: float, spike: float
) -> tuple[Array, Array, Array, Array]:
    """Candidates among rows ``(..., channel)`` of absmax, with shares, ratios and factors."""
    tail = np.percentile(absmax, _TAIL, axis=-1)
    share = (absmax > tail[..., None]).mean(axis=-1)
    ratio = np.divide(absmax.max(axis=-1), tail, out=np.ones_like(tail), where=tail >= _DEAD)
    candidate = (tail >= _DEAD) & (share < fraction) & (ratio > spike)
    root = scalar_power(np.ascontiguousarray(absmax).mean(axis=-1), 0.5)
    return candidate, share, ratio, np.sqrt(absmax) / (root[..., None] + _FLOOR)


def scalar_power(base: Array, exponent: float) -> Array:
    """`base ** exponent` by the C library's `pow`, as Python floats have it.

    NumPy's own loops may differ from it in the last bit, and files are compared to the last bit.
    """
    powers = [math.pow(value, exponent) for value in base.ravel().tolist()]
    return np.array(powers, np.float64).reshape(base.shape)


def _shift_effect(dataset: xr.Dataset, limits: Thresholds) -> dict[str, xr.DataArray]:
    histograms = {"hist_counts", "histogram"} & set(dataset.data_vars)
    if "shift" not in dataset.data_vars or not histograms:
        return {}
    benefit, skewness = over(
        shift_rule,
        *histogram_bins(dataset, analysis=_NAME),
        dataset["shift"].astype(np.float64),
        core=(("bin",), ("edge",), ("channel",)),
        out=((), ()),
        dtypes=(np.float64,) * 2,
    )
    mean_benefit = over(mean_known, benefit, core=(("step",),))
    return {
        "shift_benefit": mean_benefit,
        "skewness": over(mean_known, skewness, core=(("step",),)),
        "effective": mean_benefit > limits.benefit,
    }


def shift_rule(counts: Array, edges: Array, shift: Array) -> tuple[Array, Array]:
    """How much nearer to 0 the mean shift brings the mean of a histogram, and its skewness.

    Parameters
    ----------
    counts, edges, shift
        ``(..., bin)``, ``(..., bin + 1)``, ``(..., channel)``.

    Returns
    -------
    ``(|mean| - |mean - mean(shift)|) / (|mean| + 1e-8)`` and skewness, ``(...)``; NaN where the
    histogram is empty or there is no shift.
    """
    centers = (edges[..., :-1] + edges[..., 1:]) / 2
    total = counts.sum(axis=-1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    mean = (centers * share).sum(axis=-1)
    moved = centers - mean[..., None]
    spread = np.sqrt((moved**2 * share).sum(axis=-1) + _FLOOR)
    skewness = (moved**3 * share).sum(axis=-1) / (scalar_power(spread, 3) + _FLOOR)
    after = np.abs(mean - np.ascontiguousarray(shift).mean(axis=-1))
    benefit = (np.abs(mean) - after) / (np.abs(mean) + _FLOOR)
    return benefit, np.where(np.isnan(benefit), np.nan, skewness)
