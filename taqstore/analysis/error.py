"""Expected quantization error, SQNR and clip loss from histograms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.known import known_values
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import Cuts, cuts_text, per_step
from taqstore.analysis.scales import checked_scheme, quantizers
from taqstore.analysis.shared.inputs import (
    Array,
    Bounds,
    finish,
    histogram_bins,
    observed_histogram,
    over,
)
from taqstore.analysis.table import of_row
from taqstore.asked import ordered
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.quantization.counts import known_rows, means_over
from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.search import Scheme
from taqstore.quantization.spread import Spread
from taqstore.statistics.histogram import Layout

_NAME = "error"
Key = TypeVar("Key", bound=Hashable)


@of_row(_NAME)
def error(
    dataset: xr.Dataset,
    *,
    bits: int = 8,
    symmetric: bool = True,
    clip: Rule = "absmax",
    percentile: float | None = None,
    momentum: float | None = None,
    order: Sequence[int] | None = None,
    cuts: Cuts = None,
    narrow_range: bool = False,
    lower: float | None = None,
    upper: float | None = None,
    bounds: tuple[xr.DataArray | float, xr.DataArray | float] | None = None,
) -> xr.Dataset:
    """Expected squared error of quantizing every step and layer, from its histogram.

    ``error = sum_b n_b E_b / sum_b n_b`` with E_b the mean squared error of the values of bin b:
    the value itself where the bin holds one, else spread evenly but for the values that channel
    extrema tell (see `taqstore.quantization.spread`, `taqstore.quantization.counts`).
    ``sqnr = 10 log10(mean(x^2) / error)``. Exact for float16 data with 10 mantissa bits.

    Parameters
    ----------
    dataset
        Observations or a pooled source with histograms.
    bits, symmetric, clip, percentile, momentum, order, cuts, narrow_range
        As in `scales`. A range chosen for several steps is priced at each of them.
    lower, upper
        A clip range instead of a rule; `lower` by default ``-upper``. If symmetric,
        ``max(|lower|, |upper|)`` is the clip bound.
    bounds
        The same as a pair: numbers, or arrays over any of the dimensions.

    Returns
    -------
    Dataset over (step, layer[, projection])
        `lower`, `upper`, `step_size`, `zero_point` (and `alpha`); `error` and its part beyond the
        outermost levels, `clip_loss`, in squared units of the values; `sqnr` in dB;
        `clipped_share`, the share of values outside `lower` to `upper`. NaN where nothing was
        counted.

    Raises
    ------
    MissingError
        There are no histograms, or the rule lacks a variable.
    MisuseError
        An option out of its range, or that does not go with the others.
    """
    scheme = checked_scheme(bits, symmetric, narrow_range)
    if bounds is None and (lower is not None or upper is not None):
        bounds = _pair(lower, upper)
    rule = Clip(clip, percentile, momentum, order)
    if bounds is None:
        chosen = per_step(dataset, cuts, rule, scheme, analysis=_NAME)
    else:
        chosen = _given(*bounds, symmetric)
    result = quantizers(chosen, scheme)
    result = result.assign(_priced(dataset, result, scheme))
    described = {"clip": "given"} if bounds is not None else rule.stamp
    return finish(
        result,
        dataset,
        _NAME,
        bits=bits,
        symmetric=symmetric,
        **described,
        cuts=cuts_text(cuts),
        narrow_range=narrow_range,
    )


def errors(
    dataset: xr.Dataset, asked: Mapping[Key, Mapping[str, Any]]
) -> tuple[dict[Key, xr.Dataset], dict[Key, MissingError]]:
    """`error` and `sqnr` of several configurations, as `error` tells them, in one pass.

    Parameters
    ----------
    asked
        By any key: `bits`, `clip` and `cuts` of a symmetric quantizer.

    Returns
    -------
    Results by key, and for those that cannot be had what is missing.
    """
    found: dict[Key, xr.Dataset] = {}
    missing: dict[Key, MissingError] = {}
    schemes = {key: checked_scheme(one["bits"], True, False) for key, one in asked.items()}
    for key, one in asked.items():
        rule = Clip(one["clip"])
        try:
            ranges = per_step(dataset, one["cuts"], rule, schemes[key], analysis=_NAME)
            found[key] = quantizers(ranges, schemes[key])
        except MissingError as error:
            missing[key] = error
    if not found:
        return found, missing
    try:
        bins, layout, core = stored_bins(dataset, analysis=_NAME)
    except MissingError as error:
        return {}, missing | dict.fromkeys(found, error)
    ends = [chosen[name] for chosen in found.values() for name in ("step_size", "zero_point")]
    priced = over(
        _price_each,
        *bins,
        *ends,
        core=(*core, *[()] * len(ends)),
        out=((),) * len(ends),
        dtypes=(np.float64,) * len(ends),
        schemes=tuple(schemes[key] for key in found),
        layout=layout,
    )
    for (key, chosen), cost, sqnr in zip(found.items(), priced[::2], priced[1::2], strict=True):
        one = asked[key]
        found[key] = finish(
            chosen.assign(error=cost, sqnr=sqnr)[["error", "sqnr"]],
            dataset,
            _NAME,
            bits=one["bits"],
            symmetric=True,
            **Clip(one["clip"]).stamp,
            cuts=cuts_text(one["cuts"]),
            narrow_range=False,
        )
    return found, missing


def _price_each(
    counts: Array, *inputs: Array, schemes: Sequence[Scheme], layout: Layout | None
) -> tuple[Array, ...]:
    """Error and SQNR of every scheme in turn, whose step sizes and zero points are last."""
    others, ends = inputs[: -2 * len(schemes)], inputs[-2 * len(schemes) :]
    shape = np.broadcast_shapes(counts.shape[:-1], *(end.shape for end in ends))
    rows, spread, known = held_rows(counts, others, layout, shape)
    flat = [np.broadcast_to(end, shape).ravel() for end in ends]
    prices = [
        partial(_error_of, scheme.quantizer(step, zero))
        for scheme, step, zero in zip(schemes, flat[::2], flat[1::2], strict=True)
    ]
    power, *found = means_over(rows, spread, [lambda bins, _: bins.square(), *prices], known=known)
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = [(error, 10.0 * np.log10(power / error)) for error in found]
    return tuple(one.reshape(shape) for pair in pairs for one in pair)


def _error_of(quantizer: Quantizer, bins: Spread, part: slice) -> Array:
    return bins.error(quantizer[part])


def _pair(lower: float | None, upper: float | None) -> tuple[float, float]:
    if upper is None:
        raise MisuseError(problem("a lower bound needs an upper one", remedy="give upper too"))
    low = -upper if lower is None else lower
    ordered(low, upper, ("lower", "upper"))
    return low, upper


def _given(lower: xr.DataArray | float, upper: xr.DataArray | float, symmetric: bool) -> Bounds:
    bounds = Bounds(*(xr.DataArray(end).astype(np.float64) for end in (lower, upper)))
    return Bounds(-bounds.absmax, bounds.absmax) if symmetric else bounds


def _priced(dataset: xr.Dataset, chosen: xr.Dataset, scheme: Scheme) -> dict[str, xr.DataArray]:
    bins, layout, core = stored_bins(dataset, analysis=_NAME)
    names = ("error", "clip_loss", "sqnr", "clipped_share")
    found = over(
        _price,
        *bins,
        *(chosen[name] for name in ("step_size", "zero_point", "lower", "upper")),
        core=(*core, *[()] * 4),
        out=((),) * 4,
        dtypes=(np.float64,) * 4,
        scheme=scheme,
        layout=layout,
    )
    return dict(zip(names, found, strict=True))


def stored_bins(
    dataset: xr.Dataset, *, analysis: str
) -> tuple[list[xr.DataArray], Layout | None, tuple[tuple[str], ...]]:
    """Counts with the known values among them, and their layout; or counts with their edges.

    The last of the results are the core dims of the first ones.

    Raises
    ------
    MissingError
        There are no histograms.
    """
    observed = observed_histogram(dataset)
    if observed is not None:
        known = known_values(dataset)
        core = (("bin",), *[("value",)] * len(known))
        return [observed[0], *known], observed[1], core
    return list(histogram_bins(dataset, analysis=analysis)), None, (("bin",), ("edge",))


def held_rows(
    counts: Array, others: Sequence[Array], layout: Layout | None, shape: tuple[int, ...]
) -> tuple[Array, Spread, Array | None]:
    """Histograms as rows ``(prod(shape), bin)``, cut to the bins that hold anything in some row.

    `others` are those of `stored_bins` beside the counts. Comes with the rows' known values.
    """
    used = np.flatnonzero(counts.reshape(-1, counts.shape[-1]).any(axis=0))
    held = counts if len(used) == counts.shape[-1] else counts[..., used]
    held = np.broadcast_to(held, (*shape, len(used)))
    held = held.reshape(prod(shape), len(used))  # -1 is ambiguous where nothing was counted
    if layout is not None:
        return held, Spread.of(layout)[used], known_rows(others[0] if others else None, shape)
    ends = np.broadcast_to(others[0], (*shape, others[0].shape[-1])).reshape(len(held), -1)
    return held, Spread(ends[:, used], ends[:, used + 1]), None


def _price(
    counts: Array, *inputs: Array, scheme: Scheme, layout: Layout | None
) -> tuple[Array, ...]:
    *others, step, zero, lower, upper = inputs
    shape = np.broadcast_shapes(counts.shape[:-1], step.shape)
    rows, spread, known = held_rows(counts, others, layout, shape)
    flat = scheme.quantizer(*(np.broadcast_to(v, shape).ravel() for v in (step, zero)))
    ends = [np.broadcast_to(v, shape).ravel() for v in (lower, upper)]
    error, lost, power, clipped = means_over(
        rows,
        spread,
        (
            lambda bins, part: bins.error(flat[part]),
            lambda bins, part: bins.clip_loss(flat[part]),
            lambda bins, _: bins.square(),
            lambda bins, part: bins.beyond(*(end[part] for end in ends)),
        ),
        known=known,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        sqnr = 10.0 * np.log10(power / error)
    return tuple(found.reshape(shape) for found in (error, lost, sqnr, clipped))
