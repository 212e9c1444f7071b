"""Expected error against the clip bound, with the bound of every rule marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from taqstore.analysis import curve
from taqstore.analysis.ranges.rules import RULES
from taqstore.files.tables import to_table
from taqstore.plot.parts.grid import require_counts
from taqstore.plot.parts.panels import Page, page_stem, site_pages
from taqstore.plot.parts.views import linear_view, noise_coordinate
from taqstore.query.select import select

_SWEPT = "sweep"
_PLAIN = ("o", "0.5")


def curve_pages(
    groups: Mapping[str, xr.Dataset], *, bits: int = 8, step: int | None = None
) -> Iterator[Page]:
    """One page per layer with a histogram, at one step: by default the middle one."""
    return site_pages(groups, partial(_pages, bits=bits, step=step))


def curve_data(
    dataset: xr.Dataset, *, site: str = "", bits: int = 8, step: int | None = None
) -> xr.Dataset:
    """Errors of symmetric clip bounds of every layer at one step, as rows of one table.

    Parameters
    ----------
    dataset
        One group with histograms.
    bits
        Of the quantizer.
    step
        Label of the step; None for the middle one.

    Returns
    -------
    Dataset over (step, layer, point)
        `alpha` and `error`, see `analysis.curve`. Along `point`: `rule`, which is ``sweep`` for
        bounds tried in turn, and `share`, the bound over the largest value held (NaN for rules).
        The attribute `left_out` names rules that the source lacks statistics for.

    Raises
    ------
    MissingError
        There are no histograms, no such step, or nothing was counted at it.
    """
    if step is None:
        one = dataset.isel(step=[dataset.sizes["step"] // 2])
    else:
        one = select(dataset, step=str(step))
    require_counts(one, where=f"plot curve, step {int(one['step'].values[0])}")
    found = curve(one, bits=bits)
    names = [str(name) for name in found.data_vars if str(name).endswith(("upper", "error"))]
    view = linear_view(found, names, site=site).compute()
    swept = _points(view, "clip", "ratio").assign_coords(
        rule=("point", [_SWEPT] * view.sizes["ratio"]), share=("point", view["ratio"].values)
    )
    if "rule" not in view.dims:
        return swept.assign_attrs(found.attrs)
    marked = _points(view, "rule", "rule").assign_coords(
        rule=("point", view["rule"].values.astype(object)),
        share=("point", np.full(view.sizes["rule"], np.nan)),
    )
    return xr.concat([swept, marked], "point").assign_attrs(found.attrs)


def draw_curve(data: xr.Dataset, ax: Axes) -> Axes:
    """Curve and marks of the only layer and step of `curve_data`, both axes logarithmic."""
    one = data.isel(step=0, layer=0)
    rules, alpha, error = (one[name].values for name in ("rule", "alpha", "error"))
    swept = rules == _SWEPT
    ax.plot(alpha[swept], error[swept], color="0.35", linewidth=1.3)
    marked = [i for i in np.argsort(error, kind="stable") if not swept[i]]
    for place, index in enumerate(marked):
        shape, color = RULES[rules[index]].mark or _PLAIN
        label = f"{rules[index]}: α {alpha[index]:.3g}, error {error[index]:.3g}"
        # Rules that agree lie on each other: what comes later is smaller.
        style: dict[str, Any] = {"color": color, "ms": 11 - 0.8 * place, "mec": "black", "mew": 0.6}
        ax.plot(alpha[index], error[index], shape, label=label, **style)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(LogLocator(2.0))
    ax.xaxis.set_major_formatter("{x:.3g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("clip bound α (dimensionless, log2 axis)")
    ax.set_ylabel("expected squared error (dimensionless)")
    return ax


def _points(view: xr.Dataset, prefix: str, dim: str) -> xr.Dataset:
    names = {f"{prefix}_upper": "alpha", f"{prefix}_error": "error"}
    points = view[list(names)].rename({**names, dim: "point"})
    return points.drop_vars("point").transpose("step", "layer", "point")


def _pages(dataset: xr.Dataset, site: str, *, bits: int, step: int | None) -> Iterator[Page]:
    data = curve_data(dataset, site=site, bits=bits, step=step)
    for index in np.flatnonzero(np.isfinite(data["error"].values).any(axis=(0, 2))):
        one = data.isel(layer=[index])
        name = str(one["layer"].values[0])
        yield Page(page_stem("curve", name), _figure(one, name), to_table(one))


def _figure(data: xr.Dataset, name: str) -> Figure:
    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    ax = draw_curve(data, figure.subplots())
    left_out = data.attrs.get("left_out")
    title = f"{name}: error of {data.attrs['bits']}-bit symmetric quantization, {_when(data)}"
    figure.suptitle(title + (f"\n(no statistics for {left_out})" if left_out else ""))
    if ax.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right center", title="least error first", alignment="left")
    return figure


def _when(data: xr.Dataset) -> str:
    step = int(data["step"].values[0])
    name, values = noise_coordinate(data)
    return f"step {step} (σ {values[0]:.3g})" if name == "sigma" else f"step {step}"
