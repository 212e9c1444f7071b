"""`timestep-stats`: the folder of per-step statistics that the source's analysers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.export.documents.agreed import by_step, common, forwards
from taqstore.export.documents.linears import find_source
from taqstore.files.documents import write_document
from taqstore.files.staged import whole_folder
from taqstore.files.written import Summary, make_folder, save_all, save_npz, summarize
from taqstore.kinds.statistics_sources import TIMESTEP_STATS, TRACED_STATS
from taqstore.names import (
    ACTIVATIONS,
    PROJECTIONS,
    SITES,
    LayerName,
    array_key,
    linear_names,
    parse_layer,
    tensor_site,
)
from taqstore.query.sites import site_groups
from taqstore.statistics.moving_average import SHIFT_MOMENTUM, ema_midpoint, running_mean_float32
from taqstore.store.attributes import attribute_of

DOCUMENT = "source_document"
_CONTENT = (
    "layer_statistics.json",
    "timestep_stats/step_*.npz",
    "timestep_stats/step_*_index.json",
)
FORMATS = {TIMESTEP_STATS: "per_timestep_npz_v2", TRACED_STATS: "activation_stats_v1"}
BUCKETS = {"early": [0.7, 1.0], "mid": [0.3, 0.7], "late": [0.0, 0.3]}

# File name of each array, by the variable that holds it, in the order of the source.
_ARRAYS = {
    TIMESTEP_STATS: {
        name: name for name in ("avg_min", "avg_max", "shift", "hist_counts", "hist_edges")
    },
    TRACED_STATS: {"max": "avg_max", "min": "avg_min"},
}
_NEEDS = {"shift": "has_shift", "hist_counts": "has_hist", "hist_edges": "has_hist"}
_ROLLUPS = ("tensor_absmax", "tensor_min", "tensor_max")
_TAILS = ("hist_p999", "hist_p99", "hist_p01", "hist_p001")
_POST_GELU = "mlp.fc2"
# Steps held in memory together: an SD3-Medium step is 7 MB pooled, 3 MB per observed batch.
STEPS_AT_ONCE = {TIMESTEP_STATS: 16, TRACED_STATS: 16, ACTIVATIONS: 1}

Cell = dict[str, np.ndarray]


def timestep_stats(
    groups: Mapping[str, xr.Dataset],
    out: Path,
    *,
    source: str | None = None,
    force: bool = False,
) -> Summary:
    """Write ``layer_statistics.json`` and ``timestep_stats/step_{k}.npz`` with an index each.

    Arrays have the names, dtypes and shapes that the source files had (`original_dtype`); q, k and
    v have an entry each. From observations, ``avg_min`` and ``avg_max`` are the running float32
    means over batches and ``shift`` the 0.95 EMA of midpoints, replayed in stored order; the
    sampled histograms cannot be had from them, so ``has_hist`` is false.

    Parameters
    ----------
    groups
        Group paths to Datasets.
    out
        Folder to make.
    source
        Group prefix: `pooled/timestep_stats`, `pooled/activation_stats_v1` or `activations`; by
        default the first of these that is there.
    force
        Replace an existing folder.

    Raises
    ------
    MissingError
        No such statistics.
    TaqError
        The folder exists, or cannot be written.
    """
    chosen = find_source(groups, source, "documents")
    if chosen not in STEPS_AT_ONCE:
        what = f"the folder is not made of {chosen}"
        raise MissingError(problem(what, remedy=f"take {' or '.join(STEPS_AT_ONCE)}"))
    named = site_groups(groups, chosen)
    sites = [(tensor_site(site), data) for site, data in named.items()]
    steps = sorted({int(step) for _, dataset in sites for step in dataset["step"].values})
    with whole_folder(out, content=_CONTENT, force=force) as folder:
        stats = make_folder(folder / "timestep_stats")
        save_all(_jobs(sites, steps, chosen, stats))
        document = _document(named, steps, chosen, out.resolve() / "timestep_stats")
        write_document(folder / "layer_statistics.json", "layer-statistics", document)
    note = "no histograms: they were sampled by the source, not observed"
    return summarize(out, note if chosen == ACTIVATIONS else "")


def _jobs(
    sites: Sequence[tuple[str, xr.Dataset]], steps: Sequence[int], source: str, folder: Path
) -> Iterator[Callable[[], None]]:
    count = STEPS_AT_ONCE[source]
    for start in range(0, len(steps), count):
        wanted = steps[start : start + count]
        loaded = [(site, _load(dataset, site, wanted, source)) for site, dataset in sites]
        for step in wanted:
            cells = _ordered_cells(loaded, step)
            yield partial(_save_step, folder, step, cells, source)


def _load(dataset: xr.Dataset, site: str, steps: Sequence[int], source: str) -> xr.Dataset:
    """The pooled variables of some steps, in memory."""
    # Steps ascend, so a run of them is a slice, which a mapped store reads as a view.
    first, last = np.searchsorted(dataset["step"].values, (steps[0], steps[-1] + 1))
    part = dataset.isel(step=slice(int(first), int(last)))
    if source != ACTIVATIONS:
        return part.load()
    _require(part, ("min", "max"), f"{ACTIVATIONS}/{site}")
    return _replayed(part[["min", "max"]].load().transpose("batch", ...), site)


def _require(dataset: xr.Dataset, names: Sequence[str], where: str) -> None:
    missing = [name for name in names if name not in dataset]
    if missing:
        found = ", ".join(map(str, dataset.data_vars)) or "no variables"
        raise MissingError(
            problem(f"no variable {', '.join(missing)} here", where=where, found=found)
        )


def _replayed(observed: xr.Dataset, site: str) -> xr.Dataset:
    """What the source collector would have stored for these batches."""
    low, high = observed["min"], observed["max"]
    dims, original = low.dims[1:], {"original_dtype": "float64"}
    arrays = {
        "avg_min": (dims, running_mean_float32(low.values), original),
        "avg_max": (dims, running_mean_float32(high.values), original),
    }
    if site == _POST_GELU:
        arrays["shift"] = (dims, ema_midpoint(low.values, high.values), original)
    pooled = xr.Dataset(arrays, {name: observed[name] for name in ("step", "layer")})
    return _with_rollups(pooled, low.sizes["batch"])


def _with_rollups(pooled: xr.Dataset, batches: int) -> xr.Dataset:
    """Add the per-tensor entries of the index (FORMATS: worst channel of averaged extrema)."""
    low, high = pooled["avg_min"].min("channel"), pooled["avg_max"].max("channel")
    pooled = pooled.assign(
        tensor_min=low,
        tensor_max=high,
        tensor_absmax=np.maximum(abs(low), abs(high)),
        n_batches=xr.full_like(low, batches, dtype=np.int64),
    )
    if "shift" in pooled:
        pooled["has_shift"] = xr.ones_like(low, dtype=bool)
        pooled["shift_absmax"] = abs(pooled["shift"]).max("channel")
    return pooled


def _ordered_cells(loaded: Sequence[tuple[str, xr.Dataset]], step: int) -> dict[str, Cell]:
    """Values of every linear at one step, in the order of the source."""
    found = [
        item
        for site, dataset in loaded
        if step in dataset["step"].values
        for item in _cells(dataset.sel(step=step), site)
    ]
    found.sort(key=lambda item: _source_order(item[0]))
    return {linear: cell for name, cell in found for linear in linear_names(name)}


def _cells(dataset: xr.Dataset, site: str) -> Iterator[tuple[LayerName, Cell]]:
    """Values by linear; by tensor where q, k and v do not differ."""
    split = "projection" in dataset.dims
    lead = ("layer", "projection") if split else ("layer",)
    variables = {str(name): _leading(array, lead) for name, array in dataset.data_vars.items()}
    projections = [str(p) for p in dataset["projection"].values] if split else [""]
    for row, label in enumerate(dataset["layer"].values):
        layer = parse_layer(str(label))
        for column, projection in enumerate(projections):
            position = (row, column) if split else (row,)
            cell = {name: values[position[:depth]] for name, (values, depth) in variables.items()}
            if cell.get("n_batches", np.int64(1)) > 0:
                yield LayerName(layer.block, layer.stream, site, projection), cell


def _leading(array: xr.DataArray, lead: Sequence[str]) -> tuple[np.ndarray, int]:
    """Values in their original dtype with the `lead` dims it has in front, and how many it has."""
    here = [dim for dim in lead if dim in array.dims]
    values = array.transpose(*here, ...).values
    return values.astype(array.attrs.get("original_dtype", array.dtype), copy=False), len(here)


def _source_order(name: LayerName) -> tuple[Any, ...]:
    """The collector names q, k, v of both streams of a block before the rest of either."""
    projection = PROJECTIONS.index(name.projection) if name.projection else 0
    site = SITES.index(name.site)
    kind, block, stream = name.sort_key
    return kind, block, site > 0, stream, site, projection


def _save_step(folder: Path, step: int, cells: Mapping[str, Cell], source: str) -> None:
    stats = _ARRAYS.get(source, _ARRAYS[TIMESTEP_STATS])
    arrays = {
        f"{array_key(linear)}__{written}": cell[name]
        for linear, cell in cells.items()
        for name, written in stats.items()
        if name in cell and cell.get(_NEEDS.get(name, ""), True)
    }
    save_npz(folder / f"step_{step}.npz", arrays)
    index = {linear: _entry(cell) for linear, cell in cells.items()}
    write_document(folder / f"step_{step}_index.json", "timestep-index", index)


def _entry(cell: Cell) -> dict[str, Any]:
    """A linear's entry in the index: Python numbers, keys in the order of the source."""
    flags = {name: bool(cell.get(name, False)) for name in ("has_shift", "has_hist")}
    tails = ("shift_absmax",) * flags["has_shift"] + _TAILS * flags["has_hist"]
    missing = [name for name in ("n_batches", *_ROLLUPS) if name not in cell]
    if missing:
        raise MissingError(
            problem(f"the statistics have no {missing[0]}", remedy="ingest them anew")
        )
    return {
        "n_batches": int(cell["n_batches"]),
        **{name: float(cell[name]) for name in _ROLLUPS},
        **flags,
        **{name: float(cell[name]) for name in tails if name in cell and cell[name] == cell[name]},
    }


def _document(
    sites: Mapping[str, xr.Dataset], steps: Sequence[int], source: str, folder: Path
) -> dict[str, Any]:
    """`layer_statistics.json`: the source's own fields, with the steps and place of this folder."""
    sigmas = {str(step): float(sigma) for step, sigma in by_step(sites, "sigma").items()}
    places = {"sigma_map": sigmas, "step_keys": [str(step) for step in steps]}
    told = common({site: attribute_of(dataset, DOCUMENT, {}) for site, dataset in sites.items()})
    if source == TRACED_STATS:
        return {"format": FORMATS[source], **told, **places}
    fields = _observed_fields(sites) if source == ACTIVATIONS else told
    head = {"format": FORMATS[TIMESTEP_STATS], "timestep_dir": str(folder)}
    return {**fields, **head, **places}


def _observed_fields(sites: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Fields of the document that observations can fill."""
    return {
        "hist_bins": 256,
        "bucket_definitions": BUCKETS,
        "shift_momentum": SHIFT_MOMENTUM,
        "post_gelu_suffix": f".{_POST_GELU}",
        "metadata": forwards(sites),
    }
