"""Clip ranges, step sizes and zero points of uniform activation quantizers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.by_parts import scales_by_parts
from taqstore.analysis.ranges.clip import Clip, Per, clip_range
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import Cuts, by_steps, cuts_text
from taqstore.analysis.shared.inputs import Array, Bounds, finish, over
from taqstore.analysis.table import of_row
from taqstore.errors import MisuseError, problem
from taqstore.quantization import quantizer as quantization
from taqstore.quantization.search import Scheme
from taqstore.store.given import put_behind_dask

_NAME = "scales"


@of_row(_NAME, blocks=False)
def scales(
    dataset: xr.Dataset,
    *,
    bits: int = 8,
    symmetric: bool = True,
    clip: Rule = "absmax",
    percentile: float | None = None,
    momentum: float | None = None,
    order: Sequence[int] | None = None,
    per: Per = "tensor",
    group_size: int | None = None,
    cuts: Cuts = None,
    narrow_range: bool = False,
) -> xr.Dataset:
    """Quantizer parameters for every step, group of steps, or all steps, and layer.

    Parameters
    ----------
    dataset
        Observations or a pooled source; take the batches a rule is to see with `isel(batch=...)`.
    bits
        2 to 16.
    symmetric
        Signed integers around zero point 0, ``step_size = alpha / (2**(bits-1) - 1)``; otherwise
        unsigned integers and an affine zero point (see `taqstore.quantization.quantizer`).
    clip
        Rule of the clip range, with its `percentile`, `momentum`, `order`, `per` and `group_size`:
        see `ranges.rules.RULES`. Percentiles of `pooled/timestep_stats` are the source's signed
        `hist_p999`, NaN where it took no histogram.
    cuts
        Labels of the steps that begin a new group of steps (besides the first); `static`: one
        group. By default every step has its own range.
    narrow_range
        Leave out the smallest integer (symmetric only).

    Returns
    -------
    Dataset over (step or step_group, layer[, projection][, channel or channel_group])
        `lower`, `upper`; `alpha` if symmetric; `step_size` float64, `zero_point` int64. The integer
        range is in the attributes `qmin` and `qmax`. Groups of steps have the coordinates
        `first_step` and `last_step`.

    Raises
    ------
    MissingError
        A needed variable is not there.
    MisuseError
        An option out of its range, or that does not go with the others.
    """
    rule = Clip(clip, percentile, momentum, order, per, group_size)
    scheme = checked_scheme(bits, symmetric, narrow_range)
    qmin, qmax = scheme.integers

    def parameters(part: xr.Dataset, static: bool) -> xr.Dataset:
        return quantizers(clip_range(part, rule, scheme, static=static, analysis=_NAME), scheme)

    found = scales_by_parts(dataset, rule, scheme) if cuts is None else None
    if found is None:
        found = by_steps(put_behind_dask(dataset), cuts, parameters)
    return finish(
        found,
        dataset,
        _NAME,
        bits=bits,
        symmetric=symmetric,
        **rule.stamp,
        cuts=cuts_text(cuts),
        narrow_range=narrow_range,
        qmin=qmin,
        qmax=qmax,
    )


def checked_scheme(bits: int, symmetric: bool, narrow_range: bool) -> Scheme:
    """Kind of quantizer.

    Raises
    ------
    MisuseError
        A narrow range is asked of an affine quantizer.
    """
    if narrow_range and not symmetric:
        raise MisuseError(problem("a narrow range is for symmetric quantizers only"))
    return Scheme(bits, symmetric, narrow_range)


def quantizers(bounds: Bounds, scheme: Scheme) -> xr.Dataset:
    """`lower`, `upper`, `step_size`, `zero_point` (and `alpha`) of a range."""
    if scheme.symmetric:
        alpha = bounds.upper
        step, zero = over(
            _symmetric_steps,
            alpha,
            core=((),),
            out=((), ()),
            dtypes=(np.float64, np.int64),
            scheme=scheme,
        )
        return xr.Dataset(
            {"alpha": alpha, "lower": -alpha, "upper": alpha, "step_size": step, "zero_point": zero}
        )
    step, zero = over(
        _affine_steps,
        *bounds,
        core=((), ()),
        out=((), ()),
        dtypes=(np.float64, np.int64),
        scheme=scheme,
    )
    lower, upper = bounds
    return xr.Dataset({"lower": lower, "upper": upper, "step_size": step, "zero_point": zero})


def _symmetric_steps(alpha: Array, *, scheme: Scheme) -> tuple[Array, Array]:
    quantizer = quantization.symmetric(alpha, bits=scheme.bits, narrow_range=scheme.narrow_range)
    return quantizer.step_size, quantizer.zero_point


def _affine_steps(lower: Array, upper: Array, *, scheme: Scheme) -> tuple[Array, Array]:
    quantizer = quantization.affine(lower, upper, bits=scheme.bits)
    return quantizer.step_size, quantizer.zero_point
