"""Where a store may have statistics of linear inputs from: one row per source.

A source is a group prefix with a group for every site below it. What each holds, and which is
preferred for what, is said here alone: analyses, figures, exports and docs follow this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from taqstore.names import ACTIVATIONS, CHANNEL_HISTOGRAMS, POOLED, site_of

TIMESTEP_STATS = f"{POOLED}/timestep_stats"
TRACED_STATS = f"{POOLED}/activation_stats_v1"
POSTGELU = f"{POOLED}/postgelu"
LUT_SCHEDULE = f"{POOLED}/lut_schedule"
POLY_SCHEDULE = f"{POOLED}/poly_schedule"

Use = Literal["analyses", "figures", "documents", "extrema", "moments", "schedules", "polynomials"]


@dataclass(frozen=True)
class StatisticsSource:
    """One source of statistics.

    Parameters
    ----------
    prefix
        Of its groups: what `--source` takes.
    doc
        What it is, one line.
    holds
        Variables that its groups may have, and coordinates that not all sources have.
    places
        Place in the order of preference, by use; the lowest is taken first, and a source is never
        chosen unasked for a use that is not here.
        `analyses`: of `taqstore analyze`, `report` and `diff`.
        `figures`: of `taqstore plot`.
        `documents`: configs made of statistics.
        `extrema`: ranges and scales for other tools.
        `moments`: sums of squares for other tools.
        `schedules`, `polynomials`: clip bounds over sigma, and polynomials of them.
    """

    prefix: str
    doc: str
    holds: tuple[str, ...]
    places: Mapping[Use, int] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """Last part of the prefix: the source's own name."""
        return site_of(self.prefix)


_ROLLUPS = ("tensor_min", "tensor_max", "tensor_absmax", "n_batches")

# Orders of preference. Analyses: observations before what arrived reduced, since any rule can be
# worked out from them. Figures: post-GELU statistics first; they are what the figures were made
# for and hold most moments. Documents: what the source's own scripts would read. Extrema:
# observations first, because pooled extrema are averages and lie inside the true ones.
STATISTICS: dict[str, StatisticsSource] = {
    row.prefix: row
    for row in (
        StatisticsSource(
            ACTIVATIONS,
            "observed, batch by batch, by `taqstore collect`",
            (
                *("min", "max", "mean", "m2", "count", "histogram", "nonfinite"),
                *("tensor_min", "tensor_max", "batch", "sigma"),
            ),
            {"analyses": 10, "figures": 20, "documents": 30, "extrema": 10, "moments": 10,
             "schedules": 40, "polynomials": 50},
        ),
        StatisticsSource(
            CHANNEL_HISTOGRAMS,
            "histograms of every channel, beside observations",
            ("channel_histogram",),
            {"figures": 50},
        ),
        StatisticsSource(
            TIMESTEP_STATS,
            "running means of extrema, shifts and sampled histograms of the source's collector",
            (
                *("avg_min", "avg_max", "shift", "hist_counts", "hist_edges", *_ROLLUPS),
                *("has_shift", "has_hist", "shift_absmax"),
                *("hist_p999", "hist_p99", "hist_p01", "hist_p001", "sigma"),
            ),
            {"analyses": 20, "figures": 30, "documents": 10, "extrema": 30,
             "schedules": 20, "polynomials": 30},
        ),
        StatisticsSource(
            TRACED_STATS,
            "true extrema of the first version of the source's collector",
            ("min", "max", *_ROLLUPS, "sigma"),
            {"analyses": 30, "figures": 40, "documents": 20, "extrema": 20,
             "schedules": 30, "polynomials": 40},
        ),
        StatisticsSource(
            POSTGELU,
            "moments and histograms of the Phase 2 tracer",
            ("mean", "std", "min", "max", "count", "histogram", "bin_edges", "sigma"),
            {"analyses": 40, "figures": 10, "moments": 20},
        ),
        StatisticsSource(
            LUT_SCHEDULE,
            "clip bounds at every step's sigma",
            ("alpha", "sigma"),
            {"analyses": 50, "schedules": 10, "polynomials": 20},
        ),
        StatisticsSource(
            POLY_SCHEDULE,
            "clip bounds as polynomials of sigma",
            (
                *("coefficient", "degree", "r2", "cv"),
                *("shift_coefficient", "shift_degree", "shift_r2"),
            ),
            {"polynomials": 10},
        ),
    )
}  # fmt: skip


def preferred(use: Use) -> tuple[str, ...]:
    """Prefixes of the sources that serve a use, the preferred first."""
    rows = [row for row in STATISTICS.values() if use in row.places]
    return tuple(row.prefix for row in sorted(rows, key=lambda row: row.places[use]))


def prefix_of(source: str) -> str:
    """Group prefix of a source by its prefix or its own name; a prefix that is not listed as it is.

    `postgelu` and `pooled/postgelu` are the same.
    """
    words = {row.word: prefix for prefix, row in STATISTICS.items()}
    return words.get(source, source.strip("/"))
