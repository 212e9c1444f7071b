"""Groups that exist already: more images or batches, and what a mended source says anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.layout.template import Template
from taqstore.names import COMMIT, RECORD, WRITTEN
from taqstore.store.groups import (
    GROWING,
    as_stored,
    dimension_names,
    equal,
    holding,
    read_coordinate,
)

if TYPE_CHECKING:
    import zarr


IDENTITY = "id"
"""Attribute of a group that whoever made it has given it: of two that begin it at once, one."""


def grow_group(group: zarr.Group, template: Template, done: np.ndarray) -> None:
    """Add the template's new images or batches; refresh what says nothing of written items."""
    _refresh_attributes(group, template)
    _refresh_coordinates(group, template, done)
    dim = next((d for d in template.item_dims if d in GROWING), None)
    if dim is None:
        return
    labels = read_coordinate(group, dim)[: done.shape[0]]
    wanted = np.asarray(template.coords[dim][1])
    fresh = wanted[~np.isin(wanted, labels)]
    total = len(labels) + len(fresh)
    for array in _arrays_along(group, dim):
        axis = dimension_names(array).index(dim)
        shape = (*array.shape[:axis], total, *array.shape[axis + 1 :])
        if array.basename != WRITTEN and array.shape != shape:
            array.resize(shape)
    _write_growing_coordinates(group, template, dim, np.concatenate([labels, fresh]), done)
    for name in (WRITTEN, RECORD, COMMIT):
        flags: Any = group[name]
        if flags.shape[0] != total:
            flags.resize((total, *flags.shape[1:]))


def _refresh_attributes(group: zarr.Group, template: Template) -> None:
    """Keep the documents of the latest source: a mended one may say more."""
    fresh = {n: v for n, v in template.attrs.items() if n != IDENTITY or n not in group.attrs}
    if any(group.attrs.get(name) != value for name, value in fresh.items()):
        group.update_attributes(fresh)


def _refresh_coordinates(group: zarr.Group, template: Template, done: np.ndarray) -> None:
    """Take over what a mended source says of steps that hold no data yet."""
    for name, (dims, values) in template.coords.items():
        known = holding(done, template, dims)
        if dims == (name,) or dims[0] in GROWING or isinstance(known, slice):
            continue
        fresh = np.where(known, read_coordinate(group, name), as_stored(np.asarray(values)))
        _update(group, name, fresh)


def _arrays_along(group: zarr.Group, dim: str) -> list[Any]:
    return [a for _, a in group.arrays() if dim in dimension_names(a)]


def _write_growing_coordinates(
    group: zarr.Group, template: Template, dim: str, labels: np.ndarray, done: np.ndarray
) -> None:
    _update(group, dim, labels)
    flagged = np.zeros(len(labels), dtype=bool)
    flagged[: len(done)] = done.reshape(len(done), -1).any(axis=1)
    position = {int(label): i for i, label in enumerate(labels)}
    wanted = np.asarray(template.coords[dim][1])
    where = np.array([position[int(label)] for label in wanted], dtype=np.int64)
    for name, (dims, values) in template.coords.items():
        if name == dim or dims[:1] != (dim,):
            continue
        stored = read_coordinate(group, name)
        new = as_stored(np.asarray(values))
        stored[where[~flagged[where]]] = new[~flagged[where]]
        _update(group, name, stored)


def _update(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Write a coordinate that changed; one that did not is left alone, file and all."""
    if not equal(read_coordinate(group, name), values):
        import zarr

        # zarr keeps no chunk that is all fill, whatever was asked for when the array was made: an
        # array takes this setting when it is opened.
        with zarr.config.set({"array.write_empty_chunks": True}):
            array: Any = group[name]
        array[...] = values


def match_items(
    group: zarr.Group, template: Template, *, missing: bool = False
) -> Mapping[str, np.ndarray]:
    """For each growing item dim: the store's position of every template position, by label.

    With `missing`, a label that the store lacks is at -1.
    """
    found = {}
    for dim in template.item_dims:
        if dim in GROWING:
            labels = read_coordinate(group, dim)
            position = {int(label): i for i, label in enumerate(labels)}
            wanted = np.asarray(template.coords[dim][1])
            places = [position.get(int(label), -1) for label in wanted]
            if -1 in places and not missing:
                raise KeyError(int(wanted[places.index(-1)]))
            found[dim] = np.array(places, dtype=np.int64)
    return found
