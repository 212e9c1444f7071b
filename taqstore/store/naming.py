"""What a store calls a layer, a block, a site or a group, by any spelling of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from taqstore.asked import listed, meant
from taqstore.errors import MissingError, problem
from taqstore.names import (
    ACTIVATIONS,
    LayerName,
    parse_block,
    parse_layer,
    parse_site,
    site_of,
    split_group,
    tensor_site,
    weight_layer,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    import xarray as xr

_T = TypeVar("_T")
Layers = Callable[[str], "Collection[str]"]
"""Labels of the layers of a group; empty where it has none."""


def name_in_store(text: str, paths: Iterable[str], layers: Layers, *, where: str) -> str:
    """Name by which a store is asked for something: see `Store.name`.

    Raises
    ------
    MissingError
        The spelling is not known, or the store has nothing of this name.
    """
    there, plain = list(paths), text.strip("/")
    if found := path_in_store(plain, there):
        return found
    if (site := _tried(parse_site, plain)) is not None:
        return _site_in_store(site, there, where)
    layer = _tried(parse_layer, plain) or weight_layer(plain)
    if layer is not None:
        return _layer_in_store(layer, there, layers, where)
    if (block := _tried(parse_block, plain)) is not None:
        return _block_in_store(block, there, layers, where)
    what = f"{text!r} is no spelling of a group, a site, a layer or a block"
    remedy = "write it like activations/mlp.fc2, mlp.fc2, mm0.img, mm0.img.attn.k_proj or mm0"
    raise MissingError(problem(what, where=where, found=listed(there), remedy=remedy))


def path_in_store(text: str, paths: Iterable[str]) -> str:
    """Key of the group that is meant: `postgelu/fc2` is `pooled/postgelu/mlp.fc2`; or empty."""
    there = list(paths)
    if text in there:
        return text
    source, site = split_group(text)
    last = _tried(parse_site, site) or site
    found = [path for path in there if f"/{path}".endswith(f"/{source}/{last}")]
    return found[0] if source and len(found) == 1 else ""


def name_in_group(text: str, group: xr.Dataset, path: str) -> str:
    """Label of a layer, linear, block or site as one group has it.

    Parameters
    ----------
    group
        With a dimension `layer`, `target` or `block`.
    path
        Its key in the store.

    Raises
    ------
    MissingError
        The spelling is not known, or the group has no such label.
    """
    for dim, names in _meant(text).items():
        if dim not in group.dims:
            continue
        labels = list(map(str, group[dim].values))
        for name in names:
            if name in labels:
                return name
        what = f"no {dim} {text!r}"
        raise MissingError(problem(what, where=path, remedy=meant(text, labels)))
    what, found = "nothing is called by a layer or a block here", ", ".join(map(str, group.dims))
    raise MissingError(problem(what, where=path, found=found))


def _meant(text: str) -> Mapping[str, list[str]]:
    """What a text may be called, by the dimension whose label that is; the likeliest first."""
    layer = _tried(parse_layer, text) or weight_layer(text)
    block, site = _tried(parse_block, text), _tried(parse_site, text)
    if layer is None and block is None and site is None:
        what = f"{text!r} is no spelling of a layer, a block or a site"
        remedy = "write it like mm0.img, mm0.img.attn.k_proj, mm0 or mlp.fc2"
        raise MissingError(problem(what, remedy=remedy))
    linears = [] if layer is None else [layer.full, layer.input.full, layer.block]
    layers = [] if layer is None else [layer.layer, layer.input.layer]
    blocks = [block] if block is not None else [layer.block] if layer is not None else []
    sites = [site] if site is not None else []
    return {"layer": layers, "target": [*linears, *blocks, *sites], "block": blocks}


def _site_in_store(site: str, paths: list[str], where: str) -> str:
    sites = list(dict.fromkeys(site_of(path) for path in paths))
    of_tensor = [found for found in sites if tensor_site(found) == site]
    if site in sites or len(of_tensor) == 1:
        return site if site in sites else of_tensor[0]
    what = f"{site} is in several groups, of one width each" if of_tensor else f"no site {site}"
    raise MissingError(problem(what, where=where, remedy=meant(site, of_tensor or sites)))


def _layer_in_store(name: LayerName, paths: list[str], layers: Layers, where: str) -> str:
    """Label of a layer; of a linear that some groups label by what it reads, as `layer` prefers."""
    sited = [path for path in paths if not name.site or tensor_site(site_of(path)) == name.site]
    sited.sort(key=lambda path: split_group(path)[0] != ACTIVATIONS)
    seen: dict[str, None] = {}
    for path in sited:
        labels = layers(path)
        for label in (name.layer, name.input.layer if name.site else ""):
            if label in labels:
                return label
        seen |= dict.fromkeys(labels)
    raise MissingError(
        problem(f"no layer {name.full}", where=where, remedy=meant(name.layer, seen or paths))
    )


def _block_in_store(block: str, paths: list[str], layers: Layers, where: str) -> str:
    seen: dict[str, None] = {}
    for path in paths:
        blocks = dict.fromkeys(label.partition(".")[0] for label in layers(path))
        if block in blocks:
            return block
        seen |= {name: None for name in blocks if _tried(parse_block, name)}
    raise MissingError(
        problem(f"no block {block}", where=where, remedy=meant(block, seen or paths))
    )


def _tried(parse: Callable[[str], _T], text: str) -> _T | None:
    try:
        return parse(text)
    except MissingError:
        return None
