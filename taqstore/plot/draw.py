"""Which groups of a store a figure is drawn from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import first_complete
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.files.datasets import write_table
from taqstore.files.remote import output_path
from taqstore.files.tables import print_table, to_table
from taqstore.kinds import nonfinite
from taqstore.kinds.statistics_sources import Use, preferred
from taqstore.names import ACTIVATIONS, Alternatives, kind_of, parse_layer, site_of
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.plot.apart import Elsewhere, Files, is_worth, shared_out
from taqstore.plot.figures import FIGURES, FigureKind, check_formats, known
from taqstore.query.sites import Groups, each_able, first_source, slices
from taqstore.run.dealing import one_behind
from taqstore.store.given import handed, put_behind_dask

if TYPE_CHECKING:
    import pandas as pd

    from taqstore.plot.parts.panels import Page


@handed
def pages(
    kind: str,
    groups: Groups,
    *,
    group: str | None = None,
    layers: Sequence[str] | None = None,
    answers: Groups | None = None,
    on_skip: Callable[[str], object] | None = None,
    **options: Any,
) -> Iterator[Page]:
    """Make the pages of one kind of figure from the groups that can show it; nothing is written.

    Parameters
    ----------
    kind
        Word of `plot.FIGURES`, not a table.
    groups
        A store, or any mapping of group paths to Datasets.
    group
        Group path; by default every site of the first source that can show it, in the order that
        figures prefer, or analyses where the figure is of one.
    layers
        Spellings or globs; sites without such a layer are passed over.
    answers
        What the analysis behind the figure says of the groups, by path, where that is known
        already; for kinds whose function has such a parameter.
    on_skip
        Called with a line on every site that is passed over.
    options
        Those of `FigureKind.options`, for example `bits`; `other` is a second store's groups.

    Raises
    ------
    MissingError
        The kind is not known, no group can show it, or none has the layers.
    TaqError
        An option that the kind does not take, or none that it needs.
    """
    known("figure", kind, [word for word, row in FIGURES.items() if row.made != "table"])
    row = FIGURES[kind]
    row.check_options(kind, options)
    made: Iterator[Any] = _made(
        kind, row, groups, group, layers, answers, on_skip, options, lambda path: None
    )
    return made


def _made(
    kind: str,
    row: FigureKind,
    groups: Groups,
    group: str | None,
    layers: Sequence[str] | None,
    answers: Groups | None,
    on_skip: Callable[[str], object] | None,
    options: Mapping[str, Any],
    elsewhere: Elsewhere,
) -> Iterator[Page | Files]:
    """As `pages`; where somebody else writes those of a group, their files in their place."""
    if row.made == "store":
        return _pages_of_store(kind, row, groups, group, layers, answers, options)
    if row.made == "sites":
        asked = row, groups, group, layers, answers, options
        return each_able(lambda word: _pages_over_sites(word, *asked), [kind], on_skip=on_skip)

    from taqstore.plot.render import make_pages

    def ask(path: str) -> Iterable[Page | Files]:
        files = elsewhere(path)
        if files is not None:
            return files
        known = (answers or {}).get(path)
        site = site_of(path)
        return make_pages(kind, groups[path], layers=layers, site=site, answers=known, **options)

    return each_able(ask, _paths(kind, row, groups, group), on_skip=on_skip)


@takes_storage_options
@handed
def draw(
    kind: str,
    groups: Groups,
    out: str | os.PathLike[str],
    *,
    group: str | None = None,
    layers: Sequence[str] | None = None,
    formats: Sequence[str] = ("png",),
    storage_options: StorageOptions | None = None,
    processes: bool = False,
    **options: Any,
) -> tuple[list[Path], list[str]]:
    """Write what `pages` makes, or of a kind that is a table the rows, which are printed as well.

    Parameters
    ----------
    kind, groups, group, layers, options
        As in `pages`.
    formats
        Suffixes out of `plot.FORMATS`.
    storage_options
        As of `taqstore.open_store`.
    processes
        Whether a second process may draw some sites, where there are two cores and so much to read
        from a local disk that imports are the smaller part. It takes some 250 MB more.

    Returns
    -------
    Files written, and notes on what was passed over.

    Raises
    ------
    MissingError, TaqError
        As in `pages`, or a format is not known.
    """
    known("figure", kind, FIGURES)
    check_formats(formats)
    row, folder, notes = FIGURES[kind], output_path(out), list[str]()
    if row.made == "table":
        written = [
            _write_table(f"{kind}_{site}", table, folder)
            for site, table in tables(
                kind, groups, group=group, layers=layers, on_skip=notes.append, **options
            )
        ]
    else:
        row.check_options(kind, options)
        asked = kind, row, groups, group, layers, None, notes.append, options
        with _company(*asked[:5], folder, formats, options, processes) as elsewhere:
            written = _all_written(_made(*asked, elsewhere), folder, formats)
    if row.made == "store":
        return written, notes
    seen = _nonfinite(kind, row, groups, group, layers, options.get("other"))
    return written, [*([] if layers else notes), *seen]


def _all_written(made: Iterable[Page | Files], folder: Path, formats: Sequence[str]) -> list[Path]:
    from taqstore.plot.render import write_page  # needs matplotlib: a table does not

    # Sites are read and pages laid out beside the one before, which is drawn.
    files = one_behind(
        lambda page: page if isinstance(page, list) else write_page(page, folder, formats), made
    )
    return [path for some in files for path in some]


@contextmanager
def _company(
    kind: str,
    row: FigureKind,
    groups: Groups,
    group: str | None,
    layers: Sequence[str] | None,
    folder: Path,
    formats: Sequence[str],
    options: Mapping[str, Any],
    processes: bool,
) -> Iterator[Elsewhere]:
    """Who else writes figures: another process, where they are made site by site of much data."""
    paths = _paths(kind, row, groups, group) if processes and row.made == "site" else []
    found = {path: groups[path] for path in paths}
    if len(found) < 2 or type(folder) is not type(Path()) or not is_worth(groups, found):
        yield lambda path: None
        return
    with shared_out(
        kind, found, folder, layers=layers, formats=formats, options=options
    ) as elsewhere:
        yield elsewhere


@handed
def tables(
    kind: str,
    groups: Groups,
    *,
    group: str | None = None,
    layers: Sequence[str] | None = None,
    on_skip: Callable[[str], object] | None = None,
    **options: Any,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of a kind that is a table, by site; parameters and errors as of `pages`."""
    row = FIGURES[kind]
    row.check_options(kind, options)

    def ask(path: str) -> list[tuple[str, pd.DataFrame]]:
        site = site_of(path)
        found = row.load()(put_behind_dask(groups[path]), site=site, layers=layers, **options)
        return [(site, to_table(found.compute()))]

    return each_able(ask, _paths(kind, row, groups, group), on_skip=on_skip)


def spread(kind: str, groups: Groups, *, group: str | None = None, most: int = 6) -> list[str]:
    """Layers that stand for all of those that a figure would show: evenly over the depth.

    Of every stream at most `most`, the first and the last among them.

    Raises
    ------
    MissingError
        No group can show the figure.
    """
    labels: dict[str, None] = {}
    for path in _paths(kind, FIGURES[kind], groups, group):
        labels |= dict.fromkeys(map(str, groups[path]["layer"].values))
    streams: dict[str, list[str]] = {}
    for label in sorted(labels, key=lambda label: parse_layer(label).sort_key):
        streams.setdefault(parse_layer(label).stream, []).append(label)
    return [
        found[round(place)]
        for found in streams.values()
        for place in np.linspace(0, len(found) - 1, min(most, len(found)))
    ]


def _nonfinite(
    kind: str,
    row: FigureKind,
    groups: Groups,
    group: str | None,
    layers: Sequence[str] | None,
    other: Groups | None,
) -> list[str]:
    """Notes on values that are no numbers in what a figure is drawn from."""
    drawn = map(nonfinite.counted, _chosen(kind, row, groups, group, other))
    paths = [path for path in drawn if path in groups]
    selection = {"layer": ",".join(layers)} if layers else {}
    found = nonfinite.notes(slices(groups, paths, selection))
    if other is None:
        return found
    second = nonfinite.notes(slices(other, paths, selection))
    return [*found, *(f"the other store: {note}" for note in second)]


def _chosen(
    kind: str, row: FigureKind, groups: Groups, group: str | None, other: Groups | None
) -> list[str]:
    """Paths that a figure is drawn from."""
    if row.made != "sites" or group:
        return _paths(kind, row, groups, group)
    offered = {p: groups[p] for p in groups if other is None or p in other}
    return _able(kind, offered, row.requires, "analyses")


def _paths(kind: str, row: FigureKind, groups: Groups, group: str | None) -> list[str]:
    if group:
        return [group]
    chosen = _able(kind, groups, row.requires, "figures")
    return [_beside(path, row, groups) for path in chosen]


def _beside(path: str, row: FigureKind, groups: Groups) -> str:
    """The group beside an observed one that the figure would rather show, or that one itself."""
    beside = f"{row.beside}/{site_of(path)}"
    if not row.beside or not path.startswith(f"{ACTIVATIONS}/") or beside not in groups:
        return path
    return beside if _can_show(groups[beside], row.requires) else path


def _able(kind: str, groups: Groups, requires: Alternatives, use: Use) -> list[str]:
    """Paths of the first source, as preferred for the use, that can show the figure."""
    found = first_source(groups, preferred(use), able=lambda p: _can_show(groups[p], requires))
    if not found:
        raise MissingError(
            problem(
                f"no group can show {kind!r}",
                found=", ".join(groups) or "an empty store",
                remedy="ingest activation statistics first",
            )
        )
    return found


def _can_show(dataset: xr.Dataset, requires: Alternatives) -> bool:
    """Whether it has the variables, and something in them: a new group has no batch yet."""
    return bool(first_complete(dataset, requires)) and dataset.sizes.get("batch", 1) > 0


def can_show_store(row: FigureKind, groups: Iterable[str]) -> bool:
    """Whether a store has a group of a kind that a figure of whole stores is drawn from."""
    return any(kind_of(path) in row.groups for path in groups)


def _pages_of_store(
    kind: str,
    row: FigureKind,
    groups: Groups,
    group: str | None,
    layers: Sequence[str] | None,
    answers: Groups | None,
    options: Mapping[str, Any],
) -> Iterator[Page]:
    if group or layers:
        what = f"{kind} shows a whole store: it cannot choose {'a group' if group else 'layers'}"
        raise MisuseError(problem(what, remedy=f"leave --{'group' if group else 'layer'} out"))
    if not can_show_store(row, groups):
        what = f"no group can show {kind!r}"
        found = ", ".join(groups) or "an empty store"
        raise MissingError(problem(what, found=found, remedy=f"make one: {row.maker}"))
    if answers is not None:
        options = {**options, "answers": answers}
    made: Iterator[Page] = row.load()(put_behind_dask(groups), **options)
    return made


def _pages_over_sites(
    kind: str,
    row: FigureKind,
    groups: Groups,
    group: str | None,
    layers: Sequence[str] | None,
    answers: Groups | None,
    options: Mapping[str, Any],
) -> Iterator[Page]:
    other = options.get("other")
    paths = _chosen(kind, row, groups, group, other)
    selection = {"layer": ",".join(layers)} if layers else {}
    # Group by group: with all batches of few layers in a block, a store has few batches of all.
    chosen = put_behind_dask(slices(groups, paths, selection))
    if answers is not None:
        known = slices(answers, [path for path in chosen if path in answers], selection)
        options = {**options, "answers": known}
    if other is not None:
        options = {**options, "other": put_behind_dask(slices(other, chosen, selection))}
    made: Iterator[Page] = row.load()(chosen, **options)
    return made


def _write_table(stem: str, table: pd.DataFrame, out: Path) -> Path:
    print_table(table, limit=0)
    path = out / f"{stem}.csv"
    write_table(table, path, force=True)
    return path
