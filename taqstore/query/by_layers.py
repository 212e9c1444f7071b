"""Answers told now, some layers of a site at a time: without dask, and in little memory.

A question whose answer for a layer needs no other layer (`by_layer` of its row) is asked of blocks
of layers, each read once and let go. The lazy way, `query.analyze`, gives the same numbers: it
serves every other question, and whoever computes later or elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import xarray as xr

from taqstore.analysis.table import ANALYSES
from taqstore.arrays.lazy import cut, read_once, without_dask
from taqstore.errors import MissingError
from taqstore.faces import named
from taqstore.names import site_of
from taqstore.query.analyze import Results, asked_of, asking
from taqstore.query.select import select
from taqstore.query.sites import answers
from taqstore.run.dealing import Each

_LAYER = "layer"
# Parts of wide questions are as many times smaller.
_WIDE = 2

_Part: TypeAlias = tuple[str, "xr.Dataset | MissingError"]
Check: TypeAlias = Callable[[xr.Dataset, Mapping[str, int]], object]


def told(
    name: str,
    groups: Mapping[str, xr.Dataset],
    each: Each,
    *,
    check: Check | None = None,
    source: str | None = None,
    sites: Sequence[str] = (),
    selection: Mapping[str, str | None] | None = None,
    **options: Any,
) -> Results | None:
    """Answers of `query.analyze` in memory; None where they are not to be had layer by layer.

    Parameters
    ----------
    each
        Who asks the blocks, in this process: see `run.dealing`.
    check
        Shown the answer of each site's first block and how many layers the site has, before
        others are asked: what cannot be given is refused then, by what it raises.
    name, groups, source, sites, selection, options
        As of `query.analyze`, with the same errors.
    """
    row, chosen = ANALYSES[name], selection or {}
    if not row.is_by_layer(options):
        return None
    paths = asked_of(name, groups, source, sites, chosen)
    asked = {path: _asked(groups, path, chosen) for path in paths}
    share = _WIDE if row.wide else 1
    cuts = {path: _cut(dataset, share) for path, dataset in asked.items()}
    if any(parts is None for parts in cuts.values()):
        return None
    ask = asking(named(row.apart) if row.apart else row.load(), options)
    with without_dask():
        found: dict[str, list[xr.Dataset | MissingError]] = {path: [] for path in paths}
        parts = _blocks(cuts)
        for most in (1, None):  # the first of every site, then all others
            for path, part in each(partial(_told, ask), parts(most)):
                found[path].append(part)
                if most and check and not row.joint and not isinstance(part, MissingError):
                    check(part, _layers_of(asked[path]))
        results = answers(lambda path: _joined(found[path]), paths)
        return named(row.joint)(results, **options) if row.joint else results


def _asked(
    groups: Mapping[str, xr.Dataset], path: str, selection: Mapping[str, str | None]
) -> xr.Dataset | MissingError:
    try:
        return select(groups[path], site=site_of(path), **selection)
    except MissingError as error:
        return error


def _cut(
    dataset: xr.Dataset | MissingError, share: int
) -> Iterable[xr.Dataset | MissingError] | None:
    return [dataset] if isinstance(dataset, MissingError) else cut(dataset, _LAYER, share=share)


def _blocks(
    cuts: Mapping[str, Iterable[xr.Dataset | MissingError] | None],
) -> Callable[[int | None], Iterator[_Part]]:
    """Gives the next blocks of every site, so many of each; None: all that are left."""
    left = {path: iter(parts or ()) for path, parts in cuts.items()}
    return lambda most: ((path, part) for path in left for part in islice(left[path], most))


def _told(ask: Callable[[str, xr.Dataset], xr.Dataset], part: _Part) -> _Part:
    path, dataset = part
    if isinstance(dataset, MissingError):
        return part
    try:
        return path, ask(path, read_once(dataset)).load()
    except MissingError as error:
        return path, error


def _layers_of(dataset: xr.Dataset | MissingError) -> dict[str, int]:
    return {} if isinstance(dataset, MissingError) else {_LAYER: dataset.sizes[_LAYER]}


def _joined(parts: Sequence[xr.Dataset | MissingError]) -> xr.Dataset:
    """Answers of blocks as that of their site; what a block lacks, the site does."""
    found = []
    for part in parts:
        if isinstance(part, MissingError):
            raise part
        found.append(part)
    if len(found) == 1:
        return found[0]
    joined = xr.concat(
        found,
        _LAYER,
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    return joined[list(found[0].variables)]
