"""`postgelu-npz`: the one npz file of Phase 2, from its own statistics or from observations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import channel_bounds, observed_histogram
from taqstore.analysis.shared.merged import moments
from taqstore.asked import listed
from taqstore.errors import MissingError, problem
from taqstore.export.documents.agreed import agreed
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, save_npz, summarize
from taqstore.kinds.statistics_sources import POSTGELU, prefix_of
from taqstore.names import ACTIVATIONS, LayerName, parse_layer, tensor_site, tracer_name
from taqstore.query.sites import Groups, meant_source, site_groups
from taqstore.statistics.even_bins import over_edges
from taqstore.store.attributes import attribute_of

_STATISTICS = ("count", "mean", "std", "min", "max", "histogram")
_SOURCES = (POSTGELU, ACTIVATIONS)
# What the tracer counts in: 512 bins over [-8, 8].
_EDGES = np.linspace(-8.0, 8.0, 513, dtype=np.float32)
_POST_GELU = "mlp.fc2"
_NAME = "postgelu-npz"

Member = tuple[str, np.ndarray]


def postgelu_npz(
    groups: Groups, out: Path, *, source: str | None = None, force: bool = False
) -> Summary:
    """Write ``{layer}::t={t:.6f}::{statistic}`` members, the timesteps and the bin edges.

    Phase 2 statistics come back as they were ingested: layers under the names that the source gave
    them (group attribute `source_layers`), dtypes of the source. Observations are merged over their
    batches and named as the tracer does: ``mm_00_img`` where post-GELU inputs were observed alone,
    with ``:fc2_in``, ``:fc1_in``, ... beside other sites.

    Parameters
    ----------
    source
        Group prefix, `pooled/postgelu` or `activations`; None: the first of them that is there.

    Raises
    ------
    MissingError
        The store holds neither, or lacks a variable of them.
    TaqError
        The file exists, or cannot be written; or sites have histograms of other bins.
    """
    chosen = _chosen(groups, source)
    sites = site_groups(groups, chosen)
    arrays: dict[str, np.ndarray] = {}
    cut = 0
    if chosen == POSTGELU:
        for site, dataset in sites.items():
            arrays.update(_members(dataset, site))
        bins = {site: _original(dataset["bin_edges"]) for site, dataset in sites.items()}
        edges = agreed("bin_edges of the histogram", bins)
    else:
        alone = {tensor_site(site) for site in sites} == {_POST_GELU}
        for site, dataset in sites.items():
            found, shared = _observed(dataset, site, alone=alone)
            arrays.update(found)
            cut += shared
        edges = _EDGES
    times = [_original(dataset["timestep"]).astype(np.float32) for dataset in sites.values()]
    arrays["timesteps_unique"] = np.unique(np.concatenate(times))
    arrays["histogram_bin_edges"] = edges
    with whole_file(out, force=force) as fresh:
        save_npz(fresh, arrays)
    note = (
        f"{cut} values of histograms lie in bins wider than the file's and are shared out evenly; "
        "collect with more --histogram-bits tells them apart"
    )
    return summarize(out, note if cut else "")


def _chosen(groups: Groups, source: str | None) -> str:
    prefixes = _SOURCES if source is None else (prefix_of(source),)
    for prefix in prefixes:
        if prefix in _SOURCES and site_groups(groups, prefix):
            return prefix
    near = meant_source(groups, source)
    raise MissingError(
        problem(
            f"no {' or '.join(f'{prefix}/<site>' for prefix in prefixes)} to make the file of",
            found=listed(list(groups)),
            remedy=near
            or "ingest an activation_stats_postgelu.npz, or taqstore collect --sites mlp.fc2",
        )
    )


def _observed(dataset: xr.Dataset, site: str, *, alone: bool) -> tuple[list[Member], int]:
    """Members of one observed site, and how many values of its histograms are not exact."""
    counted = observed_histogram(dataset)
    if counted is None or "timestep" not in dataset.coords:
        what = "no histogram or no timestep here"
        raise MissingError(problem(what, where=f"{ACTIVATIONS}/{site}"))
    histogram, layout = counted
    means = moments(dataset, analysis=_NAME)
    bounds = channel_bounds(dataset, analysis=_NAME)
    # Step by step: a site of SD3-Medium is 4 MB a step and batch.
    times = [f"{float(t):.6f}" for t in dataset["timestep"].values]
    names = [_tracer_name(str(label), site) for label in dataset["layer"].values]
    names = names if alone else [n + ("" if ":" in n else ":fc2_in") for n in names]
    found: list[Member] = []
    cut = 0
    for at, time in enumerate(times):
        counts, shared = over_edges(_at(histogram, at), layout, _EDGES)
        cut += int(shared.sum())
        values = {
            "count": _at(_total(dataset["count"]), at).astype(np.int64),
            "mean": _at(means["mean"], at),
            "std": _at(means["std"], at),
            "min": _at(bounds.lower, at).astype(np.float64),
            "max": _at(bounds.upper, at).astype(np.float64),
            "histogram": counts,
        }
        found += [
            (f"{name}::t={time}::{statistic}", array[row])
            for row, name in enumerate(names)
            for statistic, array in values.items()
        ]
    return found, cut


def _total(count: xr.DataArray) -> xr.DataArray:
    return count.sum("batch") if "batch" in count.dims else count


def _at(array: xr.DataArray, step: int) -> np.ndarray:
    """(layer, ...) of one step."""
    return np.asarray(array.isel(step=step).transpose("layer", ...).values)


def _members(dataset: xr.Dataset, site: str) -> Iterator[Member]:
    """Members of one site; a layer and step that was never seen has count 0 and none."""
    missing = [name for name in (*_STATISTICS, "bin_edges") if name not in dataset]
    if missing:
        raise MissingError(
            problem(f"no variable {', '.join(missing)} here", where=f"{POSTGELU}/{site}")
        )
    labels = [str(label) for label in dataset["layer"].values]
    names = attribute_of(dataset, "source_layers") or [
        _tracer_name(label, site) for label in labels
    ]
    times = [f"{float(t):.6f}" for t in dataset["timestep"].values]
    # Read first: xarray turns the transpose of a mapped, unread array into a read point by point.
    loaded = dataset[list(_STATISTICS)].compute()
    arrays = (loaded[name].transpose("layer", "step", ...) for name in _STATISTICS)
    values = dict(zip(_STATISTICS, map(_original, arrays), strict=True))
    for row, name in enumerate(names):
        for column in np.flatnonzero(values["count"][row]):
            for statistic, array in values.items():
                yield f"{name}::t={times[column]}::{statistic}", array[row, column]


def _tracer_name(label: str, site: str) -> str:
    layer = parse_layer(label)
    return tracer_name(LayerName(layer.block, layer.stream, tensor_site(site)))


def _original(array: xr.DataArray) -> np.ndarray:
    """Values in the dtype that the source had."""
    return array.values.astype(array.attrs.get("original_dtype", array.dtype), copy=False)
