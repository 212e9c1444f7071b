"""The two `layer_temporal_analysis.json` of the source: one file name, two schemas."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis import Thresholds
from taqstore.analysis.shared.inputs import mean_known
from taqstore.export.documents.clips import ClipBound
from taqstore.export.documents.linears import clip_bounds, linear_table, open_run
from taqstore.export.documents.quant_config_multitier import (
    always,
    names_where,
    shift_analysis,
    tier_sites,
    tier_table,
)
from taqstore.files.documents import Document
from taqstore.query.sites import Groups


def temporal_analysis(
    store: Groups, *, bound: ClipBound | None = None, source: str | None = None
) -> Document:
    """Document `layer_temporal_analysis_v4`: clip bounds and shift magnitudes over the steps.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound, source
        As in `documents.quant_config`.

    Raises
    ------
    MissingError
        The store has no statistics, or they lack a variable.
    """
    run = open_run(store, source)
    table = clip_bounds(run, bound or ClipBound())
    alpha = {
        str(n): column for n, column in zip(table["linear"].values, _known(table), strict=True)
    }
    return {
        "format": "layer_temporal_analysis_v4",
        "layer_scale_summary": {
            name: {
                "mean_scale": float(values.mean()),
                "min_scale": float(values.min()),
                "max_scale": float(values.max()),
            }
            for name, values in alpha.items()
            if len(values)
        },
        "shift_summary": _shift_summary(run.sites),
        "sigma_map": run.sigma_map,
    }


def _known(table: xr.Dataset) -> list[np.ndarray]:
    """Clip bounds of every linear at the steps where it is there, each a vector of its own."""
    columns = np.ascontiguousarray(table["alpha"].transpose("linear", "step").values)
    return [column[~np.isnan(column)] for column in columns]


def _shift_summary(sites: Any) -> dict[str, Any]:
    shifting = {
        site: xr.Dataset({"size": abs(dataset["shift"].astype(np.float64)).max("channel")})
        for site, dataset in sites.items()
        if "shift" in dataset.data_vars
    }
    if not shifting:
        return {}
    size = linear_table(shifting, by_step=("size",))["size"].transpose("linear", "step")
    rows = size.isel(linear=np.flatnonzero(size.notnull().any("step").values))
    columns = (rows["linear"].values, rows.max("step").values.tolist(), mean_known(rows.values))
    return {
        str(name): {"max_shift_magnitude": largest, "mean_shift_magnitude": float(mean)}
        for name, largest, mean in zip(*columns, strict=True)
    }


def temporal_analysis_multitier(
    store: Groups,
    *,
    bound: ClipBound | None = None,
    thresholds: Thresholds | None = None,
    source: str | None = None,
) -> Document:
    """The multi-tier analyser's file of the same name: tiers of every linear over the steps.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound, thresholds, source
        As in `documents_multitier.quant_config_multitier`.

    Raises
    ------
    MissingError
        The store has no statistics, or they lack a variable.
    """
    table = tier_table(
        tier_sites(open_run(store, source), bound or ClipBound(), thresholds or Thresholds())
    )
    stats = _layer_stats(table)
    variable = names_where(table, table["high_variability"] == 1)
    switching = names_where(table, table["switcher"] == 1)
    return {
        "layer_stats": stats,
        "shift_analysis": shift_analysis(table),
        "high_variability": [
            {"layer": name, "ratio": stats[name]["variability_ratio"]}
            for name in sorted(variable, key=lambda n: -stats[n]["variability_ratio"])
        ],
        "switchers": [
            {"layer": name, "a4_fraction": stats[name]["a4_fraction"]}
            for name in sorted(switching, key=lambda n: -stats[n]["a6_steps"])
        ],
        "always_a8": always(table, 8),
        "always_a4": always(table, 4),
    }


def _layer_stats(table: xr.Dataset) -> dict[str, dict[str, Any]]:
    numbers = {
        "mean_absmax": "alpha_mean",
        "min_absmax": "alpha_min",
        "max_absmax": "alpha_max",
        "variability_ratio": "variability_ratio",
    }
    counts = [f"a{bits}_steps" for bits in (4, 6, 8)]
    columns = {new: table[old].values.tolist() for new, old in numbers.items()}
    columns |= {name: table[name].values.tolist() for name in counts}
    stats = {}
    for i, name in enumerate(table["linear"].values):
        row = {key: values[i] for key, values in columns.items()}
        total = sum(row[c] for c in counts)
        if total:
            shares = {c.replace("_steps", "_fraction"): row[c] / total for c in counts}
            stats[str(name)] = {**row, **shares}
    return stats
