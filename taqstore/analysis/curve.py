"""Expected error as a curve over clip ranges, with the range of every rule marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from taqstore.analysis.error import held_rows, stored_bins
from taqstore.analysis.ranges.clip import EMA_MOMENTUM, Clip, clip_range
from taqstore.analysis.ranges.rules import Rule, marked
from taqstore.analysis.scales import checked_scheme, quantizers
from taqstore.analysis.shared.inputs import Array, Bounds, finish, over
from taqstore.analysis.table import of_row
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.quantization.counts import mean_over, occupied, parts
from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.search import Scheme
from taqstore.quantization.spread import Spread
from taqstore.statistics.histogram import Layout

_NAME = "curve"
RATIOS = np.exp2(np.arange(-64, 1) / 8)
"""Clip ranges as shares of the full range: 2^-8 to 1, eight per factor of two."""


@of_row(_NAME)
def curve(
    dataset: xr.Dataset,
    *,
    bits: int = 8,
    symmetric: bool = True,
    percentile: float = 99.9,
    momentum: float = EMA_MOMENTUM,
    rules: Sequence[Rule] | None = None,
    ratios: Sequence[float] | Array = RATIOS,
) -> xr.Dataset:
    """Expected error over clip ranges from full to narrow, with every rule's range marked.

    Parameters
    ----------
    dataset
        Observations or a pooled source with histograms.
    bits, symmetric, percentile, momentum
        As in `scales`.
    rules
        Rules to mark, by default all that have a mark; those the source has no statistics for are
        left out and named in the attribute `left_out`.
    ratios
        Clip ranges as shares of the range the histogram occupies, above 0.

    Returns
    -------
    Dataset
        (step, layer, ratio): `clip_lower`, `clip_upper`, `clip_error`. (step, layer, rule):
        `rule_lower`, `rule_upper`, `rule_error`. Errors in squared units of the values.

    Raises
    ------
    MissingError
        There are no histograms.
    TaqError
        A rule or option makes no sense.
    """
    scheme = checked_scheme(bits, symmetric, False)
    shares = np.asarray(ratios, np.float64)
    if shares.ndim != 1 or not shares.size or not np.all(shares > 0):
        raise MisuseError(problem("ratios of a curve are above 0", found=str(shares)))
    full = _full_range(dataset, scheme)
    share = xr.DataArray(shares, dims="ratio", coords={"ratio": shares})
    swept = Bounds(full.lower * share, full.upper * share)
    chosen = marked() if rules is None else rules
    marks, left_out = _marks(dataset, chosen, scheme, percentile=percentile, momentum=momentum)
    result = _priced("clip", "ratio", dataset, swept, scheme)
    if marks is not None:
        result |= _priced("rule", "rule", dataset, marks, scheme)
    return finish(
        xr.Dataset(result),
        dataset,
        _NAME,
        bits=bits,
        symmetric=symmetric,
        percentile=percentile,
        momentum=momentum,
        left_out=", ".join(left_out) or None,
    )


def _full_range(dataset: xr.Dataset, scheme: Scheme) -> Bounds:
    """What the histograms occupy, widened to hold 0; balanced about it if symmetric."""
    bins, layout, core = stored_bins(dataset, analysis=_NAME)
    low, high = over(
        _occupied_range,
        *bins,
        core=core,
        out=((), ()),
        dtypes=(np.float64,) * 2,
        layout=layout,
    )
    found = Bounds(np.minimum(low, 0.0), np.maximum(high, 0.0))
    return Bounds(-found.absmax, found.absmax) if scheme.symmetric else found


def _occupied_range(counts: Array, *others: Array, layout: Layout | None) -> tuple[Array, Array]:
    shape = counts.shape[:-1]
    rows, spread, known = held_rows(counts, others, layout, shape)
    if not rows.shape[1]:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    low, high = occupied(parts(rows.astype(np.float64), spread, known))
    return low.reshape(shape), high.reshape(shape)


def _marks(
    dataset: xr.Dataset, rules: Sequence[Rule], scheme: Scheme, **options: float
) -> tuple[Bounds | None, list[str]]:
    """Ranges (..., rule) of the rules that the source has statistics for, and the other rules."""
    found: dict[str, Bounds] = {}
    left_out: list[str] = []
    for rule in rules:
        try:
            found[rule] = clip_range(dataset, Clip.of(rule, **options), scheme, analysis=_NAME)
        except MissingError:
            left_out.append(rule)
    if not found:
        return None, left_out
    names = xr.DataArray(list(found), dims="rule", name="rule")
    lower, upper = (
        xr.concat(ends, names, coords="minimal", compat="override")
        for ends in zip(*found.values(), strict=True)
    )
    return Bounds(lower, upper), left_out


def _priced(
    prefix: str, sweep: str, dataset: xr.Dataset, bounds: Bounds, scheme: Scheme
) -> dict[str, xr.DataArray]:
    """Ranges along the dimension `sweep` with their errors."""
    bins, layout, core = stored_bins(dataset, analysis=_NAME)
    chosen = quantizers(bounds, scheme)
    error = over(
        _errors,
        *bins,
        chosen["step_size"],
        chosen["zero_point"],
        core=(*core, (sweep,), (sweep,)),
        out=((sweep,),),
        scheme=scheme,
        layout=layout,
    )
    return {
        f"{prefix}_lower": bounds.lower.transpose(*error.dims),
        f"{prefix}_upper": bounds.upper.transpose(*error.dims),
        f"{prefix}_error": error,
    }


def _errors(counts: Array, *inputs: Array, scheme: Scheme, layout: Layout | None) -> Array:
    *others, step, zero = inputs
    shape = np.broadcast_shapes(counts.shape[:-1], step.shape[:-1])
    rows, spread, known = held_rows(counts, others, layout, shape)
    wide = (np.broadcast_to(v, (*shape, v.shape[-1])).reshape(len(rows), -1) for v in (step, zero))
    flat = scheme.quantizer(*wide)
    error: Array = np.empty(flat.step_size.shape)
    for column in range(error.shape[-1]):
        per_bin = _error_of(flat[:, column])
        error[:, column] = mean_over(rows, spread, per_bin, known=known)
    return error.reshape(*shape, -1)


def _error_of(quantizers: Quantizer) -> Callable[[Spread, slice], Array]:
    return lambda bins, part: bins.error(quantizers[part])
