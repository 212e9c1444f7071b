"""What is to be said beside an answer: values of its statistics that are no numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from taqstore.analysis.shared.row import Analysis
from taqstore.kinds import nonfinite
from taqstore.names import SECOND_MOMENTS, split_group
from taqstore.query.sites import Groups, choose_groups, slices


def nonfinite_notes(groups: Groups, paths: Iterable[str] | None = None) -> list[str]:
    """A line for each group of statistics that holds what is no number."""
    chosen = list(groups if paths is None else paths)
    notes = nonfinite.notes(groups, chosen)
    if any(split_group(path)[0] == SECOND_MOMENTS for path in chosen):
        from taqstore.kinds import second_moments  # with it xarray

        notes += second_moments.notes(groups, chosen)
    return notes


def statistics_of(
    groups: Groups, row: Analysis, results: Iterable[str], asked: Mapping[str, Any]
) -> Groups:
    """The statistics that an analysis was asked of, sliced; none where it is of none.

    Parameters
    ----------
    results
        Paths of its answers.
    asked
        ``source``, ``sites`` and ``selection`` as of `query.analyze`.
    """
    if not row.of_statistics:
        return {}
    paths = list(results)
    if row.whole:
        layer = asked["selection"]["layer"]
        paths = choose_groups(groups, asked["source"], sites=asked["sites"], layer=layer)
    return slices(groups, paths, asked["selection"])
