"""The quantization config of the source's analyser, version 4.

Like the other `documents_*` modules this gives a document for `jsonio.write_document`. Numbers are
the source's to the last bit when they come from its own pooled statistics, and when they are
replayed from observations, except for histogram tails (see `analysis.pool`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis import outliers
from taqstore.export.documents.clips import ClipBound
from taqstore.export.documents.linears import Run, clip_bounds, open_run, vectors_by_step
from taqstore.files.documents import Document, Members
from taqstore.quantization.quantizer import integer_range
from taqstore.query.sites import Groups

_EIGHT_BITS = integer_range(8)[1]


def quant_config(
    store: Groups,
    *,
    bound: ClipBound | None = None,
    outliers: bool = False,
    source: str | None = None,
) -> Document:
    """Config `per_timestep_quant_config_v4`: bits, a clip bound per step and linear, shifts.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound
        What the file calls `scale` (a clip bound), as `analysis.scales` chooses it; by default 8
        bits and the source's absmax of averaged extrema. `hist_p999`, the source's other rule,
        comes of observations from exact bit histograms instead of 256 sampled bins.
    outliers
        Add `outlier_config`, the outlier channels at the middle step.
    source
        `pooled/timestep_stats`, `pooled/activation_stats_v1` or `activations`; by default the first
        of them that the store has.

    Raises
    ------
    MissingError
        The store has no statistics, they lack a variable, or a linear has no bound by this rule.
    """
    run, bound = open_run(store, source), bound or ClipBound()
    table = clip_bounds(run, bound)
    extra = outlier_config(run.seen_by(bound), table, bound.bits) if outliers else None
    # Not the other sites: as long as these are there, so are the maps of their files.
    shifting = {site: d[["shift"]] for site, d in run.sites.items() if "shift" in d.data_vars}
    return {
        "format": "per_timestep_quant_config_v4",
        "per_timestep": Members(lambda: _steps(shifting, table, bound.bits)),
        "sigma_map": run.sigma_map,
        **({} if extra is None else {"outlier_config": extra}),
        "summary": _summary(table, run, bound, None if extra is None else len(extra)),
        "metadata": run.metadata,
    }


def _steps(
    shifting: Mapping[str, xr.Dataset], table: xr.Dataset, bits: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of `per_timestep`, one step at a time."""
    linears = [str(name) for name in table["linear"].values]
    rows = table["row"].values
    sites = [str(site) for site in table["site"].values]
    streams = {s: vectors_by_step(d, "shift") for s, d in shifting.items()}
    for index, step in enumerate(table["step"].values):
        shift = {s: next(streams[s]) for s, d in shifting.items() if step in d["step"].values}
        alpha = table["alpha"].values[index].tolist()
        has_shift = table["has_shift"].values[index]
        entries: dict[str, Any] = {}
        for i, name in enumerate(linears):
            if alpha[i] != alpha[i]:
                continue
            entries[name] = {"bits": bits, "scale": alpha[i]}
            if has_shift[i] and sites[i] in shift:
                entries[name]["shift"] = shift[sites[i]][rows[i]]
        yield str(int(step)), entries


def _summary(
    table: xr.Dataset, run: Run, bound: ClipBound, outlier_layers: int | None
) -> dict[str, Any]:
    post_gelu = sum(str(name).endswith(".mlp.fc2") for name in table["linear"].values)
    counted = {} if outlier_layers is None else {"layers_with_outlier_channels": outlier_layers}
    return {
        "total_timesteps": table.sizes["step"],
        "total_layers": table.sizes["linear"],
        "total_decisions": int(table["alpha"].notnull().sum()),
        "activation_bits": bound.bits,
        "post_gelu_layers_with_shift": post_gelu,
        **counted,
        "scale_source": run.clip_name(bound),
    }


def outlier_config(sites: Mapping[str, xr.Dataset], table: xr.Dataset, bits: int) -> dict[str, Any]:
    """Entries of the linears that have outlier channels at the middle step."""
    finer = _EIGHT_BITS / integer_range(bits)[1]
    steps = table["step"].values
    middle = int(steps[len(steps) // 2])
    found = {
        site: _outliers_at(dataset, middle)
        for site, dataset in sites.items()
        if middle in dataset["step"].values
    }
    config = {}
    columns = (table[name].values.tolist() for name in ("linear", "site", "row"))
    for name, site, row in zip(*columns, strict=True):
        if site not in found:
            continue
        is_outlier, multiplier, normal, outlier = found[site](row, name)
        indices = np.flatnonzero(is_outlier)
        if len(indices):
            config[name] = {
                "outlier_indices": indices,
                "multiplier_vector": multiplier,
                "scale_normal": float(normal * finer),
                "scale_outlier": float(outlier * finer),
            }
    return config


def _outliers_at(dataset: xr.Dataset, step: int) -> Callable[[int, str], list[np.ndarray]]:
    """Outlier mask, multipliers and both step sizes of a layer's linear, at one step."""
    names = ["is_outlier", "multiplier", "step_size_normal", "step_size_outlier"]
    found = outliers(dataset.sel(step=[step]), step=step)[names]
    apart = [str(name) for name in found["projection"].values] if "projection" in found.dims else []
    ordered = found.transpose("layer", "projection", ..., missing_dims="ignore").compute()
    arrays = [np.ascontiguousarray(ordered[name].values) for name in names]

    def of_linear(row: int, name: str) -> list[np.ndarray]:
        cell = (row, apart.index(name.rsplit(".", 1)[-1])) if apart else (row,)
        return [array[cell] for array in arrays]

    return of_linear
