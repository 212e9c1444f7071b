"""A group of a store cut along its dimensions: what is left is a group of the same kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, problem
from taqstore.together.parts import Part

_BY_LAYER = ("linears",)
"""Attributes that are objects by layer."""


def cut(part: Part, positions: Mapping[str, np.ndarray]) -> Part:
    """A part without what lies beside these positions.

    Parameters
    ----------
    positions
        Along each dimension that is cut, ascending: indices of the part's template.

    Raises
    ------
    LayoutError
        An item would be cut in two that is not the only one.
    """
    template = part.template
    for dim in positions:
        extent = template.item_extent(dim)
        if dim in template.item_dims and 1 < extent < template.sizes[dim]:
            raise LayoutError(
                problem(f"its items hold several indices of {dim}", where=template.path)
            )
    taken = {d: part.positions(d)[at] for d, at in positions.items() if d != part.grows}
    coords = {
        name: (dims, _taken(np.asarray(values), dims, positions))
        for name, (dims, values) in template.coords.items()
    }
    sizes = {**template.sizes, **{dim: len(at) for dim, at in positions.items()}}
    attrs = _attributes(template.attrs, coords) if "layer" in positions else template.attrs
    return replace(
        part,
        template=replace(template, sizes=sizes, coords=coords, attrs=attrs),
        places=_taken(part.places, (part.grows,), positions),
        mask=_taken(part.mask, tuple(template.item_dims), positions),
        taken={**part.taken, **taken},
    )


def _taken(
    values: np.ndarray, dims: tuple[str, ...], positions: Mapping[str, np.ndarray]
) -> np.ndarray:
    for axis, dim in enumerate(dims):
        if dim in positions:
            values = np.take(values, positions[dim], axis=axis)
    return values


def _attributes(attrs: Mapping[str, Any], coords: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that are by layer, of the layers that are left."""
    layers = set(map(str, coords["layer"][1]))
    kept = dict(attrs)
    for name in _BY_LAYER:
        if isinstance(kept.get(name), Mapping):
            kept[name] = {layer: v for layer, v in kept[name].items() if layer in layers}
    return kept
