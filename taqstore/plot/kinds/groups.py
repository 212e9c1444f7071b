"""Groups of steps that share a clip range: what their number costs, and where they are cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.ticker import LogFormatter

from taqstore.analysis import groups as step_groups
from taqstore.analysis.shared.inputs import quotient
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.grid import (
    each_site,
    legend_below,
    panel_grid,
    require_counts,
    site_grid,
    site_table,
)
from taqstore.plot.parts.panels import Page, panels_of
from taqstore.plot.parts.views import linear_view
from taqstore.quantization.partition import bucketed

METHODS = {
    "optimal": ("#0072B2", "-", "o", "optimal (dynamic programming)"),
    "cluster": ("#D55E00", "--", "s", "clustered neighbours"),
    "buckets": ("#000000", "none", "D", "fixed buckets of σ"),
}
QUANTILES = (0.25, 0.5, 0.75)


def group_pages(
    groups: Mapping[str, xr.Dataset],
    *,
    bits: int = 8,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> Iterator[Page]:
    """Two pages: error against the number of groups, and the cuts of every layer.

    `answers` is what `analysis.groups` says of the groups, by path, where it is known already.

    Raises
    ------
    MissingError
        A site has no histograms; once the others are drawn.
    """
    pairs = {path: (dataset, (answers or {}).get(path)) for path, dataset in groups.items()}
    sites, missing = each_site(
        pairs, lambda pair, site: group_data(pair[0], site=site, bits=bits, answer=pair[1])
    )
    spread = {site: error_quantiles(data, site=site) for site, data in sites.items()}
    figure, axes = panel_grid(spread, draw_error_quantiles, height=3.2, gather=False)
    legend_below(figure, axes)
    figure.suptitle(f"error against the number of groups of steps, {bits} bits symmetric")
    yield Page("groups_error", figure, site_table(spread))
    cuts = {site: data[["group"]] for site, data in sites.items()}
    count = max(int(data["group_count"].max()) for data in sites.values())
    tolerance = next(iter(sites.values())).attrs["tolerance"]
    style = group_style(count)
    draw = partial(figures.draw_heatmap, variable="group", style=style)
    figure = site_grid(cuts, draw, style, "group of steps, from noise to image", ticks=range(count))
    note = f"fewest whose error is within {tolerance:.0%} of that of a range per step"
    figure.suptitle(f"optimal groups of steps, {bits} bits symmetric\n({note})")
    yield Page("groups_cuts", figure, site_table(cuts))
    if missing:
        raise missing[0]


def group_data(
    dataset: xr.Dataset, *, site: str = "", bits: int = 8, answer: xr.Dataset | None = None
) -> xr.Dataset:
    """What `analysis.groups` finds for every layer, errors as multiples of those of a range a step.

    `answer` is what it finds, where that is known already.

    Returns
    -------
    Dataset
        (step, layer): `group`, NaN where nothing was counted. (layer): `group_count`. (layer,
        groups): `optimal`, `cluster` and, at their number, `buckets` of sigma: the error of so many
        groups over that of as many groups as steps; 1 where both are 0.

    Raises
    ------
    MissingError
        There are no histograms, or nothing was counted in any.
    """
    require_counts(dataset, where="plot groups")
    found = step_groups(dataset, bits=bits) if answer is None else answer
    errors = {name: found[f"{name}_error"] for name in ("optimal", "cluster")}
    best = errors["optimal"].isel(groups=-1, drop=True)
    if "sigma_error" in found:
        bucket = bucketed(dataset["sigma"].values, found.attrs["sigma_edges"])
        errors["buckets"] = found["sigma_error"].where(found["groups"] == bucket.max() + 1)
    ratios = {name: quotient(error, best, empty=1.0) for name, error in errors.items()}
    group = found["group"].where(found["group"] >= 0)
    result = xr.Dataset({"group": group, "group_count": found["group_count"], **ratios})
    view = linear_view(result, [str(name) for name in result.data_vars], site=site).compute()
    return view.assign_attrs(found.attrs)


def error_quantiles(data: xr.Dataset, *, site: str = "") -> xr.Dataset:
    """Quartiles over the layers of each stream of the ratios of `group_data`.

    Those of `group_count` are whole: at least a quarter, a half, three quarters of the layers have
    no more.

    Returns
    -------
    Dataset
        (layer, groups, quantile): `optimal`, `cluster`, `buckets`; (layer, quantile):
        `group_count`. A `layer` here stands for all known layers of a stream (and projection).
    """
    known = data.isel(layer=np.flatnonzero(data["group_count"] > 0))
    names = [name for name in (*METHODS, "group_count") if name in known]
    parts = []
    for title, part in panels_of(known[names]):
        # A method is known at some numbers of groups for all layers, at the others for none.
        spread = part.drop_vars("group_count").quantile(QUANTILES, "layer", skipna=False)
        # Of numbers of groups, one that a layer has: there are no three and a half.
        spread["group_count"] = part["group_count"].quantile(
            QUANTILES, "layer", method="inverted_cdf"
        )
        spread = spread.expand_dims(layer=[title])
        spread = spread.assign_coords(site=("layer", [site]))
        one = part.isel(layer=[0])
        parts.append(
            spread.assign_coords(
                {name: ("layer", one[name].values) for name in ("stream", "projection")}
            )
        )
    return xr.concat(parts, "layer")


def draw_error_quantiles(data: xr.Dataset, ax: Axes) -> Axes:
    """Median and quartiles of the only entry of `error_quantiles` for every method, log y."""
    x, one = data["groups"].values, data.isel(layer=0)
    for name, (color, line, marker, label) in METHODS.items():
        if name not in data:
            continue
        low, middle, high = one[name].transpose("quantile", "groups").values
        style: dict[str, Any] = {"color": color, "marker": marker, "ms": 3.5, "label": label}
        if name == "buckets":
            whiskers = [middle - low, high - middle]
            ax.errorbar(x, middle, whiskers, ls="none", capsize=3, **style)
        else:
            ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
            ax.plot(x, middle, line, **style)
    ax.axhline(1.0, color="0.5", linewidth=0.6)
    low, middle, high = one["group_count"].values
    text = f"chosen: {middle:g}" + (f" ({low:g} to {high:g})" if low < high else "")
    ax.text(0.97, 0.6, text, transform=ax.transAxes, ha="right", fontsize="small")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(LogFormatter())
    ax.yaxis.set_minor_formatter(LogFormatter())
    ax.xaxis.set_major_locator(figures.whole_ticks())
    ax.set_xlabel("number of groups of steps")
    ax.set_ylabel("expected error over that of a range per step\n(median, quartiles over layers)")
    return ax


def group_style(count: int) -> tuple[BoundaryNorm, Colormap]:
    """One shade per number of group, from the noise on."""
    shades = mpl.colormaps["viridis"].resampled(count).with_extremes(bad="0.85")
    return BoundaryNorm(np.arange(count + 1) - 0.5, count), shades
