"""Where a question is asked: which source, which of its sites; what lacks an answer is passed over.

A source is a group prefix (`activations`, `pooled/postgelu`) with a group per site below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from taqstore.asked import listed, meant, nearest, word_of
from taqstore.errors import MissingError, problem
from taqstore.kinds.statistics_sources import STATISTICS, preferred, prefix_of
from taqstore.names import EVERY_SITE, parse_layer, site_of, split_group, tensor_site
from taqstore.query.select import select

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]
Selection = Mapping[str, str | None]
_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")

_MEANT = "did you mean"
_GLOB = "*?["


def paths_of(groups: Iterable[str], source: str) -> list[str]:
    """Paths of a source's groups, in the order of `groups`."""
    prefix = prefix_of(source)
    return [path for path in groups if split_group(path)[0] == prefix]


def site_groups(groups: Groups, source: str) -> dict[str, xr.Dataset]:
    """Groups of a source by site."""
    return {site_of(path): groups[path] for path in paths_of(groups, source)}


def needed_group(groups: Groups, path: str, *, remedy: str) -> xr.Dataset:
    """A group that something is made of.

    Raises
    ------
    MissingError
        It is not there.
    """
    if path not in groups:
        what = f"no group {path!r} in the store"
        raise MissingError(problem(what, found=listed(list(groups)), remedy=remedy))
    return groups[path]


def variables_of(groups: Groups, group: str, names: Sequence[str]) -> xr.Dataset:
    """A group, or those of its variables that are named.

    Raises
    ------
    MissingError
        There is no such group, or no such variable.
    """
    dataset = groups[group]
    unknown = [name for name in names if name not in dataset.variables]
    if unknown:
        remedy = meant(unknown[0], dataset.variables)
        raise MissingError(problem(f"no variable {unknown[0]!r}", where=group, remedy=remedy))
    return dataset[list(names)] if names else dataset


def first_source(
    groups: Iterable[str], sources: Iterable[str], *, able: Callable[[str], bool] | None = None
) -> list[str]:
    """Paths of the first source that is there; with `able`, of its groups that are."""
    there = list(groups)
    for source in sources:
        found = [path for path in paths_of(there, source) if able is None or able(path)]
        if found:
            return found
    return []


def meant_source(groups: Iterable[str], source: str | None) -> str:
    """Which source a name that is none may have meant; empty where none is named, or there."""
    there = {split_group(path)[0] for path in groups}
    known = [prefix for prefix in STATISTICS if prefix in there]
    return meant(source, known) if source and known else ""


def choose_source(groups: Iterable[str], source: str | None = None) -> str:
    """Source that analyses are asked of: `source`, or else the preferred one there is.

    Raises
    ------
    MissingError
        The store holds no statistics, or not those of `source`.
    """
    groups = list(groups)
    there = {split_group(path)[0] for path in groups}
    known = [prefix for prefix in preferred("analyses") if prefix in there]
    chosen = prefix_of(source) if source else next(iter(known), "")
    if not chosen or chosen not in there:
        what = f"no statistics {source or ''}".rstrip()
        remedy = "taqstore collect STORE, or taqstore ingest, brings them"
        remedy += "; or name a source that is there" if known else ""
        found = listed(known) if known else ""
        near = nearest(source, known) if source else ""
        remedy = f"did you mean {near}? Else {remedy}" if near else remedy
        raise MissingError(problem(what, found=found, remedy=remedy))
    return chosen


def choose_groups(
    groups: Iterable[str],
    source: str | None = None,
    *,
    sites: Sequence[str] = (),
    layer: str | None = None,
) -> list[str]:
    """Paths to ask: of the source's `sites`, or of the sites that `layer` names, or of all.

    Raises
    ------
    MissingError
        No such source, or none of its groups is of the site.
    MisuseError
        No site is called so.
    """
    there = list(groups)
    prefix = choose_source(there, source)
    by_site = {site_of(path): path for path in paths_of(there, prefix)}
    wanted = list(sites) or _sites_named(layer, list(by_site))
    for site in sites:
        if site not in by_site and tensor_site(site) not in EVERY_SITE:
            word_of(site, by_site, "site")
    unknown = [site for site in wanted if site not in by_site]
    if unknown or not wanted:
        what = f"no site {unknown[0]!r}" if unknown else f"no site of layer {layer}"
        remedy = meant(unknown[0] if unknown else "", by_site)
        raise MissingError(problem(what, where=prefix, remedy=remedy))
    return [path for site, path in by_site.items() if site in wanted]


def _sites_named(layer: str | None, every: list[str]) -> list[str]:
    """Sites that layer spellings name (`mm_00_img` is an mlp.fc2 input); a glob means all."""
    texts = [text for text in (layer or "").split(",") if text]
    named = {parse_layer(text).site for text in texts if not any(c in text for c in _GLOB)}
    if not named or "" in named:
        return every
    return [site for site in every if named & {site, tensor_site(site)}]


def each_able(
    ask: Callable[[_Asked], Iterable[_Answer]],
    every: Iterable[_Asked],
    *,
    on_skip: Callable[[str], object] | None = None,
) -> Iterator[_Answer]:
    """What all can answer; those that lack something are passed over unless all do.

    A shift exists after GELU only, and a layer is of some sites only: one site that cannot answer
    must not cost the answers of the others.

    Parameters
    ----------
    ask
        Gives the answers of one of `every`, or raises MissingError.
    on_skip
        Called with a line on each that is passed over.

    Raises
    ------
    MissingError
        None can answer; what the first one lacks, or the first that knows what was meant.
    """
    first: MissingError | None = None
    answered = False
    for one in every:
        try:
            for answer in ask(one):
                answered = True
                yield answer
        except MissingError as error:
            if first is None or (_MEANT in str(error) and _MEANT not in str(first)):
                first = error
            if on_skip is not None:
                on_skip(str(error))
    if first is not None and not answered:
        raise first


def answers(
    ask: Callable[[str], _Answer],
    paths: Iterable[str],
    *,
    on_skip: Callable[[str], object] | None = None,
) -> dict[str, _Answer]:
    """Answer by path, as of `each_able`."""
    return dict(each_able(lambda path: [(path, ask(path))], paths, on_skip=on_skip))


def slices(groups: Groups, paths: Iterable[str], selection: Selection) -> dict[str, xr.Dataset]:
    """Groups sliced by options of `query.select`, without those that lack the layers asked for.

    Raises
    ------
    MissingError
        All do.
    """
    return answers(lambda path: select(groups[path], site=site_of(path), **selection), paths)
