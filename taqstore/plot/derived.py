"""Figures of analyses: what is worked out from the statistics of several sites at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from taqstore.plot.kinds.bits import bit_pages
from taqstore.plot.kinds.curve import curve_pages
from taqstore.plot.kinds.diff import diff_pages
from taqstore.plot.kinds.groups import group_pages
from taqstore.plot.kinds.order import order_pages
from taqstore.plot.kinds.sqnr import PRICED, sqnr_pages
from taqstore.plot.kinds.trajectories import trajectory_pages
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import BINS, EXTREMA, Alternatives


@dataclass(frozen=True)
class DerivedKind:
    """One kind of figure drawn from analyses.

    Parameters
    ----------
    doc
        What it shows, one line.
    requires
        Alternatives of variables; groups that hold none of them completely are not offered.
    pages
        ``f(groups, **options)`` yielding pages, from Datasets by group path, sliced to layers.
    options
        Names of the options it takes. `other` is a second store's groups, sliced likewise.
    needs
        Those of them that it cannot do without.
    """

    doc: str
    requires: Alternatives
    pages: Callable[..., Iterator[Page]]
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_SCHEDULES: Alternatives = (
    *EXTREMA,
    ("tensor_min", "tensor_max"),
    ("tensor_absmax",),
    ("alpha",),
)

DERIVED: dict[str, DerivedKind] = {
    "sqnr": DerivedKind(
        "expected SQNR of quantizing by block and sigma, all sites on one page",
        PRICED,
        sqnr_pages,
        options=("bits",),
    ),
    "trajectories": DerivedKind(
        "clip bounds and shifts against sigma, with fitted polynomials",
        _SCHEDULES,
        trajectory_pages,
        options=("momentum",),
    ),
    "curve": DerivedKind(
        "expected error against the clip bound of each layer, every rule marked",
        BINS,
        curve_pages,
        options=("bits", "step"),
    ),
    "groups": DerivedKind(
        "error against the number of groups of steps, and the cuts on sigma",
        BINS,
        group_pages,
        options=("bits",),
    ),
    "bits": DerivedKind(
        "best allocation of bit widths by layer and step, and error against the budget",
        BINS,
        bit_pages,
        options=("average", "choices"),
    ),
    "diff": DerivedKind(
        "what changed from one store to another by block and sigma",
        (*EXTREMA, *BINS),
        diff_pages,
        options=("other",),
        needs=("other",),
    ),
    "order": DerivedKind(
        "how far an EMA moves over orders of batches, by block and sigma",
        (("min", "max", "batch"),),
        order_pages,
        options=("momentum", "orders"),
    ),
}
