"""Which first and last steps to protect: the predicted error of every pair of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page, table
from taqstore.query.budgets import policies


def policy_pages(
    groups: Mapping[str, xr.Dataset], *, answers: Mapping[str, xr.Dataset] | None = None
) -> Iterator[Page]:
    """A page for every format of inputs that was quantized at one step at a time.

    Parameters
    ----------
    answers
        What `query.budgets.policies` says, where it is known.
    """
    for name, data in (answers or policies(groups)).items():
        yield Page(f"policy_{name}", _figure(name, data), table(data[["predicted_error"]]))


def draw_policy(data: xr.Dataset, ax: Axes, *, style: tuple[Normalize, Colormap]) -> Axes:
    """Predicted error: first steps down, last steps across; the chosen pair and the half marked."""
    values = data["predicted_error"].transpose("first", "last").values
    norm, colors = style
    ax.pcolormesh(*(np.arange(n + 1) - 0.5 for n in values.shape[::-1]), values,
                  norm=norm, cmap=colors, edgecolors="white", linewidth=0.5)  # fmt: skip
    middle = 0.5 * (norm(np.nanmin(values)) + norm(np.nanmax(values)))
    for first, last in np.argwhere(np.isfinite(values)):
        shade = "white" if norm(values[first, last]) < middle else "black"
        text = f"{values[first, last]:.2g}"
        ax.text(last, first, text, ha="center", va="center", fontsize="x-small", color=shade)
    protected = data.sel(protected=int(data.attrs["protect"]))
    half = float(protected["half_last"]), float(protected["half_first"])
    ax.plot(*half, "s", color="none", markeredgecolor="#000000", markersize=24,
            label="half at each end")  # fmt: skip
    chosen = int(data.attrs["chosen_last"]), int(data.attrs["chosen_first"])
    ax.plot(*chosen, "o", color="none", markeredgecolor="#D55E00", markeredgewidth=2,
            markersize=24, label="chosen")  # fmt: skip
    ax.set_ylim(values.shape[0] - 0.5, -0.5)
    ax.set_xticks(data["last"].values)
    ax.set_yticks(data["first"].values)
    ax.set_xlabel("last steps protected")
    ax.set_ylabel("first steps protected")
    return ax


def _figure(name: str, data: xr.Dataset) -> Figure:
    rows, columns = data["predicted_error"].transpose("first", "last").shape
    figure = Figure(figsize=(3.2 + 0.6 * columns, 2.8 + 0.5 * rows), layout="constrained")
    ax = figure.subplots()
    style = figures.heatmap_style(data["predicted_error"].values)
    draw_policy(data, ax, style=style)
    what = "relative error of the final latent" if _measured(data) else "static cost (no unit)"
    figure.colorbar(ScalarMappable(*style), ax=ax, label=f"predicted {what}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=0.4)
    first, last = (int(data.attrs[f"chosen_{end}"]) for end in ("first", "last"))
    figure.suptitle(
        f"steps protected from {name}: of {data.attrs['protect']},\nfirst {first} and last {last}"
        f" ({data.attrs['basis']})"
    )
    return figure


def _measured(data: xr.Dataset) -> bool:
    return not str(data.attrs["basis"]).startswith("static")
