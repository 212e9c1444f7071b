"""Analyses of whole stores: what they are given, and which options they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr

from taqstore.analysis.shared.row import SELECTION
from taqstore.analysis.table import ANALYSES
from taqstore.errors import MisuseError, problem
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import split_group
from taqstore.query.sites import choose_groups, slices

Groups = Mapping[str, xr.Dataset]


class Narrowed(Groups):
    """A store whose statistics are those that were chosen; all other groups are as they are."""

    def __init__(self, groups: Groups, statistics: Groups) -> None:
        self._groups = groups
        self._statistics = statistics

    def __getitem__(self, path: str) -> xr.Dataset:
        if path in self._statistics:
            return self._statistics[path]
        if split_group(path)[0] in STATISTICS:
            raise KeyError(path)
        return self._groups[path]

    def __iter__(self) -> Iterator[str]:
        for path in self._groups:
            if path in self._statistics or split_group(path)[0] not in STATISTICS:
                yield path

    def __len__(self) -> int:
        return sum(1 for _ in self)


def ask_whole(
    name: str, stores: Sequence[Groups], asked: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, xr.Dataset]:
    """Run an analysis of whole stores.

    Parameters
    ----------
    name
        Word of `analysis.ANALYSES`.
    stores
        One, or two where the row says `second`.
    asked
        Values of `SELECTION`; None and an empty sequence are not given.
    options
        Of the analysis.

    Raises
    ------
    MisuseError
        A part of a store was chosen that the analysis cannot choose by.
    MissingError
        A store lacks what was chosen.
    """
    row = ANALYSES[name]
    given = {word: value for word, value in asked.items() if value is not None and value != ()}
    refused = [word for word, value in given.items() if value != [] and word not in row.takes]
    if refused:
        found = ", ".join(f"--{word}" for word in row.takes) or "all of the store"
        what = f"{name} cannot choose by {refused[0]}"
        raise MisuseError(problem(what, found=found, remedy=f"leave --{refused[0]} out"))
    if row.of_statistics:
        stores = [narrowed(store, given) for store in stores]
    else:
        options = {**options, **_named(given)}
    results: dict[str, xr.Dataset] = row.load()(*stores, **options)
    return results


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"sites" if word == "site" else word: value for word, value in given.items() if value}


def narrowed(groups: Groups, asked: Mapping[str, Any]) -> Narrowed:
    """A store with the statistics of one source, sliced by what was asked: see `SELECTION`.

    Raises
    ------
    MissingError
        There are none, or no such site or layer.
    """
    selection = {word: asked[word] for word in SELECTION[2:] if asked.get(word) is not None}
    paths = choose_groups(
        groups, asked.get("source"), sites=asked.get("site", ()), layer=asked.get("layer")
    )
    return Narrowed(groups, slices(groups, paths, selection))
