"""One linear taken apart: its channels ranked, its images side by side."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.ranges.options import PERCENTILE
from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.errors import MissingError, problem
from taqstore.names import site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened
from taqstore.serve.views.asking import SOURCE, STEP, Part, one_layer, step_of, steps_of
from taqstore.serve.views.layer import LINEAR, batches_of

if TYPE_CHECKING:
    import xarray as xr

TOP = Option("top", "How many of the widest.", int, 20, least=1, most=500)
_THRESHOLD = next(row for row in ANALYSES["outliers"].options if row.name == "threshold")
CHANNEL_OPTIONS = (*LINEAR, STEP, TOP, _THRESHOLD)
IMAGE_OPTIONS = (*LINEAR[:2], SOURCE, PERCENTILE.but(help="Of |x| of every image.", when=None))
_BATCHES = 64
"""Batches whose histograms are asked apart; of more, extrema alone."""


def channels(
    service: Service,
    *,
    store: str,
    top: int,
    threshold: float,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
    batch: str | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """Channels of one linear's input at a step, the widest first.

    Returns
    -------
    ``site``, ``layer``, ``steps``, ``sigma``, ``step``; ``count`` of all channels, ``median`` of
    their ranges, ``outliers``, how many exceed the threshold; ``channels``: ``channel``, ``min``,
    ``max``, ``range``, ``multiple`` of the median, ``is_outlier``, ``multiplier``, and ``shift``,
    the EMA midpoint, where batches or the source tell it. ``cli``, ``python``.

    Raises
    ------
    MissingError
        There is no such source, site, layer or step, or no extrema of channels.
    """
    import numpy as np

    part = Part(service, store, batch)
    path, name, _, _ = one_layer(part, source, site, layer)
    group = part.group(path)
    place, label = step_of(group, step)
    options: dict[str, Any] = {"threshold": threshold, "step": label}
    names = ("range", "is_outlier", "multiplier", "median_range")
    found = _first(part.answer("outliers", path, names, layer=name, **options))
    wide, median = found["range"].values, found["median_range"].item()
    widest = np.argsort(-wide, kind="stable")[: min(top, len(wide))]
    told = {"range": wide, **_extrema(part, path, name, place)}
    told |= {key: found[key].values for key in ("is_outlier", "multiplier")}
    told |= {"multiple": wide / median} if median > 0 else {}
    rows = [
        {"channel": int(at), **{key: values[at] for key, values in told.items()}} for at in widest
    ]
    return {
        "site": site_of(path),
        "layer": name,
        **steps_of(group),
        "step": label,
        "count": len(wide),
        "median": median,
        "outliers": int(found["is_outlier"].sum()),
        "channels": [{**row, "is_outlier": bool(row["is_outlier"])} for row in rows],
        **part.shown("outliers", options, source=split_group(path)[0],
                     sites=(site_of(path),), layer=name),
    }  # fmt: skip


def _first(found: xr.Dataset) -> xr.Dataset:
    one = found.isel(layer=0)
    return one.isel(projection=0) if "projection" in one.dims else one


def _extrema(part: Part, path: str, name: str, place: int) -> dict[str, Any]:
    asked: dict[str, Any] = {"per": "channel", "symmetric": False}
    found = _first(part.answer("scales", path, ("lower", "upper"), layer=name, **asked))
    told = {"min": found["lower"].values[place], "max": found["upper"].values[place]}
    try:
        shifts = _first(part.answer("shifts", path, ("shift",), layer=name))
    except MissingError:
        return told
    return {**told, "shift": shifts["shift"].values[place]}


def images(
    service: Service,
    *,
    store: str,
    percentile: float,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
) -> dict[str, Any]:
    """Statistics of one linear's input over the steps, of every batch by itself.

    Returns
    -------
    ``site``, ``layer``, ``steps``, ``sigma``; ``images``: ``name``, ``batch``, ``images`` (ids of
    those in the batch) and ``values`` over the steps: ``absmax``, ``min``, ``max``, and with
    histograms, of as many as 64 batches, ``percentile`` of |x| and ``negative`` share;
    ``percentile`` as asked; ``left_out``: a line on what is not told. ``cli``, ``python`` of the
    extrema.

    Raises
    ------
    MissingError
        There is no such source, site or layer, or its images were pooled.
    """
    part = Part(service, store)
    path, name, _, _ = one_layer(part, source, site, layer)
    group = part.group(path)
    if "batch" not in group.dims:
        what = f"images of {path} cannot be told apart"
        raise MissingError(problem(what, found="statistics of all images together"))
    key = ("images", path, name, percentile)
    values = service.kept(store, key, partial(_apart, part, path, name, percentile))
    batches = batches_of(group)
    left_out = []
    if len(batches) > _BATCHES:
        left_out = [f"percentile and negative share: more than {_BATCHES} batches"]
    return {
        "site": site_of(path),
        "layer": name,
        **steps_of(group),
        "percentile": percentile,
        "images": [
            {"name": _called(one), **one, "values": told}
            for one, told in zip(batches, values, strict=True)
        ],
        "left_out": left_out,
        **_shown(part, path, name, group),
    }


def _called(batch: dict[str, Any]) -> str:
    images = batch["images"]
    if len(images) == 1:
        return f"image {images[0]}"
    return f"batch {batch['batch']}: images {images[0]} to {images[-1]}"


def _apart(part: Part, path: str, name: str, percentile: float) -> list[dict[str, Any]]:
    slab = part.slab(path, name)
    few = slab.sizes["batch"] <= _BATCHES and "histogram" in slab
    return [
        _of_batch(slab.isel(batch=[place]), path, percentile if few else None)
        for place in range(slab.sizes["batch"])
    ]


def _of_batch(one: xr.Dataset, path: str, percentile: float | None) -> dict[str, Any]:
    from taqstore.query.analyze import analyze

    def ask(analysis: str, dataset: xr.Dataset, **options: Any) -> xr.Dataset:
        source = split_group(path)[0]
        return analyze(analysis, {path: dataset}, source=source, **options)[path].isel(layer=0)

    ends = ask("scales", one, symmetric=False)
    told = {
        "absmax": ask("scales", one)["alpha"].values,
        "min": ends["lower"].values,
        "max": ends["upper"].values,
    }
    if percentile is None:
        return told
    asked = {"clip": "percentile", "percentile": percentile}
    counts = one.drop_vars([name for name in ("min", "max") if name in one])
    return {
        **told,
        "percentile": ask("scales", one, **asked)["alpha"].values,
        "negative": ask("diagnostics", counts)["negative_fraction"].values,
    }


def _shown(part: Part, path: str, name: str, group: xr.Dataset) -> dict[str, str]:
    rollups = {"tensor_min", "tensor_max"} <= set(group.data_vars)
    names = ("tensor_min", "tensor_max") if rollups else ("min", "max")
    ways = () if rollups else ("--reduce", "channel=min")
    address = part.service.address(part.store)
    cli = command_line("query", address, after=(path, *names, "--layer", name, *ways))
    reduced = "" if rollups else "  # then .min('channel') and .max('channel')"
    code = f"values = store[{path!r}][{list(names)!r}].sel(layer={name!r}){reduced}"
    return {"cli": cli, "python": "\n".join(["import taqstore", "", opened(address), code])}
