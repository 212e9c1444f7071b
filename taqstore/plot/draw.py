"""Which groups of a store a figure is drawn from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from taqstore.analysis.shared.inputs import first_complete
from taqstore.errors import MissingError, problem
from taqstore.files.tables import print_table, to_table, write_csv
from taqstore.names import ACTIVATIONS, CHANNEL_HISTOGRAMS, Alternatives
from taqstore.plot.figures import FIGURES, FigureKind, check_formats, known
from taqstore.plot.parts.panels import Page
from taqstore.plot.render import make_pages, write_page
from taqstore.query.analyze import PREFERENCE as OBSERVED_FIRST
from taqstore.query.select import select

# Post-GELU statistics first: they are what the five figures were made for and hold most moments.
PREFERENCE = (
    "pooled/postgelu",
    "activations",
    "pooled/timestep_stats",
    "pooled/activation_stats_v1",
    CHANNEL_HISTOGRAMS,
)
Groups = Mapping[str, xr.Dataset]
_Made = TypeVar("_Made")


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
        Group path; by default every site of the first source that can show it, in the order of
        `PREFERENCE`, or of `query.analyze.PREFERENCE` for figures of analyses.
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
    if row.made == "sites":
        jobs = [partial(_pages_over_sites, kind, row, groups, group, layers, answers, options)]
    else:
        jobs = [
            partial(
                make_pages,
                kind,
                groups[path],
                layers=layers,
                site=_site(path),
                answers=(answers or {}).get(path),
                **options,
            )
            for path in _paths(kind, row, groups, group)
        ]
    return _each(jobs, on_skip)


def draw(
    kind: str,
    groups: Groups,
    out: str | os.PathLike[str],
    *,
    group: str | None = None,
    layers: Sequence[str] | None = None,
    formats: Sequence[str] = ("png",),
    **options: Any,
) -> tuple[list[Path], list[str]]:
    """Write what `pages` makes, or of a kind that is a table the rows, which are printed as well.

    Parameters
    ----------
    kind, groups, group, layers, options
        As in `pages`.
    formats
        Suffixes out of `plot.FORMATS`.

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
    row, folder, notes = FIGURES[kind], Path(out), list[str]()
    if row.made == "table":
        row.check_options(kind, options)
        jobs = [
            partial(_write_table, kind, row, groups[path], _site(path), folder, layers, options)
            for path in _paths(kind, row, groups, group)
        ]
        written = list(_each(jobs, notes.append))
    else:
        made = pages(kind, groups, group=group, layers=layers, on_skip=notes.append, **options)
        written = [path for page in made for path in write_page(page, folder, formats)]
    return written, notes if layers is None else []


def _each(
    jobs: Iterable[Callable[[], Iterable[_Made]]], on_skip: Callable[[str], object] | None
) -> Iterator[_Made]:
    """What all jobs make; those that miss something are passed over unless all do."""
    missing: list[MissingError] = []
    made = False
    for job in jobs:
        try:
            for one in job():
                made = True
                yield one
        except MissingError as error:
            missing.append(error)
            if on_skip is not None:
                on_skip(str(error))
    if missing and not made:
        raise MissingError(str(missing[0]))


def _site(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _paths(kind: str, row: FigureKind, groups: Groups, group: str | None) -> list[str]:
    if group:
        return [group]
    chosen = _choose(kind, groups, row.requires, PREFERENCE)
    return [_beside(path, row, groups) for path in chosen]


def _beside(path: str, row: FigureKind, groups: Groups) -> str:
    """The group beside an observed one that the figure would rather show, or that one itself."""
    beside = f"{row.beside}/{_site(path)}"
    if not row.beside or not path.startswith(f"{ACTIVATIONS}/") or beside not in groups:
        return path
    return beside if _can_show(groups[beside], row.requires) else path


def _choose(
    kind: str, groups: Groups, requires: Alternatives, preference: Sequence[str]
) -> list[str]:
    for prefix in preference:
        sites = [path for path in groups if path.rsplit("/", 1)[0] == prefix]
        able = [path for path in sites if _can_show(groups[path], requires)]
        if able:
            return able
    raise MissingError(
        problem(
            f"no group can show {kind!r}",
            found=", ".join(groups) or "an empty store",
            remedy="ingest activation statistics first",
        )
    )


def _can_show(dataset: xr.Dataset, requires: Alternatives) -> bool:
    """Whether it has the variables, and something in them: a new group has no batch yet."""
    return bool(first_complete(dataset, requires)) and dataset.sizes.get("batch", 1) > 0


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
    offered = {p: groups[p] for p in groups if other is None or p in other}
    paths = [group] if group else _choose(kind, offered, row.requires, OBSERVED_FIRST)
    chosen = _slices({path: groups[path] for path in paths}, layers)
    if answers is not None:
        options = {
            **options,
            "answers": _slices({p: answers[p] for p in chosen if p in answers}, layers),
        }
    if other is not None:
        options = {**options, "other": _slices({path: other[path] for path in chosen}, layers)}
    made: Iterator[Page] = row.load()(chosen, **options)
    return made


def _slices(groups: Groups, layers: Sequence[str] | None) -> dict[str, xr.Dataset]:
    """The groups that have such layers, sliced to these."""
    if not layers:
        return dict(groups)
    sliced: dict[str, xr.Dataset] = {}
    missing: list[MissingError] = []
    for path, dataset in groups.items():
        try:
            sliced[path] = select(dataset, layer=",".join(layers), site=_site(path))
        except MissingError as error:
            missing.append(error)
    if missing and not sliced:
        raise missing[0]
    return sliced


def _write_table(
    kind: str,
    row: FigureKind,
    dataset: xr.Dataset,
    site: str,
    out: Path,
    layers: Sequence[str] | None,
    options: Mapping[str, Any],
) -> list[Path]:
    table = to_table(row.load()(dataset, site=site, layers=layers, **options).compute())
    print_table(table, limit=0)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{kind}_{site}.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_csv(table, stream)
    return [path]
