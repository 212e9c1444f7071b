"""One linear at a step: its values, the bounds of every rule, and what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.ranges.options import BITS, MOMENTUM, PERCENTILE, SYMMETRIC
from taqstore.analysis.ranges.rules import RULES
from taqstore.analysis.table import ANALYSES
from taqstore.errors import MissingError
from taqstore.names import site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import Shown
from taqstore.serve.views.asking import (
    BATCH,
    ONE_LAYER,
    ONE_SITE,
    SOURCE,
    STEP,
    Part,
    layer_particulars,
    one_layer,
    rules_offered,
    step_of,
    steps_of,
)
from taqstore.serve.views.map import RULE_CHOICE

if TYPE_CHECKING:
    import xarray as xr

LINEAR = (ONE_SITE, ONE_LAYER, SOURCE, BATCH)
"""Which linear is meant."""
OPTIONS = (
    *LINEAR,
    STEP,
    BITS,
    SYMMETRIC,
    RULE_CHOICE,
    PERCENTILE.but(help="Of the percentile rules.", when=None),
    MOMENTUM.but(help="Of the moving average: weight of what came before.", when=None),
)
PRICE_OPTIONS = (*LINEAR, STEP, *ANALYSES["error"].options)
_OF_BOUNDS = ("bits", "symmetric", "narrow_range", "lower", "upper")
PRICES = ("lower", "upper", "step_size", "zero_point", "error", "sqnr", "clip_loss",
          "clipped_share")  # fmt: skip
"""What a rule's range is, and costs."""


def layer(
    service: Service,
    *,
    store: str,
    bits: int,
    symmetric: bool,
    percentile: float,
    momentum: float,
    clip: str = "absmax",
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
    batch: str | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """Histogram and extrema of a linear's input at every step, and every rule at one step.

    Returns
    -------
    ``site``, ``layer``, its ``block``, ``number`` and ``stream``; ``sites`` and ``layers`` there
    are; ``batches``: ``batch`` and its ``images``; ``steps``, ``sigma`` and the ``step`` that is
    looked at. ``extrema``: smallest and largest value of that step. ``histogram`` of that step:
    ``left``, ``right``, ``count``, and ``by_step``, the counts of all steps on the same bins;
    ``pooled`` says how: narrow bins are merged with their neighbours, so that counts are exact
    sums of stored ones. ``linear_width``: the axis is asinh, linear within that distance of zero;
    0: linear. Sources whose bins differ by step have those of the step alone, and no ``by_step``.
    None where nothing was counted. ``rules``, each with what a menu needs and ``options`` used,
    ``lower``, ``upper``, ``step_size``, ``zero_point``, ``error``, ``sqnr``, ``clip_loss`` and
    ``clipped_share`` at the step; ``left_out``: ``rule`` and ``why`` of those that cannot be asked.
    ``cli``, ``python`` of the rule `clip`.

    Raises
    ------
    MissingError
        There is no such source, site, layer or step.
    """
    part = Part(service, store, batch)
    path, name, sites, layers = one_layer(part, source, site, layer)
    group = part.group(path)
    place, label = step_of(group, step)
    options = {"percentile": percentile, "momentum": momentum}
    rules, left_out = _rules(part, path, name, place, bits, symmetric, options)
    asked = {"bits": bits, "symmetric": symmetric, "clip": clip, **_taken(clip, options)}
    return {
        "site": site_of(path),
        "layer": name,
        "source": split_group(path)[0],
        **layer_particulars(name),
        "sites": sites,
        "layers": layers,
        "batches": batches_of(group),
        **steps_of(group),
        "step": label,
        "asked": asked,
        "extrema": _extrema(part, path, name, place),
        "histogram": _histogram(part, path, name, place),
        "rules": rules,
        "left_out": left_out,
        **shown_of_rule(part, path, name, label, asked),
    }


def price(
    service: Service,
    *,
    store: str,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
    batch: str | None = None,
    step: int | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """Error, SQNR, clip loss and clipped share of a rule's range, or of one that is given.

    Returns
    -------
    ``site``, ``layer``, ``step``; ``lower``, ``upper``, ``step_size``, ``zero_point``, ``error``,
    ``sqnr``, ``clip_loss``, ``clipped_share`` at the step; ``steps``, ``sigma`` and ``by_step``,
    the same over all steps; ``asked``; ``cli``, ``python``.

    Raises
    ------
    MissingError
        There is no such source, site, layer or step, or nothing to price with.
    MisuseError
        A lower bound above the upper one, or without it.
    """
    part = Part(service, store, batch)
    path, name, _, _ = one_layer(part, source, site, layer)
    group = part.group(path)
    place, label = step_of(group, step)
    options = {key: value for key, value in asked.items() if value is not None}
    if options.keys() & {"lower", "upper"}:
        options = {key: options[key] for key in _OF_BOUNDS if key in options}
    found = rule_prices(part, path, name, options)
    told = {key: found[key] for key in PRICES if key in found}
    return {
        "site": site_of(path),
        "layer": name,
        **steps_of(group),
        "step": label,
        "asked": options,
        **{key: at_step(array, place) for key, array in told.items()},
        "by_step": {key: over_steps(array, group.sizes["step"]) for key, array in told.items()},
        **shown_of_rule(part, path, name, label, options),
    }


def shown_of_rule(part: Part, path: str, name: str, step: int, options: Mapping[str, Any]) -> Shown:
    """The command that prices a rule for one linear at one step.

    A range that several steps share is asked of all of them: the line then has no step.
    """
    return part.shown(
        "error",
        options,
        source=split_group(path)[0],
        sites=(site_of(path),),
        layer=name,
        step=None if options.get("cuts") else step,
    )


def batches_of(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """``batch`` and ``images`` of every batch; none where these were pooled."""
    from taqstore.kinds.nonfinite import images_of

    if "batch" not in dataset.dims:
        return []
    labels = dataset["batch"].values.tolist() if "batch" in dataset.coords else None
    images = images_of(dataset)
    names = labels or list(range(len(images)))
    return [{"batch": b, "images": list(i)} for b, i in zip(names, images, strict=True)]


def _taken(rule: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in RULES[rule].options}


def _rules(
    part: Part,
    path: str,
    name: str,
    place: int,
    bits: int,
    symmetric: bool,
    options: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    ends: dict[str, xr.Dataset] = {}
    left_out = []
    for rule in RULES:
        asked = {"bits": bits, "symmetric": symmetric, "clip": rule, **_taken(rule, options)}
        try:
            ends[rule] = part.range_of(path, name, asked)
        except MissingError as error:
            left_out.append({"rule": rule, "why": str(error)})
    key = ("rules", path, name, part.batch, bits, symmetric, *sorted(options.items()))
    make = partial(_priced, part, path, name, ends, {"bits": bits, "symmetric": symmetric})
    found = part.service.kept(part.store, key, make)
    rules = []
    for row in rules_offered():
        rule = row["rule"]
        if rule in ends:
            one = found.sel(rule=rule)
            priced = {key: at_step(one[key], place) for key in PRICES if key in one}
            rules.append({**row, "used": _taken(rule, options), **priced})
    return rules, left_out


def _priced(
    part: Part,
    path: str,
    name: str,
    ends: Mapping[str, xr.Dataset],
    scheme: Mapping[str, Any],
) -> xr.Dataset:
    """Ranges of all rules priced at once, along `rule`; without histograms the ranges alone."""
    import xarray as xr

    names = xr.DataArray(list(ends), dims="rule", name="rule")
    joined = xr.concat(list(ends.values()), names, coords="minimal", compat="override")
    if not _has_counts(part.group(path)):
        return joined
    bounds = joined["lower"], joined["upper"]
    return part.priced(path, name, bounds, PRICES, **scheme)


def _has_counts(dataset: xr.Dataset) -> bool:
    return bool({"histogram", "hist_counts"} & set(map(str, dataset.data_vars)))


def rule_prices(part: Part, path: str, name: str, asked: Mapping[str, Any]) -> xr.Dataset:
    """What a rule's range costs one linear at every step; its range alone without histograms.

    Raises
    ------
    MissingError
        The group lacks what the rule needs.
    """
    given = asked.keys() & {"lower", "upper"}
    analysis = "error" if given or _has_counts(part.group(path)) else "scales"
    return part.answer(analysis, path, PRICES, layer=name, **asked)


def at_step(array: xr.DataArray, place: int) -> Any:
    """A value at a step: a number, or a list over projections where these differ."""
    one = array.isel(step=place, layer=0, missing_dims="ignore").values
    return one.item() if one.ndim == 0 else one.tolist()


def over_steps(array: xr.DataArray, steps: int) -> Any:
    """Values of one linear, the step first; a range that is given is the same at every step."""
    import numpy as np

    one = array.isel(layer=0, missing_dims="ignore")
    if "step" in one.dims:
        return one.transpose("step", ...).values
    return np.broadcast_to(one.values, (steps, *one.shape))


def _extrema(part: Part, path: str, name: str, place: int) -> list[Any]:
    asked: dict[str, Any] = {"symmetric": False, "clip": "absmax"}
    try:
        found = part.answer("scales", path, ("lower", "upper"), layer=name, **asked)
    except MissingError:
        asked["symmetric"] = True
        found = part.answer("scales", path, ("lower", "upper"), layer=name, **asked)
    return [at_step(found[key], place) for key in ("lower", "upper")]


def _histogram(part: Part, path: str, name: str, place: int) -> dict[str, Any] | None:
    try:
        key = ("histogram", path, name, part.batch)
        data = part.service.kept(part.store, key, partial(_binned, part, path, name))
    except MissingError:
        return None
    told: dict[str, Any] = {
        "linear_width": data.attrs["linear_width"],
        "pooled": "neighbouring bins added, on one side of zero",
    }
    counts, left, right = (data[name].values for name in ("count", "left", "right"))
    if left.ndim > 1:
        own = {"left": left[place], "right": right[place], "count": counts[place]}
        return {**told, **own, "by_step": None}
    return {**told, "left": left, "right": right, "count": counts[place], "by_step": counts}


def _binned(part: Part, path: str, name: str) -> xr.Dataset:
    """`plot histogram`'s table of one layer, steps in the order of the group."""
    from taqstore.plot.parts.densities import histogram_data

    dataset = part.held(path)
    labels = [str(label) for label in dataset["layer"].values]
    one = dataset.isel(layer=[labels.index(name)])
    if "projection" in one.dims:
        one = one.isel(projection=0)
    return histogram_data(one)
