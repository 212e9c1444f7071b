"""Channel factors that move the difficulty of quantization from activations to weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import (
    Array,
    channel_bounds,
    finish,
    over,
    quotient,
    require,
)
from taqstore.analysis.shared.ranks import spearman
from taqstore.analysis.table import of_row
from taqstore.errors import LayoutError, MissingError, problem

_NAME = "smooth"
Rule = Literal["smoothquant", "viditq", "ptq4dit", "smoothquant-ranges", "ptq4dit-steps"]
Weights: TypeAlias = xr.DataArray | xr.Dataset
_BALANCED = 0.5
FLOOR = 1e-5
"""Smallest weight absmax and factor, as in SmoothQuant's code; smallest activation in ViDiT-Q's."""
MOMENTUM = 0.95
"""Of ViDiT-Q's moving average, as its authors' configs set it."""
_ADDED = 1e-8
"""What PTQ4DiT's code adds to the absmax of the weights."""


@of_row(_NAME)
def smooth(
    dataset: xr.Dataset,
    *,
    weights: Weights | Mapping[str, Weights] | None = None,
    rule: Rule = "smoothquant",
    strength: float | None = None,
    momentum: float | None = None,
    cuts: Sequence[float] | None = None,
    site: str = "",
) -> xr.Dataset:
    """Factors f per channel: X / f and W * f leave X W as it is and are easier to quantize.

    `smoothquant` (Xiao et al., arXiv 2211.10438): ``f_c = a_c^strength / w_c^(1 - strength)`` with
    a_c the absmax of the channel over all steps, w_c the absmax of its weight column.

    Two rules are those of their authors' code; they ask for each forward's own extrema, which are
    observed batches (a forward is a batch of the store, its absmax that of all its images and
    rows):

    `viditq` (Zhao et al., arXiv 2406.02540; `QuantLayer` with `momentum_act_max`): a_c is, for each
    time range, the moving average of the forwards' absmax, ``a = momentum a + (1 - momentum) x``,
    started at the first that is not all zero; forwards come step by step, and batch by batch
    within a step. Channels that stay 0 count as 1e-5.
    `ptq4dit` (Wu et al., arXiv 2405.16005; `models.py`): every forward x_i, of all steps and
    batches, has a weight ``eta_i = exp(-rho_i) / sum exp(-rho)`` with rho_i the Spearman
    correlation over channels of its absmax with w, so that forwards where both are salient in other
    channels, which balancing helps most, count more. ``a_c = sum_i eta_i x_i`` and
    ``f_c = sqrt(a_c / (w_c + 1e-8))``.

    Two more make do with extrema over the batches, and give other numbers:

    `smoothquant-ranges`: `smoothquant` for each time range on its own.
    `ptq4dit-steps`: as `ptq4dit`, with the absmax of a step over its batches in the place of each
    forward's; ``f_c = sqrt(a_c / w_c)``.

    Parameters
    ----------
    dataset
        Observations or a pooled source with extrema per channel.
    weights
        (layer, channel): absmax over output channels of every linear that reads the tensor; or
        the group `weights/<set>/<site>`, of which it is computed; or either by site. Layers are
        matched by label.
    rule
        As above.
    strength
        Migration strength, 0 to 1 (the papers' alpha, which is no clip bound); by default 1/2, and
        always with `ptq4dit`.
    momentum
        For `viditq`: weight of what came before; None: 0.95.
    cuts
        For `viditq` and `smoothquant-ranges`: sigmas that cut the steps into time ranges; a step at
        a cut belongs to the noisier range. Empty: every step is a range of its own.
    site
        Which of several `weights` are of this tensor.

    Returns
    -------
    Dataset
        (layer, channel), with time ranges (time_range, layer, channel): `factor`,
        `activation_absmax`, which is a_c, and `balanced_absmax`, that after division.
        (layer, channel): `weight_absmax`. Time ranges: `range_sigma_low`, `range_sigma_high`
        (time_range). `ptq4dit`: `rank_correlation` and `forward_weight` (batch, step, layer);
        `ptq4dit-steps`: `rank_correlation` and `step_weight` (step, layer).

    Raises
    ------
    MissingError
        There are no extrema per channel, or not of each batch where the rule asks for them; no
        weights.
    LayoutError
        The weights lack a layer, or have another number of channels.
    MisuseError
        The rule is not known, or options do not go together.
    """
    row = _RULES[rule]
    seen = (_of_forwards if row.forwards else _over_batches)(dataset, rule)
    weight = _weights(dataset, weights, site)
    keep = MOMENTUM if momentum is None else momentum
    share = _BALANCED if strength is None else strength
    absmax, extra = row.activation(dataset, seen, weight, cuts or (), keep)
    factor = row.factor(absmax, weight, share)
    result = xr.Dataset(
        {
            "factor": factor,
            "activation_absmax": absmax,
            "balanced_absmax": quotient(absmax, factor),
            "weight_absmax": weight,
            **extra,
        }
    )
    return finish(
        result,
        dataset,
        _NAME,
        rule=rule,
        strength=share,
        momentum=momentum,
        cuts=list(map(float, cuts or ())) or None,
    )


def migration_factor(absmax: xr.DataArray, weight: xr.DataArray, strength: float) -> xr.DataArray:
    """``max(absmax^strength / max(weight, 1e-5)^(1 - strength), 1e-5)``, NaN where unknown."""
    factor = absmax**strength / np.maximum(weight, FLOOR) ** (1.0 - strength)
    return cast(xr.DataArray, np.maximum(factor, FLOOR))


def _balancing(absmax: xr.DataArray, weight: xr.DataArray, strength: float) -> xr.DataArray:
    """PTQ4DiT's, which is infinite in no channel, but 0 in one without activations."""
    return cast(xr.DataArray, np.sqrt(absmax / (weight + _ADDED)))


def _over_batches(dataset: xr.Dataset, rule: str) -> xr.DataArray:
    """Absmax (step, layer, channel)."""
    return channel_bounds(dataset, analysis=_NAME).absmax


def _of_forwards(dataset: xr.Dataset, rule: str) -> xr.DataArray:
    """Absmax (batch, step, layer, channel) of each forward."""
    channel_bounds(dataset, analysis=_NAME)
    if "min" not in dataset or "batch" not in dataset["min"].dims:
        what = f"{_NAME} --rule {rule} needs each forward's extrema, and these are reduced"
        close = "smoothquant-ranges" if rule == "viditq" else "ptq4dit-steps"
        remedy = f"collect activations/<site>, or use --rule {close}"
        raise MissingError(problem(what, remedy=remedy))
    low, high = (abs(dataset[name].astype(np.float64)) for name in ("min", "max"))
    return cast(xr.DataArray, np.maximum(low, high))


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
                remedy="give --weights FILE.safetensors or .npz, or a weight set of the store",
            )
        )
    array = given if isinstance(given, xr.DataArray) else stored_weight_absmax(given)
    layers = dataset["layer"].values
    absent = [str(layer) for layer in layers if layer not in array["layer"].values]
    if absent:
        remedy = "give --weights FILE.safetensors or .npz of the model"
        # Not a MissingError, which would pass over the whole site.
        raise LayoutError(problem(f"no weights of layer {', '.join(absent[:4])}", remedy=remedy))
    if array.sizes["channel"] != dataset.sizes["channel"]:
        found = f"{array.sizes['channel']} in the weights, {dataset.sizes['channel']} observed"
        raise LayoutError(problem("weights of another number of input channels", found=found))
    chosen = array.sel(layer=layers).astype(np.float64)
    return chosen.drop_vars([str(c) for c in chosen.coords if c != "layer"])


def stored_weight_absmax(weights: xr.Dataset) -> xr.DataArray:
    """Weight absmax (layer, channel) of a group `weights/<set>/<site>`, by its grid."""
    require(weights, ("weight", "step_size"), analysis=_NAME)

    def by_input(name: str) -> xr.DataArray:
        values = weights[name].astype(np.float64)
        if "group" not in values.dims:
            return values
        size = weights.sizes["in"] // values.sizes["group"]
        return values.isel(group=xr.DataArray(np.arange(weights.sizes["in"]) // size, dims="in"))

    values = weights["weight"].astype(np.float64) * by_input("step_size")
    if "offset" in weights:
        values = values + by_input("offset").fillna(0.0)
    values = abs(values)
    inner = [dim for dim in values.dims if dim not in ("layer", "in")]
    return values.max(inner, skipna=False).rename({"in": "channel"})


_Found = tuple[xr.DataArray, dict[str, xr.DataArray]]


def _over_all_steps(
    _: xr.Dataset, absmax: xr.DataArray, weight: xr.DataArray, cuts: Sequence[float], keep: float
) -> _Found:
    return absmax.max("step"), {}


def _largest_of_ranges(
    dataset: xr.Dataset, absmax: xr.DataArray, _: xr.DataArray, cuts: Sequence[float], keep: float
) -> _Found:
    return _per_range(dataset, absmax, cuts, lambda part: part.max("step"))


def _average_of_ranges(
    dataset: xr.Dataset, seen: xr.DataArray, _: xr.DataArray, cuts: Sequence[float], keep: float
) -> _Found:
    def averaged(part: xr.DataArray) -> xr.DataArray:
        axes = ("step", "batch", "channel")
        found: xr.DataArray = over(_ema, part, core=(axes,), out=(("channel",),), keep=keep)
        return found

    return _per_range(dataset, seen, cuts, averaged)


def _ema(forwards: Array, *, keep: float) -> Array:
    """Moving average of rows ``(..., step, batch, channel)`` over steps and batches.

    A step at which the layer is absent is passed over; any other NaN is unknown, and so is what
    comes of it.
    """
    lead, channels = forwards.shape[:-3], forwards.shape[-1]
    absent = np.isnan(forwards).all(axis=(-2, -1), keepdims=True)
    absent = np.broadcast_to(absent, (*forwards.shape[:-1], 1)).reshape(*lead, -1, 1)
    rows = forwards.reshape(*lead, -1, channels)
    average = np.zeros((*lead, channels))
    for place in range(rows.shape[-2]):
        new = rows[..., place, :]
        begun = (average != 0).any(axis=-1, keepdims=True)  # NaN has begun too
        moved = np.where(begun, keep * average + (1.0 - keep) * new, new)
        average = np.where(absent[..., place, :], average, moved)
    average = np.where(absent.all(axis=-2), np.nan, average)
    return np.asarray(np.where(average == 0, FLOOR, average))


def _per_range(
    dataset: xr.Dataset,
    absmax: xr.DataArray,
    cuts: Sequence[float],
    reduced: Callable[[xr.DataArray], xr.DataArray],
) -> _Found:
    require(dataset, ("sigma",), analysis=_NAME)
    sigma = dataset["sigma"].values.astype(np.float64)
    below = sigma[:, None] < np.asarray(cuts, np.float64)
    number = below.sum(axis=1) if cuts else np.arange(len(sigma))
    labels = np.unique(number)
    parts = [reduced(absmax.isel(step=np.flatnonzero(number == label))) for label in labels]
    ends = [(sigma[number == label].min(), sigma[number == label].max()) for label in labels]
    low, high = (
        xr.DataArray([end[i] for end in ends], dims="time_range", name="sigma") for i in (0, 1)
    )
    dim = xr.DataArray(np.arange(len(labels)), dims="time_range", name="time_range")
    joined = xr.concat(parts, dim=dim, coords="minimal", compat="override")
    return joined, {"range_sigma_low": low, "range_sigma_high": high}


def _step_weighted(
    _: xr.Dataset, absmax: xr.DataArray, weight: xr.DataArray, cuts: Sequence[float], keep: float
) -> _Found:
    salience, rho, share = _rank_weighted(absmax, weight, ["step"])
    return salience, {"rank_correlation": rho, "step_weight": share}


def _forward_weighted(
    _: xr.Dataset, seen: xr.DataArray, weight: xr.DataArray, cuts: Sequence[float], keep: float
) -> _Found:
    salience, rho, share = _rank_weighted(seen, weight, ["batch", "step"])
    return salience, {"rank_correlation": rho, "forward_weight": share}


def _rank_weighted(
    absmax: xr.DataArray, weight: xr.DataArray, dims: Sequence[str]
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    rho = over(spearman, absmax, weight, core=(("channel",), ("channel",)))
    share = np.exp(-rho)
    share = share / share.sum(dims)
    # A step at which the layer is absent has no salience and no weight.
    salience = (share * absmax).sum(dims).where(absmax.notnull().any(dims))
    return salience, rho, share


@dataclass(frozen=True)
class _Row:
    """One rule: a_c and what else it finds, the factor, and whether it sees forwards apart."""

    activation: Callable[..., _Found]
    factor: Callable[..., xr.DataArray] = migration_factor
    forwards: bool = False


_RULES = {
    "smoothquant": _Row(_over_all_steps),
    "viditq": _Row(_average_of_ranges, forwards=True),
    "ptq4dit": _Row(_forward_weighted, _balancing, forwards=True),
    "smoothquant-ranges": _Row(_largest_of_ranges),
    "ptq4dit-steps": _Row(_step_weighted),
}
