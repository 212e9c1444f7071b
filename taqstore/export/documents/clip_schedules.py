"""Clipping schedules: tables of clip bounds over sigma, and polynomials fitted to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis import FitRule, schedule
from taqstore.analysis.schedule import MIN_SIGMAS, NO_FIT
from taqstore.errors import MissingError, TaqError, problem
from taqstore.export.documents.agreed import agreed, by_step, common
from taqstore.export.documents.clips import ClipBound
from taqstore.export.documents.linears import find_source, linear_table, open_run
from taqstore.files.documents import Document
from taqstore.kinds.statistics_sources import LUT_SCHEDULE, POLY_SCHEDULE
from taqstore.names import array_key
from taqstore.query.sites import Groups, site_groups
from taqstore.store.attributes import attribute_of

_PERCENTILE = "p100_absmax"
# What the source calls its rules; others have our words.
_NAMES = {
    ("absmax", None): _PERCENTILE,
    ("hist_p999", None): "p999",
    ("percentile", 99.9): "p999",
    ("percentile", 99.0): "p99",
    ("tensor_absmax", None): _PERCENTILE,
}
_DIGITS = 4


def lut_schedule(
    store: Groups, *, bound: ClipBound | None = None, source: str | None = None
) -> Document:
    """Document `lut_v1`: the clip bound of every linear at every step's sigma.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound
        How clip bounds are chosen; by default the source's absmax. A schedule that is given back
        as it came has no choice.
    source
        `pooled/lut_schedule` (given back as it came), or statistics to take the absmax of; by
        default the first that the store has.

    Raises
    ------
    MissingError
        There is nothing to make a schedule of, or a linear is not known at every step.
    """
    sites, head = _clip_bounds(store, source, bound)
    table, sigmas = _alphas(sites)
    _check_complete(table)
    columns = table["alpha"].transpose("linear", "step").values
    return {
        "version": "lut_v1",
        **_head(head, sigmas),
        "sigmas": sigmas,
        "layers": {
            array_key(str(name)): {"alphas": np.ascontiguousarray(column)}
            for name, column in zip(table["linear"].values, columns, strict=True)
        },
    }


def poly_schedule(
    store: Groups,
    *,
    bound: ClipBound | None = None,
    source: str | None = None,
    fit: FitRule | None = None,
) -> Document:
    """Document `poly_v1`: a polynomial of sigma for the clip bound of every linear.

    A schedule that was ingested comes back whole: its version, and polynomials of shifts with it.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound
        As in `lut_schedule`.
    source
        `pooled/poly_schedule` (given back as it came), or what to fit: `pooled/lut_schedule` or
        statistics; by default the first that the store has.
    fit
        Degree rule, where something is fitted.

    Raises
    ------
    MissingError
        There is nothing to make a schedule of, or too few sigmas.
    """
    prefix = find_source(store, source, "polynomials")
    if prefix == POLY_SCHEDULE:
        _refuse_choice(prefix, bound or fit)
        sites = site_groups(store, POLY_SCHEDULE)
        head = _source_head(sites)
        return {"version": "poly_v1", **head, "layers": _polynomials(sites, rounded=False)}
    alphas, head = _clip_bounds(store, prefix, bound)
    fitted = {site: schedule(dataset, fit=fit) for site, dataset in alphas.items()}
    sigmas, layers = _alphas(alphas)[1], _polynomials(fitted, rounded=True)
    if not layers:
        what = f"no linear is known at {MIN_SIGMAS} sigmas or more: the schedule would be empty"
        remedy = "collect more steps, or export a lut-schedule"
        raise MissingError(problem(what, where=prefix, found=f"{len(sigmas)} steps", remedy=remedy))
    return {"version": "poly_v1", **_head(head, sigmas), "layers": layers}


def _clip_bounds(
    store: Groups, source: str | None, bound: ClipBound | None
) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Per site a Dataset with `alpha` over steps, and the head of the schedule it came from."""
    prefix = find_source(store, source, "schedules")
    if prefix == LUT_SCHEDULE:
        _refuse_choice(prefix, bound)
        sites = site_groups(store, LUT_SCHEDULE)
        return sites, _source_head(sites)
    run, bound = open_run(store, prefix), bound or ClipBound()
    sites = {
        site: _with_alpha(dataset, bound.alpha(dataset, analysis="schedule"))
        for site, dataset in run.seen_by(bound).items()
    }
    return sites, {"percentile": _NAMES.get((bound.clip, bound.rule.percentile), bound.clip)}


def _with_alpha(dataset: xr.Dataset, alpha: xr.DataArray) -> xr.Dataset:
    """A group's clip bounds alone, with the coordinates that documents need."""
    kept = [name for name in dataset.coords if "batch" not in dataset[name].dims]
    coords = {n: dataset[n] for n in kept if set(dataset[n].dims) <= {*alpha.dims, "projection"}}
    return xr.Dataset({"alpha": alpha}).assign_coords(coords)


def _refuse_choice(prefix: str, choice: ClipBound | FitRule | None) -> None:
    if choice is not None:
        what = "a schedule has its clip bounds already"
        remedy = "name statistics with --source to choose others"
        raise TaqError(problem(what, where=prefix, remedy=remedy))


def _source_head(sites: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Head of the schedule that the sites came from.

    Raises
    ------
    TaqError
        They came from schedules of different percentiles or sigmas.
    """
    heads = {site: attribute_of(dataset, "source_document", {}) for site, dataset in sites.items()}
    for key in ("percentile", "sigma_range"):
        agreed(f"{key} of the schedule", {site: head.get(key) for site, head in heads.items()})
    return common(heads)


def _alphas(sites: dict[str, xr.Dataset]) -> tuple[xr.Dataset, list[float]]:
    table = linear_table(sites, by_step=("alpha",))
    known = by_step(sites, "sigma")
    return table, [float(known[int(step)]) for step in table["step"].values]


def _check_complete(table: xr.Dataset) -> None:
    missing = table["alpha"].isnull()
    if missing.any():
        first = table["linear"].values[missing.any("step").values][0]
        raise MissingError(
            problem(
                f"{first} is not known at {int(missing.sel(linear=first).sum())} steps",
                where="lut-schedule",
                remedy="a look-up table needs every step; export a polynomial schedule",
            )
        )


def _head(head: dict[str, Any], sigmas: list[float]) -> dict[str, Any]:
    return {
        "percentile": head.get("percentile", _PERCENTILE),
        "sigma_range": head.get("sigma_range", [min(sigmas), max(sigmas)]),
    }


def _polynomials(sites: dict[str, xr.Dataset], *, rounded: bool) -> dict[str, Any]:
    """Entries of linears that have a fit; a fit made here is rounded as the source rounds."""
    layers = {}
    powers = [f"c{power}" for power in range(1 + max(_highest(d) for d in sites.values()))]
    tables = {site: _columns(dataset) for site, dataset in sites.items()}
    shifts = [f"shift_{name}" for name in ("degree", "r2", *powers)]
    table = linear_table(tables, by_layer=("degree", "r2", "cv", *powers, *shifts))
    for i, name in enumerate(table["linear"].values):
        degree = int(table["degree"].values[i])
        if degree == NO_FIT:
            continue
        r2, cv = (float(table[key].values[i]) for key in ("r2", "cv"))
        layers[array_key(str(name))] = {
            "degree": degree,
            "coeffs": [float(table[f"c{p}"].values[i]) for p in range(degree, -1, -1)],
            "r2": round(r2, _DIGITS) if rounded else r2,
            "cv": round(cv, _DIGITS) if rounded else cv,
            **_shift(table.isel(linear=i)),
        }
    return dict(sorted(layers.items()))


def _shift(linear: xr.Dataset) -> dict[str, Any]:
    """Fields of the polynomial of a linear's shift; none where it has no shift."""
    degree = float(linear["shift_degree"])
    if not degree >= 0:
        return {}
    return {
        "shift_degree": int(degree),
        "shift_coeffs": [float(linear[f"shift_c{p}"]) for p in range(int(degree), -1, -1)],
        "shift_r2": float(linear["shift_r2"]),
    }


def _highest(dataset: xr.Dataset) -> int:
    return int(dataset["power"].values.max())


def _columns(dataset: xr.Dataset) -> xr.Dataset:
    """Coefficients as one variable per power, which fit a table of linears."""
    parts = [part for part in ("", "shift_") if f"{part}coefficient" in dataset]
    names = [f"{part}{name}" for part in parts for name in ("coefficient", "degree", "r2")]
    dataset = dataset[[*names, "cv"]].compute()
    by_power = {
        f"{part}c{int(power)}": dataset[f"{part}coefficient"].sel(power=power, drop=True)
        for part in parts
        for power in dataset["power"].values
    }
    return dataset.drop_dims("power").assign(by_power)
