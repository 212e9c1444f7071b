"""What is chosen of a store: whole groups, or of each the layers, steps, blocks and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import xarray as xr

from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.names import EVERY_SITE, kind_of, parse_site, site_of
from taqstore.query.select import select
from taqstore.store.naming import path_in_store
from taqstore.store.reader import Store
from taqstore.together.cut import cut
from taqstore.together.parts import Part
from taqstore.together.united import UNITED

_GLOB = "*?["


@dataclass(frozen=True)
class Choice:
    """What is chosen of a store; nothing said is all of it.

    Parameters
    ----------
    groups
        Keys of groups, globs over them, or what keys begin with (`activations`).
    sites
        Sites, by any spelling. Groups that are of no site are left out, unless `groups` name them.
    layer, step, block, image
        As of `query.select`. A group that has no such dimension is taken whole.
    """

    groups: Sequence[str] = ()
    sites: Sequence[str] = ()
    layer: str | None = None
    step: str | None = None
    block: str | None = None
    image: str | None = None

    def paths(self, store: Store) -> list[str]:
        """Groups of a store that are chosen, cut or not.

        Raises
        ------
        MissingError
            One that is named is not there, or nothing is left.
        """
        there = list(store.paths)
        named = [path for text in self.groups for path in _named(text, there, store)]
        chosen = sorted(dict.fromkeys(named)) if self.groups else there
        sites = {_site(text, there) for text in self.sites}
        if sites:
            chosen = [p for p in chosen if _is_of(p, sites) or (named and not _has_site(p))]
        if not chosen:
            remedy = meant(next(iter(sites), ""), dict.fromkeys(map(site_of, there)))
            what = "nothing of the store is chosen" if there else "the store has no group"
            raise MissingError(problem(what, where=str(store.location), remedy=remedy))
        return chosen

    def of(self, part: Part) -> Part:
        """A group cut to what is chosen of it.

        Raises
        ------
        MissingError
            That is nothing; the message names what there is.
        MisuseError
            An option cannot be read.
        LayoutError
            What is chosen cannot be told apart in the group.
        """
        wanted = self.meant_in(part)
        if not wanted:
            return part
        labels = _labels(part)
        kept = select(labels, site=site_of(part.template.path), **wanted)
        positions = {dim: kept[_at(dim)].values for dim in part.template.sizes if _at(dim) in kept}
        fewer = {d: at for d, at in positions.items() if len(at) < part.template.sizes[d]}
        return cut(part, fewer) if fewer else part

    @property
    def asked(self) -> dict[str, str]:
        """What was said of dimensions, by option."""
        every = {name: getattr(self, name) for name in ("layer", "step", "block", "image")}
        return {name: text for name, text in every.items() if text is not None}

    def meant_in(self, part: Part) -> dict[str, str]:
        """Options that mean something in a group."""
        dims = {dim for array in part.template.arrays for dim in array.dims}
        coords = part.template.coords
        images = "image" in coords and kind_of(part.template.path) not in UNITED
        along = {
            "layer": "layer" in dims,
            "step": "step" in dims,
            "block": bool({"boundary", "block"} & dims) or ("block" in coords and "layer" in dims),
            # Judged images have numbers of their own.
            "image": images,
        }
        return {name: text for name, text in self.asked.items() if along[name]}


def _named(text: str, there: Sequence[str], store: Store) -> list[str]:
    """Groups that one text means."""
    plain = text.strip("/")
    if any(sign in plain for sign in _GLOB):
        found = [path for path in there if fnmatchcase(path, plain)]
    elif plain in there:
        found = [plain]
    else:
        found = [path for path in there if path.startswith(f"{plain}/")]
        found = found or list(filter(None, [path_in_store(plain, there)]))
    if not found:
        what, remedy = f"no group {text!r}", meant(plain, there)
        raise MissingError(problem(what, where=str(store.location), remedy=remedy))
    return found


def _site(text: str, there: Sequence[str]) -> str:
    try:
        return parse_site(text)
    except MissingError as error:
        near = meant(text, dict.fromkeys(map(_base, filter(_has_site, there))))
        raise MissingError(problem(f"no site {text!r}", remedy=near)) from error


def _has_site(path: str) -> bool:
    return _base(path) in EVERY_SITE


def _is_of(path: str, sites: set[str]) -> bool:
    return site_of(path) in sites or (_has_site(path) and _base(path) in sites)


def _base(path: str) -> str:
    """The site of a group without a width: `mlp.fc2` of `weights/gptq/mlp.fc2.o64`."""
    return ".".join(site_of(path).split(".")[:2])


def _at(dim: str) -> str:
    return f"position of {dim}"


def _labels(part: Part) -> xr.Dataset:
    """Coordinates of a group, and for each of its dimensions the positions along it."""
    template = part.template
    dims = {dim for array in template.arrays for dim in array.dims} | {*template.item_dims}
    data = {_at(dim): (dim, np.arange(template.sizes[dim])) for dim in dims}
    coords = {name: (given, values) for name, (given, values) in template.coords.items()}
    return xr.Dataset(data, coords)
