"""The multi-tier (A4/A6/A8) analyser's config, and the table of tiers both its files come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis import Thresholds, tiers
from taqstore.export.documents.clips import ClipBound
from taqstore.export.documents.linears import Run, check_known, linear_table, open_run
from taqstore.export.documents.quant_config import outlier_config
from taqstore.files.documents import Document, Members
from taqstore.query.sites import Groups

# A parameter of the source that it reports and no longer uses.
_UNUSED_OUTLIER_RATIO = 4.0
_SHIFT_TABLE = ("shift_benefit", "skewness", "effective")
_STEP_TABLE = ("alpha", "threshold_bits", "bits")
_LAYER_TABLE = (
    *("smoothquant", "switcher", "high_variability"),
    *("alpha_mean", "alpha_min", "alpha_max", "variability_ratio"),
    *_SHIFT_TABLE,
)


def quant_config_multitier(
    store: Groups,
    *,
    bound: ClipBound | None = None,
    thresholds: Thresholds | None = None,
    outliers: bool = False,
    source: str | None = None,
) -> Document:
    """Config `per_timestep_quant_config_v3`: 4, 6 or 8 bits per step and linear.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound
        Clip bound to compare and to write as `scale`, without cuts; by default the source's absmax
        of averaged extrema.
    thresholds
        By default the source's.
    outliers
        Add `outlier_config`, as in `documents.quant_config`; its step sizes are of 8 bits.
    source
        As in `documents.quant_config`.

    Raises
    ------
    MissingError
        The store has no statistics, or they lack a variable.
    """
    limits = thresholds or Thresholds()
    run, bound = open_run(store, source), bound or ClipBound()
    sites = tier_sites(run, bound, limits)
    table = tier_table(sites)
    extra = {"outlier_config": outlier_config(run.seen_by(bound), table, 8)} if outliers else {}
    return {
        "format": "per_timestep_quant_config_v3",
        "per_timestep": Members(lambda: _steps(table, sites)),
        "sigma_map": run.sigma_map,
        "shift_analysis": shift_analysis(table),
        **extra,
        "summary": _summary(table),
        "thresholds": _thresholds(limits),
        "metadata": run.metadata,
    }


def tier_sites(run: Run, bound: ClipBound, limits: Thresholds) -> dict[str, xr.Dataset]:
    """`analysis.tiers` of every site."""
    rule = bound.rule
    options: dict[str, Any] = {
        "percentile": rule.percentile,
        "momentum": rule.momentum,
        "order": rule.order,
        "bits": bound.bits if rule.row.by_bits else None,
    }
    return {
        site: _with_shift_effect(
            tiers(dataset, thresholds=limits, clip=bound.clip, site=site, **options),
            dataset,
            run.sites[site],
            limits,
        )
        for site, dataset in run.stored.items()
    }


def _with_shift_effect(
    found: xr.Dataset, stored: xr.Dataset, pooled: xr.Dataset, limits: Thresholds
) -> xr.Dataset:
    """Tiers, and what the shift gains: observations have a shift once they are pooled."""
    if stored is pooled or "shift" not in pooled.data_vars:
        return found
    told = tiers(pooled, thresholds=limits)
    return found.assign({name: told[name] for name in _SHIFT_TABLE if name in told})


def tier_table(sites: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Tiers of every linear, in sorted name order, and how many steps it has of each width."""
    table = linear_table(sites, by_step=_STEP_TABLE, by_layer=_LAYER_TABLE)
    check_known(table["alpha"], "tiers")
    counts = {f"a{bits}_steps": (table["bits"] == bits).sum("step") for bits in (4, 6, 8)}
    return table.assign(counts)


def names_where(table: xr.Dataset, mask: xr.DataArray) -> list[str]:
    """Linears for which `mask` holds, in order."""
    return [str(name) for name in table["linear"].values[mask.values.astype(bool)]]


def always(table: xr.Dataset, bits: int) -> list[str]:
    """Linears that have this width at every step they are seen at."""
    seen = table["a4_steps"] + table["a6_steps"] + table["a8_steps"]
    return names_where(table, (table[f"a{bits}_steps"] == seen) & (seen > 0))


def shift_analysis(table: xr.Dataset) -> dict[str, Any]:
    """Gain of the shift, for linears that have one and a histogram."""
    known = table.isel(linear=np.flatnonzero(table["shift_benefit"].notnull().values))
    columns = (known[n].values.tolist() for n in ("linear", "shift_benefit", "skewness"))
    return {
        str(name): {"mean_shift_benefit": gain, "mean_skewness": skew, "effective": bool(helps)}
        for name, gain, skew, helps in zip(*columns, known["effective"].values, strict=True)
    }


def _steps(
    table: xr.Dataset, sites: Mapping[str, xr.Dataset]
) -> Iterator[tuple[str, dict[str, Any]]]:
    linears = [str(name) for name in table["linear"].values]
    factors = _smoothquant_factors(table, sites)
    for index, step in enumerate(table["step"].values):
        columns = (table[name].values[index].tolist() for name in _STEP_TABLE)
        entries = {
            name: _entry(name, alpha, int(coarse), int(bits))
            for name, alpha, coarse, bits in zip(linears, *columns, strict=True)
            if alpha == alpha
        }
        if index == 0:
            for name in factors.keys() & entries.keys():
                entries[name] |= {"smoothquant": True, "smoothquant_scales": factors[name]}
        yield str(int(step)), entries


def _entry(name: str, alpha: float, coarse: int, bits: int) -> dict[str, Any]:
    reason = {4: "< A4 threshold", 6: "A4-A6 range", 8: "> A6 threshold"}[coarse]
    if name.endswith(".mlp.fc2"):
        reason = f"post-GELU {reason}"
    if bits != coarse:
        reason = f"{reason} (SmoothQuant downgrade)"
    return {"bits": bits, "scale": alpha, "reason": reason}


def _smoothquant_factors(
    table: xr.Dataset, sites: Mapping[str, xr.Dataset]
) -> dict[str, np.ndarray]:
    """Per-channel factors of the candidates."""
    factors = {}
    chosen = table.isel(linear=np.flatnonzero(table["smoothquant"].values == 1))
    for name, site, row in zip(*(chosen[n].values for n in ("linear", "site", "row")), strict=True):
        layer = sites[str(site)]["smoothquant_scale"].isel(layer=int(row))
        if "projection" in layer.dims:
            layer = layer.sel(projection=str(name).rsplit(".", 1)[-1])
        factors[str(name)] = np.ascontiguousarray(layer.values, dtype=np.float64)
    return factors


def _summary(table: xr.Dataset) -> dict[str, Any]:
    total = table.sizes["step"] * table.sizes["linear"]
    counts = {bits: int(table[f"a{bits}_steps"].sum()) for bits in (4, 6, 8)}
    return {
        "total_timesteps": table.sizes["step"],
        "total_layers": table.sizes["linear"],
        "total_decisions": total,
        **{f"total_a{bits}": count for bits, count in counts.items()},
        **{f"a{bits}_percentage": round(100 * n / total, 1) for bits, n in counts.items()},
        "smoothquant_layers": int((table["smoothquant"] == 1).sum()),
        "high_variability_layers": int((table["high_variability"] == 1).sum()),
        "switching_layers": int((table["switcher"] == 1).sum()),
        **{f"always_a{bits}": len(always(table, bits)) for bits in (8, 6, 4)},
    }


def _thresholds(limits: Thresholds) -> dict[str, float]:
    values = asdict(limits)
    bits = ("a4", "a6", "shifted_a4", "shifted_a6")
    return {
        **{f"{name}_threshold": values[name] for name in bits},
        "outlier_ratio": _UNUSED_OUTLIER_RATIO,
        **{name: values[name] for name in ("smoothquant_fraction", "smoothquant_spike")},
    }
