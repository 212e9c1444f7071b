"""Channel factors that move the difficulty of quantization from activations to weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, channel_bounds, finish, over, require
from taqstore.errors import LayoutError, MissingError, TaqError, problem

_NAME = "smooth"
Rule = Literal["smoothquant", "viditq", "ptq4dit"]
Weights: TypeAlias = xr.DataArray | xr.Dataset
FLOOR = 1e-5
"""Smallest weight absmax and factor, as in SmoothQuant's code."""


def smooth(
    dataset: xr.Dataset,
    *,
    weights: Weights | Mapping[str, Weights] | None = None,
    rule: Rule = "smoothquant",
    strength: float = 0.5,
    cuts: Sequence[float] = (),
    site: str = "",
) -> xr.Dataset:
    """Factors f per channel: X / f and W * f leave X W as it is and are easier to quantize.

    `smoothquant` (Xiao et al., arXiv 2211.10438): ``f_c = a_c^strength / w_c^(1 - strength)`` with
    a_c the absmax of the channel over all steps, w_c the absmax of its weight column.
    `viditq` (Zhao et al., arXiv 2406.02540): the same for each time range on its own.
    `ptq4dit` (Wu et al., arXiv 2405.16005): the salience of activations is a weighted mean over
    steps, ``a_c = sum_t eta_t a_c(t)`` with ``eta_t = exp(-rho_t) / sum exp(-rho)`` and rho_t the
    Spearman correlation over channels of a(t) with w: steps where both are salient in other
    channels, which balancing helps most, count more. Both sides are brought to
    ``sqrt(a_c w_c)``, so ``f_c = sqrt(a_c / w_c)``; `strength` is 1/2 there.

    Parameters
    ----------
    dataset
        Observations or a pooled source with extrema per channel.
    weights
        (layer, channel): absmax over output channels of every linear that reads the tensor; or
        the group `weights/<site>`, of which it is computed; or either by site. Layers are matched
        by label.
    rule
        As above.
    strength
        Migration strength, 0 to 1 (the papers' alpha, which is no clip bound).
    cuts
        For `viditq`: sigmas that cut the steps into time ranges; a step at a cut belongs to the
        noisier range. Empty: every step is a range of its own.
    site
        Which of several `weights` are of this tensor.

    Returns
    -------
    Dataset
        (layer, channel), with `viditq` (time_range, layer, channel): `factor`,
        `activation_absmax`, and `balanced_absmax`, the activations' absmax after division.
        (layer, channel): `weight_absmax`. `viditq`: `range_sigma_low`, `range_sigma_high`
        (time_range). `ptq4dit`: `rank_correlation` and `step_weight` (step, layer).

    Raises
    ------
    MissingError
        There are no extrema per channel, no weights, or weights that lack a layer.
    LayoutError
        The weights have another number of channels.
    TaqError
        The rule is not known, or options do not go together.
    """
    _check(rule, strength, cuts)
    bounds = channel_bounds(dataset, analysis=_NAME)
    weight = _weights(dataset, weights, site)
    absmax, extra = _RULES[rule](dataset, bounds.absmax, weight, cuts)
    factor = migration_factor(absmax, weight, strength)
    result = xr.Dataset(
        {
            "factor": factor,
            "activation_absmax": absmax,
            "balanced_absmax": absmax / factor,
            "weight_absmax": weight,
            **extra,
        }
    )
    return finish(
        result,
        dataset,
        _NAME,
        rule=rule,
        strength=strength,
        cuts=list(map(float, cuts)) or None,
    )


def migration_factor(absmax: xr.DataArray, weight: xr.DataArray, strength: float) -> xr.DataArray:
    """``max(absmax^strength / max(weight, 1e-5)^(1 - strength), 1e-5)``, NaN where unknown."""
    factor = absmax**strength / np.maximum(weight, FLOOR) ** (1.0 - strength)
    return cast(xr.DataArray, np.maximum(factor, FLOOR))


def _check(rule: str, strength: float, cuts: Sequence[float]) -> None:
    if rule not in _RULES:
        raise TaqError(problem(f"smooth rule {rule!r} is not known", remedy=" or ".join(_RULES)))
    if not 0.0 <= strength <= 1.0:
        raise TaqError(problem("strength must be 0 to 1", found=str(strength)))
    if rule == "ptq4dit" and strength != 0.5:
        raise TaqError(problem("ptq4dit has no strength but 0.5", found=str(strength)))
    if cuts and rule != "viditq":
        raise TaqError(problem(f"{rule} has no time ranges", remedy="use viditq with cuts"))


def _weights(
    dataset: xr.Dataset, given: Weights | Mapping[str, Weights] | None, site: str
) -> xr.DataArray:
    if isinstance(given, Mapping) and not isinstance(given, xr.Dataset):
        given = given.get(site)
    if given is None:
        raise MissingError(
            problem(
                f"{_NAME} needs the absmax of the weights per layer and channel",
                where=site,
                remedy="give --weights FILE.safetensors or .npz, or store weights/<site>",
            )
        )
    array = given if isinstance(given, xr.DataArray) else stored_weight_absmax(given)
    layers = dataset["layer"].values
    absent = [str(layer) for layer in layers if layer not in array["layer"].values]
    if absent:
        raise MissingError(problem(f"no weights of layer {', '.join(absent[:4])}"))
    if array.sizes["channel"] != dataset.sizes["channel"]:
        found = f"{array.sizes['channel']} in the weights, {dataset.sizes['channel']} observed"
        raise LayoutError(problem("weights of another number of input channels", found=found))
    chosen = array.sel(layer=layers).astype(np.float64)
    return chosen.drop_vars([str(c) for c in chosen.coords if c != "layer"])


def stored_weight_absmax(weights: xr.Dataset) -> xr.DataArray:
    """Weight absmax (layer, channel) of a group `weights/<site>`: integers times their steps."""
    require(weights, ("weight", "step_size"), analysis=_NAME)
    step = weights["step_size"].astype(np.float64)
    if "group" in step.dims:
        size = weights.sizes["in"] // step.sizes["group"]
        step = step.isel(group=xr.DataArray(np.arange(weights.sizes["in"]) // size, dims="in"))
    values = abs(weights["weight"].astype(np.float64)) * step
    inner = [dim for dim in values.dims if dim not in ("layer", "in")]
    return values.max(inner, skipna=False).rename({"in": "channel"})


_Found = tuple[xr.DataArray, dict[str, xr.DataArray]]


def _over_all_steps(
    _: xr.Dataset, absmax: xr.DataArray, weight: xr.DataArray, cuts: Sequence[float]
) -> _Found:
    return absmax.max("step"), {}


def _per_range(
    dataset: xr.Dataset, absmax: xr.DataArray, weight: xr.DataArray, cuts: Sequence[float]
) -> _Found:
    require(dataset, ("sigma",), analysis=_NAME)
    sigma = dataset["sigma"].values.astype(np.float64)
    below = sigma[:, None] < np.asarray(cuts, np.float64)
    number = below.sum(axis=1) if cuts else np.arange(len(sigma))
    labels = np.unique(number)
    parts = [absmax.isel(step=np.flatnonzero(number == label)).max("step") for label in labels]
    ends = [(sigma[number == label].min(), sigma[number == label].max()) for label in labels]
    low, high = (
        xr.DataArray([end[i] for end in ends], dims="time_range", name="sigma") for i in (0, 1)
    )
    dim = xr.DataArray(np.arange(len(labels)), dims="time_range", name="time_range")
    joined = xr.concat(parts, dim=dim, coords="minimal", compat="override")
    return joined, {"range_sigma_low": low, "range_sigma_high": high}


def _rank_weighted(
    _: xr.Dataset, absmax: xr.DataArray, weight: xr.DataArray, cuts: Sequence[float]
) -> _Found:
    rho = over(spearman, absmax, weight, core=(("channel",), ("channel",)))
    share = np.exp(-rho)
    share = share / share.sum("step")
    # A step at which the layer is absent has no salience and no weight.
    salience = (share * absmax).sum("step").where(absmax.notnull().any("step"))
    return salience, {"rank_correlation": rho, "step_weight": share}


def spearman(first: Array, second: Array) -> Array:
    """Spearman's rank correlation of rows ``(..., channel)``: ties share their mean rank.

    0 where one side has a single value throughout, NaN where a row holds NaN.
    """
    x, y = (_centered_ranks(values) for values in np.broadcast_arrays(first, second))
    xy, xx, yy = ((a * b).sum(axis=-1) for a, b in ((x, y), (x, x), (y, y)))
    some = (xx > 0) & (yy > 0)
    rho = np.divide(xy, np.sqrt(xx * yy), out=np.zeros(xy.shape), where=some)
    return np.where(np.isnan(first).any(axis=-1) | np.isnan(second).any(axis=-1), np.nan, rho)


def _centered_ranks(values: Array) -> Array:
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    count = values.shape[-1]
    place = np.broadcast_to(np.arange(count, dtype=np.float64), values.shape)
    starts = np.concatenate(
        [np.ones((*values.shape[:-1], 1), bool), ordered[..., 1:] != ordered[..., :-1]], axis=-1
    )
    ends = np.concatenate([starts[..., 1:], np.ones((*values.shape[:-1], 1), bool)], axis=-1)
    first = np.maximum.accumulate(np.where(starts, place, 0.0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, place, count)[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=-1)
    return np.asarray(ranks - (count - 1) / 2)


_RULES = {"smoothquant": _over_all_steps, "viditq": _per_range, "ptq4dit": _rank_weighted}
