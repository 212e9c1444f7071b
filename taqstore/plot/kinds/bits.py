"""Bit widths under a budget: what the budget buys, and which layers and steps get how many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure

from taqstore.analysis import joint_bits
from taqstore.analysis.bits import CHOICES
from taqstore.analysis.shared.widths import halfway, in_words, why_alike
from taqstore.errors import MissingError, problem
from taqstore.names import site_of, site_rank
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.grid import site_grid, site_table
from taqstore.plot.parts.panels import Page, table
from taqstore.plot.parts.places import OUTSIDE
from taqstore.plot.parts.views import linear_view
from taqstore.quantization.allocation import allocate, allocate_each
from taqstore.query.analyze import load

_BUDGETS = 9


def bit_pages(
    groups: Mapping[str, xr.Dataset],
    *,
    average: float | None = None,
    choices: Sequence[int] = CHOICES,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> Iterator[Page]:
    """Three pages: error against the budget, bits by block and site, bits by block and sigma.

    Parameters and errors are those of `bit_data`.
    """
    average = halfway(choices) if average is None else average
    sites = bit_data(groups, average=average, choices=choices, answers=answers)
    budget = budget_data(sites)
    yield Page("bits_budget", _budget_figure(budget, average), table(budget))
    style, ticks = bit_style(choices), sorted(choices)
    layers = {site: data[["layer_bits"]] for site, data in sites.items()}
    figure = _layer_figure(layers, style, ticks)
    figure.suptitle(_title("layer", average, choices, sites, "layer_bits"))
    yield Page("bits_layers", figure, site_table(layers))
    steps = {site: data[["bits"]] for site, data in sites.items()}
    draw = partial(figures.draw_heatmap, variable="bits", style=style)
    figure = site_grid(steps, draw, style, "bits", ticks=ticks)
    figure.suptitle(_title("layer and step", average, choices, sites, "bits"))
    yield Page("bits_steps", figure, site_table(steps))


def bit_data(
    groups: Mapping[str, xr.Dataset],
    *,
    average: float | None = None,
    choices: Sequence[int] = CHOICES,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> dict[str, xr.Dataset]:
    """Allocations to all layers of all sites under one budget, see `analysis.joint_bits`.

    Parameters
    ----------
    groups
        Groups with histograms by path, whose last part is the site.
    average
        Budget in bits per layer and step, and per layer; by default that of `halfway`, which no one
        width meets.
    choices
        Bit widths to choose from.
    answers
        What `analysis.joint_bits` per step says of these groups, by path, where it is known.

    Returns
    -------
    By site, Dataset
        (step, layer): `bits` chosen per layer and step. (layer): `layer_bits`, one width for all
        steps. Both NaN where nothing was counted. With (choice): `choice_error`, expected error at
        every width as a share of the mean square.

    Raises
    ------
    MissingError
        There are no histograms, or nothing was counted in any.
    TaqError
        The budget is below the smallest width.
    """
    average = halfway(choices) if average is None else average
    found = answers or {}
    if not groups.keys() <= found.keys():
        found = joint_bits(groups, average=average, choices=choices, per="step")
    sites = {}
    for path, result in zip(found, _computed(found.values()), strict=True):
        site = site_of(path)
        view = linear_view(result, ["bits", "choice_error"], site=site)
        sites[site] = view.assign(bits=view["bits"].where(view["bits"] > 0))
    if not any(data["bits"].notnull().any() for data in sites.values()):
        raise MissingError(problem("no values were counted in any histogram", where="plot bits"))
    errors = [_layer_errors(data) for data in sites.values()]
    widths = allocate(np.concatenate(errors), sorted(set(choices)), average=average)
    ends = np.cumsum([len(error) for error in errors])[:-1]
    for site, width in zip(sites, np.split(widths, ends), strict=True):
        sites[site]["layer_bits"] = ("layer", np.where(width > 0, width, np.nan))
    return sites


def budget_data(sites: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Mean error that a budget of bits buys, (average), from `bit_data`.

    Returns
    -------
    Dataset
        `step_error`, `layer_error`: mean over layers and steps of the expected error as a share of
        the mean square, with a width per layer and step, or per layer. `uniform_error`: with one
        width for all, NaN at averages that are none of the choices.
    """
    choices = next(iter(sites.values()))["choice"].values
    averages = np.union1d(np.linspace(choices[0], choices[-1], _BUDGETS), choices)
    layers = np.concatenate([_layer_errors(data) for data in sites.values()])
    steps = [
        data["choice_error"].transpose("step", "layer", "choice").values.reshape(-1, len(choices))
        for data in sites.values()
    ]
    uniform = np.full(len(averages), np.nan)
    uniform[np.searchsorted(averages, choices)] = np.nanmean(layers, axis=0)
    return xr.Dataset(
        {
            "step_error": ("average", _bought(np.concatenate(steps), choices, averages)),
            "layer_error": ("average", _bought(layers, choices, averages)),
            "uniform_error": ("average", uniform),
        },
        coords={"average": averages},
    )


def bit_style(choices: Sequence[int]) -> tuple[BoundaryNorm, Colormap]:
    """One colour per bit width: few bits dark, many bits light."""
    widths = np.array(sorted(choices), np.float64)
    middle = (widths[1:] + widths[:-1]) / 2
    edges = np.concatenate([[widths[0] - 1], middle, [widths[-1] + 1]])
    shades = mpl.colormaps["viridis"].resampled(len(widths)).with_extremes(bad="0.85")
    return BoundaryNorm(edges, len(widths)), shades


def draw_budget(data: xr.Dataset, ax: Axes) -> Axes:
    """Curves of `budget_data` against the average number of bits, log y."""
    for name, line, color, label in (
        ("layer_error", "-o", "#0072B2", "a width per layer"),
        ("step_error", "--s", "#D55E00", "a width per layer and step"),
        ("uniform_error", "D", "#000000", "one width for all"),
    ):
        ax.plot(data["average"], data[name], line, color=color, markersize=4, label=label)
    ax.set_yscale("log")
    ax.set_xlabel("average bits")
    ax.set_ylabel("expected squared error over mean square\n(mean over layers and steps)")
    return ax


def draw_layer_bits(
    sites: Mapping[str, xr.Dataset],
    ax: Axes,
    *,
    style: tuple[BoundaryNorm, Colormap],
    stream: str,
) -> Axes:
    """`layer_bits` of one stream: blocks down, its sites (or their projections) across.

    Layers outside of blocks, whose stream is "", are one column with their sites beside.
    """
    cells = list(_columns(sites, stream))
    if stream:
        height = 1 + max(int(blocks.max()) for _, blocks, _ in cells)
        values = np.full((height, len(cells)), np.nan)
        for column, (_, blocks, widths) in enumerate(cells):
            values[blocks, column] = widths
        ax.set_xticks(range(len(cells)), [name for name, _, _ in cells], rotation=30, ha="right")
        ax.yaxis.set_major_locator(figures.whole_ticks())
        ax.set_ylabel("block index")
    else:
        values = np.concatenate([widths for _, _, widths in cells])[:, None]
        names = [name for name, _, widths in cells for _ in widths]
        ax.set_xticks([])
        ax.set_yticks(range(len(names)), names, fontsize="small")
        ax.yaxis.tick_right()
    edges = (np.arange(size + 1) - 0.5 for size in values.shape[::-1])
    norm, colors = style
    ax.set_facecolor(figures.MISSING_COLOR)
    ax.pcolormesh(*edges, values, norm=norm, cmap=colors, edgecolors="white", linewidth=0.5)
    ax.set_ylim(len(values) - 0.5, -0.5)
    return ax


def _columns(
    sites: Mapping[str, xr.Dataset], stream: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, blocks and widths of every site, or projection, that a stream has."""
    for site, data in sorted(sites.items(), key=lambda item: site_rank(item[0])):
        for projection in dict.fromkeys(data["projection"].values):
            chosen = (data["stream"].values == stream) & (data["projection"].values == projection)
            if chosen.any():
                one = data.isel(layer=np.flatnonzero(chosen))
                yield projection or site, one["block"].values, one["layer_bits"].values


def _computed(results: Iterable[xr.Dataset]) -> tuple[xr.Dataset, ...]:
    """All in one pass: they share the allocation."""
    return tuple(load(dict(enumerate(results))).values())


def _layer_errors(data: xr.Dataset) -> np.ndarray:
    """Mean error over steps at every width, (layer, choice), as `joint_bits` has it per layer."""
    errors: np.ndarray = data["choice_error"].mean("step").transpose("layer", "choice").values
    return errors


def _bought(errors: np.ndarray, choices: np.ndarray, averages: np.ndarray) -> list[float]:
    """Mean error of the best allocation to rows (unit, choice) for each of `averages`."""
    known = errors[~np.isnan(errors).any(axis=1)]
    rows = np.arange(len(known))
    return [
        known[rows, np.searchsorted(choices, widths)].mean()
        for widths in allocate_each(known, choices.tolist(), averages=averages.tolist())
    ]


def _title(
    unit: str,
    average: float,
    choices: Sequence[int],
    sites: Mapping[str, xr.Dataset],
    variable: str,
) -> str:
    """What the widths of a page are of, how many units got each, and why if all got the same."""
    chosen = np.concatenate([data[variable].values.ravel() for data in sites.values()])
    alike = why_alike(chosen, choices)
    text = f"bits per {unit}, {average:g} on average: {in_words(chosen)}"
    return f"{text}\n({alike})" if alike else text


def _budget_figure(data: xr.Dataset, average: float) -> Figure:
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    ax = draw_budget(data, figure.subplots())
    ax.axvline(average, color="0.5", linewidth=0.8, linestyle=":", label="budget of the maps")
    ax.legend(frameon=False)
    figure.suptitle("what a budget of bits buys: symmetric, ranges of least error")
    return figure


def _layer_figure(
    sites: Mapping[str, xr.Dataset],
    style: tuple[BoundaryNorm, Colormap],
    ticks: Sequence[int],
) -> Figure:
    there = {stream for data in sites.values() for stream in data["stream"].values}
    streams = [stream for stream in figures.STREAM_NAMES if stream in there]
    widths = [sum(1 for _ in _columns(sites, stream)) if stream else 1 for stream in streams]
    inside = [data["block"].values[data["stream"].values != ""] for data in sites.values()]
    blocks = 1 + int(np.concatenate(inside).max(initial=8))
    # Names of sites stand beside the one column of what is outside of blocks.
    size = (3.0 + 0.6 * sum(widths) + 0.4 * len(streams), 2.4 + 0.16 * blocks)
    figure = Figure(figsize=(max(size[0], 6.5), size[1]), layout="constrained")
    axes = figure.subplots(1, len(streams), squeeze=False, width_ratios=widths)
    for number, (ax, stream) in enumerate(zip(axes.flat, streams, strict=True)):
        draw_layer_bits(sites, ax, style=style, stream=stream)
        ax.set_title(f"{figures.STREAM_NAMES[stream]} stream" if stream else OUTSIDE)
        if number and stream:
            ax.set_ylim(axes[0, 0].get_ylim())
            ax.tick_params(labelleft=False)
            ax.set_ylabel("")
    bar = figure.colorbar(ScalarMappable(*style), ax=axes, label="bits", ticks=ticks)
    bar.minorticks_off()
    return figure
