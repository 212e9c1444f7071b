"""`postgelu-npz`: Phase 2 statistics as the one npz file they came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.export.documents.agreed import agreed
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, save_npz, summarize
from taqstore.kinds.statistics_sources import POSTGELU
from taqstore.names import LayerName, parse_layer, tensor_site, tracer_name
from taqstore.query.sites import Groups, site_groups

_STATISTICS = ("count", "mean", "std", "min", "max", "histogram")


def postgelu_npz(groups: Groups, out: Path, *, force: bool = False) -> Summary:
    """Write ``{layer}::t={t:.6f}::{statistic}`` members, the timesteps and the bin edges.

    Layers have the names that the source gave them (group attribute `source_layers`), else the
    tracer's (``mm_00_img``, ``mm_00_img:fc1_in``); dtypes are those of the source.

    Raises
    ------
    MissingError
        The store holds no Phase 2 statistics, or lacks a variable of them.
    TaqError
        The file exists, or cannot be written; or sites have histograms of other bins.
    """
    sites = site_groups(groups, POSTGELU)
    if not sites:
        raise MissingError(
            problem(
                f"no {POSTGELU}/<site> in the store",
                found=", ".join(groups) or "nothing",
                remedy="ingest an activation_stats_postgelu.npz",
            )
        )
    arrays: dict[str, np.ndarray] = {}
    for site, dataset in sites.items():
        arrays.update(_members(dataset, site))
    times = [_original(dataset["timestep"]) for dataset in sites.values()]
    arrays["timesteps_unique"] = np.unique(np.concatenate(times))
    edges = {site: _original(dataset["bin_edges"]) for site, dataset in sites.items()}
    arrays["histogram_bin_edges"] = agreed("bin_edges of the histogram", edges)
    with whole_file(out, force=force) as fresh:
        save_npz(fresh, arrays)
    return summarize(out)


def _members(dataset: xr.Dataset, site: str) -> Iterator[tuple[str, np.ndarray]]:
    """Members of one site; a layer and step that was never seen has count 0 and none."""
    missing = [name for name in (*_STATISTICS, "bin_edges") if name not in dataset]
    if missing:
        raise MissingError(
            problem(f"no variable {', '.join(missing)} here", where=f"{POSTGELU}/{site}")
        )
    labels = [str(label) for label in dataset["layer"].values]
    names = dataset.attrs.get("source_layers") or [_tracer_name(label, site) for label in labels]
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
