"""Which groups of a store a figure is drawn from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from taqstore.errors import MissingError, TaqError, problem
from taqstore.files.datasets import write_table
from taqstore.files.tables import print_table, to_table
from taqstore.names import ACTIVATIONS, CHANNEL_HISTOGRAMS
from taqstore.plot import FIGURES, check_formats, known, make_pages, write_page
from taqstore.plot.derived import DERIVED
from taqstore.plot.kinds.box import BOXES
from taqstore.plot.kinds.summary import layer_summary
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import EXTREMA, Alternatives, first_complete
from taqstore.query import analyze
from taqstore.query.select import select

SUMMARY = "summary"
KINDS = (*FIGURES, *DERIVED, SUMMARY)

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
    on_skip: Callable[[str], object] | None = None,
    **options: Any,
) -> Iterator[Page]:
    """Make the pages of one kind of figure from the groups that can show it; nothing is written.

    Parameters
    ----------
    kind
        Key of `plot.FIGURES` or `plot.derived.DERIVED`.
    groups
        A store, or any mapping of group paths to Datasets.
    group
        Group path; by default every site of the first source that can show it, in the order of
        `PREFERENCE`, or of `analyze.PREFERENCE` for figures of analyses.
    layers
        Spellings or globs; sites without such a layer are passed over.
    on_skip
        Called with a line on every site that is passed over.
    options
        Those of `options_of`, for example `bits`; `other` is a second store's groups.

    Raises
    ------
    MissingError
        The kind is not known, no group can show it, or none has the layers.
    TaqError
        An option that the kind does not take, or none that it needs.
    """
    known("figure", kind, (*FIGURES, *DERIVED))
    _check_options(kind, options)
    if kind in DERIVED:
        jobs = [partial(_derived_pages, kind, groups, group, layers, options)]
    else:
        jobs = [
            partial(make_pages, kind, groups[path], layers=layers, site=_site(path), **options)
            for path in _paths(kind, groups, group)
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
    """Write what `pages` makes, or for the kind ``summary`` the table, which is printed as well.

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
    known("figure", kind, KINDS)
    check_formats(formats)
    folder, notes = Path(out), list[str]()
    if kind == SUMMARY:
        _check_options(kind, options)
        jobs = [
            partial(_summarize, groups[path], _site(path), folder, layers)
            for path in _paths(kind, groups, group)
        ]
        written = list(_each(jobs, notes.append))
    else:
        made = pages(kind, groups, group=group, layers=layers, on_skip=notes.append, **options)
        written = [path for page in made for path in write_page(page, folder, formats)]
    return written, notes if layers is None else []


def options_of(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the options that a kind takes, and of those that it needs."""
    if kind in DERIVED:
        return DERIVED[kind].options, DERIVED[kind].needs
    return (FIGURES[kind].options if kind in FIGURES else ()), ()


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    takes, needs = options_of(kind)
    for name in options:
        if name not in takes:
            raise TaqError(
                problem(f"plot {kind} takes no option {name!r}", found=", ".join(takes) or "none")
            )
    for name in needs:
        if name not in options:
            raise TaqError(problem(f"plot {kind} needs the option {name!r}"))


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


def _paths(kind: str, groups: Groups, group: str | None) -> list[str]:
    requires = FIGURES[kind].requires if kind in FIGURES else EXTREMA
    if group:
        return [group]
    chosen = _choose(kind, groups, requires, PREFERENCE)
    return [_binned_by_channel(path, groups, requires) for path in chosen]


def _binned_by_channel(path: str, groups: Groups, requires: Alternatives) -> str:
    """The channel histograms beside an observed group, for kinds that can use them."""
    beside = f"{CHANNEL_HISTOGRAMS}/{_site(path)}"
    if requires != BOXES or not path.startswith(f"{ACTIVATIONS}/") or beside not in groups:
        return path
    return beside if _can_show(groups[beside], requires) else path


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


def _derived_pages(
    kind: str,
    groups: Groups,
    group: str | None,
    layers: Sequence[str] | None,
    options: Mapping[str, Any],
) -> Iterator[Page]:
    row, other = DERIVED[kind], options.get("other")
    offered = {p: groups[p] for p in groups if other is None or p in other}
    paths = [group] if group else _choose(kind, offered, row.requires, analyze.PREFERENCE)
    chosen = _slices({path: groups[path] for path in paths}, layers)
    if other is not None:
        options = {**options, "other": _slices({path: other[path] for path in chosen}, layers)}
    return row.pages(chosen, **options)


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


def _summarize(
    dataset: xr.Dataset, site: str, out: Path, layers: Sequence[str] | None
) -> list[Path]:
    table = to_table(layer_summary(dataset, site=site, layers=layers).compute())
    print_table(table, limit=0)
    path = out / f"summary_{site}.csv"
    write_table(table, path, force=True)
    return [path]
