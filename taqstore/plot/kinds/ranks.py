"""Which static scores may be trusted: rank correlations with measured sensitivities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taqstore.analysis.ranks import ranks
from taqstore.errors import MissingError, problem
from taqstore.files.tables import to_table
from taqstore.names import kind_of, split_group
from taqstore.plot.parts.panels import Page

if TYPE_CHECKING:
    import pandas as pd

EFFECT = "latent_error"
_COLUMNS = ("rho", "rho_lower", "rho_upper", "ranked", "trusted", "baseline")


def rank_pages(
    groups: Mapping[str, xr.Dataset], *, answers: Mapping[str, xr.Dataset] | None = None
) -> Iterator[Page]:
    """A page for every unit: rho of each score with its interval, a colour for every format.

    Parameters
    ----------
    answers
        What `analysis.ranks` says, where it is known.
    """
    every = answers or ranks(groups)
    found = {name: data for name, data in every.items() if data.sizes["score"]}
    if not found:
        what = "fewer than 3 targets have a score: nothing is ranked"
        raise MissingError(problem(what, remedy="taqstore sensitivity with more --targets"))
    for unit in dict.fromkeys(kind_of(name) for name in found):
        ours = {split_group(name)[1]: d for name, d in found.items() if name.startswith(f"{unit}/")}
        yield Page(f"ranks_{unit}s", _figure(unit, ours), rank_table(ours))


def rank_table(formats: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Rows by format, effect and score, as `analysis.ranks` has them."""
    import pandas as pd

    parts = [to_table(data[list(_COLUMNS)]).assign(format=name) for name, data in formats.items()]
    joined = pd.concat(parts, ignore_index=True)
    return joined[["format", *(name for name in joined if name != "format")]]


def draw_ranks(formats: Mapping[str, xr.Dataset], ax: Axes) -> Axes:
    """Rho of `latent_error`, scores down; full points are trusted, those right of the line."""
    best: dict[str, float] = {}
    for data in formats.values():
        chosen = data.sel(effect=EFFECT)
        for score, rho in zip(chosen["score"].values, chosen["rho"].values, strict=True):
            best[str(score)] = max(best.get(str(score), -2.0), float(np.nan_to_num(rho, nan=-2.0)))
    names = sorted(best, key=lambda score: -best[score])
    colors = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (format, data) in enumerate(formats.items()):
        one = data.sel(effect=EFFECT)
        shift = 0.6 * ((number + 0.5) / len(formats) - 0.5)
        place = np.array([names.index(str(score)) for score in one["score"].values]) + shift
        color = colors[number % 10]
        ax.hlines(place, one["rho_lower"], one["rho_upper"], color=color, linewidth=1, alpha=0.7)
        trusted = one["trusted"].values.astype(bool)
        rho = one["rho"].values
        ax.plot(rho[trusted], place[trusted], "o", color=color, markersize=5)
        ax.plot(rho[~trusted], place[~trusted], "o", markerfacecolor="white", color=color,
                markersize=5)  # fmt: skip
        ax.plot([], [], "o", color=color, label=format)
    ax.axvline(_trust(formats), color="0.3", linewidth=0.8, linestyle="--")
    ax.axvline(0.0, color="0.8", linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-1.02, 1.02)
    ax.set_xlabel("Spearman's rank correlation with the measured effect")
    return ax


def _trust(formats: Mapping[str, xr.Dataset]) -> float:
    return float(next(iter(formats.values())).attrs["trust"])


def _figure(unit: str, formats: Mapping[str, xr.Dataset]) -> Figure:
    scores = {str(score) for data in formats.values() for score in data["score"].values}
    height = 2.0 + max(0.3, 0.12 * len(formats)) * len(scores)
    figure = Figure(figsize=(7.0, height), layout="constrained")
    draw_ranks(formats, figure.subplots())
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"static scores of {unit}s beside what was measured"
        f"\n(full: trusted, from {_trust(formats):g} on; intervals of 95 %)"
    )
    return figure
