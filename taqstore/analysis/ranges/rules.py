"""Rules that choose a clip range: from extrema, from percentiles, or from expected error."""

from __future__ import annotations

import xarray as xr

from taqstore.analysis.ranges.clip import FROM_EXTREMA, Clip
from taqstore.analysis.ranges.from_extrema import range_of_extrema
from taqstore.analysis.ranges.from_histogram import mean_percentile, percentile, searched
from taqstore.analysis.shared.inputs import Bounds
from taqstore.quantization.search import Scheme


def clip_range(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool = False, analysis: str
) -> Bounds:
    """Range chosen by a rule; ``(-alpha, alpha)`` where the scheme is symmetric.

    Parameters
    ----------
    dataset
        Observations or a pooled source.
    scheme
        Bits matter to `mse` and `l2.4`.
    static
        One range for all steps, without the dimension `step`; else one for each.

    Returns
    -------
    Bounds over ([step, ]layer[, projection][, channel or channel_group]), float64.

    Raises
    ------
    MissingError
        The source lacks what the rule needs.
    """
    others = {"percentile": percentile, "mean_percentile": mean_percentile}
    rule = range_of_extrema if clip.rule in FROM_EXTREMA else others.get(clip.rule, searched)
    found = rule(dataset, clip, scheme, static=static, analysis=analysis)
    if not scheme.symmetric:
        return found
    alpha = found.absmax
    return Bounds(-alpha, alpha)
