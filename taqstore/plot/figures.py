"""The table of figures: every word of `taqstore plot`, and what must be known to draw it.

From it come the words and options of the command, its help, what is refused, and the pictures of
`taqstore report`. It names the functions that draw, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, Literal

from taqstore.asked import meant, word_of
from taqstore.errors import MisuseError, problem
from taqstore.names import BINS, CHANNEL_BINS, CHANNEL_HISTOGRAMS, EXTREMA, MOMENTS, Alternatives

FORMATS = ("png", "svg", "pdf")
"""Suffixes of pictures."""


@dataclass(frozen=True)
class InReport:
    """Where a figure stands in the report.

    Parameters
    ----------
    section
        Key of the section whose question it answers.
    caption
        What the reader is to see in it; ``{focus}`` is the site or linear singled out, ``{low}``
        the fewest bits.
    shows
        The site or the linear that the section singles out, or all sites.
    stem
        Part of the names of the pages to take; empty for all.
    """

    section: str
    caption: str
    shows: Literal["site", "linear", "all"]
    stem: str = ""


@dataclass(frozen=True)
class FigureKind:
    """One word of `taqstore plot`.

    Parameters
    ----------
    doc
        What it shows, one line.
    source
        ``module:function`` that makes it.
    made
        What the function takes and gives. "site": ``f(view, site, **options)`` yields pages, from
        the `views.linear_view` of one group. "sites": ``f(groups, **options)`` yields pages, from
        Datasets by group path, sliced to layers. "table": ``f(dataset, site=…, layers=…)`` gives a
        Dataset along layer, printed and written, without pictures. "store": ``f(groups,
        **options)`` yields pages, from all groups of the store.
    requires
        Alternatives of variables, the first complete one is used; groups that hold none are not
        offered. Empty for "store".
    optional
        Variables shown where they are present ("site" only).
    options
        Names of the options it takes. `other` is a second store's groups, sliced likewise.
    needs
        Those of them that it cannot do without.
    beside
        Kind of group whose site stands in for an observed one where there is any.
    groups
        Kinds of group that "store" is drawn from: without one of them there is no picture.
    maker
        Command that makes these groups, without the store.
    report
        Where it stands in the report, if it does.
    """

    doc: str
    source: str
    made: Literal["site", "sites", "table", "store"]
    requires: Alternatives = ()
    optional: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    beside: str = ""
    groups: tuple[str, ...] = ()
    maker: str = ""
    report: InReport | None = None

    def load(self) -> Callable[..., Any]:
        """The function that makes it, imported now."""
        module, _, name = self.source.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    def check_options(self, word: str, given: Collection[str]) -> None:
        """Refuse options that this figure, called `word`, does not take, or misses.

        Raises
        ------
        TaqError
            The first one of either.
        """
        for name in given:
            if name not in self.options:
                what = f"plot {word} takes no option {name!r}"
                remedy = meant(name, self.options) or "it takes none"
                raise MisuseError(problem(what, remedy=remedy))
        for name in self.needs:
            if name not in given:
                raise MisuseError(problem(f"plot {word} needs the option {name!r}"))


_KINDS = "taqstore.plot.kinds"
_SCHEDULES: Alternatives = (
    *EXTREMA,
    ("tensor_min", "tensor_max"),
    ("tensor_absmax",),
    ("alpha",),
)

FIGURES: dict[str, FigureKind] = {
    "range": FigureKind(
        "channel ranges of every layer against sigma",
        f"{_KINDS}.range:range_pages",
        "site",
        EXTREMA,
        report=InReport(
            "drift",
            "Ranges over the steps, {focus}: the site that drifts most.",
            "site",
            stem="_all",
        ),
    ),
    "histogram": FigureKind(
        "histogram of each layer, its steps overlaid",
        f"{_KINDS}.histogram:histogram_pages",
        "site",
        BINS,
    ),
    "ridgeline": FigureKind(
        "histogram of each layer, a ridge for every step",
        f"{_KINDS}.ridgeline:ridgeline_pages",
        "site",
        BINS,
    ),
    "channels": FigureKind(
        "range of each layer's channels, the widest 2 % in red",
        f"{_KINDS}.channels:channel_pages",
        "site",
        EXTREMA,
        report=InReport("outliers", "Channel ranges of {focus}.", "linear"),
    ),
    "channelmap": FigureKind(
        "log2 of every channel's absmax at every step",
        f"{_KINDS}.channelmap:channelmap_pages",
        "site",
        EXTREMA,
        report=InReport("outliers", "The channels of {focus} over the steps.", "linear"),
    ),
    "box": FigureKind(
        "boxes of each layer's widest channels",
        f"{_KINDS}.box:box_pages",
        "site",
        (*CHANNEL_BINS, *EXTREMA),
        beside=CHANNEL_HISTOGRAMS,
    ),
    "heatmap": FigureKind(
        "mean, std, absmax and shift by block and sigma",
        f"{_KINDS}.heatmap:heatmap_pages",
        "site",
        (*MOMENTS, *EXTREMA),
        optional=("min", "max", "avg_min", "avg_max", "shift"),
    ),
    "negative": FigureKind(
        "share of values below zero by block and sigma",
        f"{_KINDS}.negative:negative_pages",
        "site",
        BINS,
        report=InReport("asymmetry", "Values below zero, {focus}: the most lopsided site.", "site"),
    ),
    "sqnr": FigureKind(
        "expected SQNR by block and sigma",
        f"{_KINDS}.sqnr:sqnr_pages",
        "sites",
        tuple((*pair, *bins) for pair, bins in product(EXTREMA, BINS)),
        options=("bits",),
        report=InReport("worst", "SQNR at {low} bits, absmax per step.", "all"),
    ),
    "trajectories": FigureKind(
        "clip bounds and shifts over sigma, with fits",
        f"{_KINDS}.trajectories:trajectory_pages",
        "sites",
        _SCHEDULES,
        options=("momentum",),
    ),
    "curve": FigureKind(
        "error against the clip bound, rules marked",
        f"{_KINDS}.curve:curve_pages",
        "sites",
        BINS,
        options=("bits", "step"),
        report=InReport(
            "worst",
            "Error of {focus} against the clip bound, and where rules put it.",
            "linear",
        ),
    ),
    "groups": FigureKind(
        "error against groups of steps, chosen cuts",
        f"{_KINDS}.groups:group_pages",
        "sites",
        BINS,
        options=("bits",),
        report=InReport(
            "groups", "Error of groups of steps, and where single layers would cut.", "all"
        ),
    ),
    "bits": FigureKind(
        "allocation of bit widths",
        f"{_KINDS}.bits:bit_pages",
        "sites",
        BINS,
        options=("average", "choices"),
        report=InReport("bits", "Widths by layer and step, and error against the budget.", "all"),
    ),
    "diff": FigureKind(
        "what changed in another store",
        f"{_KINDS}.diff:diff_pages",
        "sites",
        (*EXTREMA, *BINS),
        options=("other",),
        needs=("other",),
    ),
    "order": FigureKind(
        "band of an average over batch orders",
        f"{_KINDS}.order:order_pages",
        "sites",
        (("min", "max", "batch"),),
        options=("momentum", "orders"),
    ),
    "gate": FigureKind(
        "cosine of variants' trajectories with the float ones by step",
        f"{_KINDS}.gate:gate_pages",
        "store",
        options=("min_cosine",),
        groups=("trajectories",),
        maker="taqstore gate STORE --variant NAME",
        report=InReport(
            "judged",
            "How far every variant keeps to the trajectories of the model as it is.",
            "all",
        ),
    ),
    "sensitivity": FigureKind(
        "effect of quantizing one linear alone, by block and site",
        f"{_KINDS}.sensitivity:sensitivity_pages",
        "store",
        groups=("sensitivity",),
        maker="taqstore sensitivity STORE",
        report=InReport("judged", "What each linear does to the picture, alone.", "all"),
    ),
    "ranks": FigureKind(
        "rank correlations of static scores with measured effects",
        f"{_KINDS}.ranks:rank_pages",
        "store",
        groups=("sensitivity",),
        maker="taqstore sensitivity STORE",
        report=InReport("judged", "Which static scores order layers as trajectories do.", "all"),
    ),
    "frontier": FigureKind(
        "error against average bits, the chosen allocation, what was measured",
        f"{_KINDS}.frontier:frontier_pages",
        "store",
        options=("average",),
        groups=("sensitivity",),
        maker="taqstore sensitivity STORE",
        report=InReport("judged", "What average bits buy, each linear by its own format.", "all"),
    ),
    "policy": FigureKind(
        "predicted error by the first and last steps that are protected",
        f"{_KINDS}.policy:policy_pages",
        "store",
        groups=("sensitivity",),
        maker="taqstore sensitivity STORE --unit step",
        report=InReport("judged", "Which first and last steps to protect.", "all"),
    ),
    "enough": FigureKind(
        "move of clip bounds by the number of images, and what is enough",
        f"{_KINDS}.enough:enough_pages",
        "sites",
        (("tensor_min", "batch"), ("min", "max", "batch")),
        report=InReport("judged", "What more images would change.", "all"),
    ),
    "summary": FigureKind(
        "the table of medians, ranges, negative share and outliers",
        f"{_KINDS}.summary:layer_summary",
        "table",
        EXTREMA,
    ),
}
"""Every word of `taqstore plot`, in the order of its help."""


def known(what: str, name: str, names: Collection[str]) -> None:
    """Refuse a name that is not one of `names`, saying which there are.

    Raises
    ------
    MissingError
        It is not.
    """
    word_of(name, names, what)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse picture formats that are not among `FORMATS`, by a MissingError."""
    for suffix in formats:
        known("picture format", suffix, FORMATS)
