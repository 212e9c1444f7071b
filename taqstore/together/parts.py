"""Groups of several stores side by side: what each holds, how they differ, what they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.store_array import ArrayReader
from taqstore.errors import LayoutError, problem
from taqstore.layout.template import Array, Template
from taqstore.names import VARIABLES, WRITTEN
from taqstore.place.backend import Backend
from taqstore.store.groups import GROWING, dimension_names, equal, read_coordinate
from taqstore.store.opening import Way

if TYPE_CHECKING:
    import zarr

    from taqstore.store.reader import Store

CONFIGURATION = (
    "model",
    "model_version",
    "weights",
    "dtype",
    "use_t5",
    "steps",
    "num_steps",
    "shift",
    "cfg_weight",
    "cfg_scale",
    "negative_prompt",
    "latent_size",
    "format",
    "block_names",
    "block_shapes",
)
"""What documents and runs say of the model and its settings; the rest tells runs apart."""
_COUNTS = ("num_images", "n_completed", "n_samples", "samples", "images", "selected_image_ids")
_OWN = ("coordinates", "taqstore")
_CHECKED: Way = (None, True, True)


@dataclass(frozen=True)
class Part:
    """One group of one store, cut to the images or batches that hold data, or further.

    Parameters
    ----------
    store
        Address of the store, for messages.
    node
        The Zarr group.
    template
        What it holds.
    places
        Position in the store of each image or batch of the template, or of what else its items
        begin with.
    mask
        Their flags, over the item dims.
    lazy
        Gives its arrays by name, read in a way.
    backend
        Where its bytes lie.
    taken
        Positions in the store along other dimensions that were cut.
    """

    store: str
    node: zarr.Group
    template: Template
    places: np.ndarray
    mask: np.ndarray
    lazy: Callable[[str, Way], ArrayReader]
    backend: Backend
    taken: Mapping[str, np.ndarray] = field(default_factory=dict)

    def array(self, name: str, way: Way = _CHECKED) -> ArrayReader:
        """One of its arrays as it lies in the store; as it is read, it is checked."""
        return self.lazy(name, way)

    @property
    def grows(self) -> str:
        """The dimension that merging concatenates along."""
        return self.template.item_dims[0]

    @property
    def labels(self) -> np.ndarray:
        """Image ids or batch labels."""
        return np.asarray(self.template.coords[self.grows][1])

    @property
    def images(self) -> np.ndarray:
        """Image ids ``(item, slot)``; -1 where a slot is empty."""
        values = np.asarray(self.template.coords["image"][1])
        return values.reshape(len(values), math.prod(values.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Uncompressed size of its data."""
        shapes = ((a, self.template.shape(a)) for a in self.template.arrays)
        return sum(int(np.prod(shape)) * np.dtype(a.dtype).itemsize for a, shape in shapes)

    def positions(self, dim: str) -> np.ndarray:
        """Position in the store of each index of the template along a dimension."""
        if dim == self.grows:
            return self.places
        return self.taken.get(dim, np.arange(self.template.sizes[dim]))

    def holds(self, key: str) -> bool:
        """Whether the store has a file, by its key below the group."""
        return self.backend.size(f"{self.template.path}/{key}") is not None

    def taking(self, kept: np.ndarray) -> Part:
        """The images or batches where the mask `kept` is true."""
        sizes = {**self.template.sizes, self.grows: int(kept.sum())}
        coords = {
            name: (dims, values[kept] if self.grows in dims else values)
            for name, (dims, values) in self.template.coords.items()
        }
        template = replace(self.template, sizes=sizes, coords=coords)
        return replace(self, template=template, places=self.places[kept], mask=self.mask[kept])

    def renumbered(self, offset: int) -> Part:
        """The same with `offset` added to image ids and batch labels."""
        coords = {
            name: (dims, np.where(values >= 0, values + offset, values))
            if name in GROWING
            else (dims, values)
            for name, (dims, values) in self.template.coords.items()
        }
        return replace(self, template=replace(self.template, coords=coords))


def can_grow(store: Store, path: str) -> bool:
    """Whether a group is made of images or batches, so that it can be concatenated."""
    return dimension_names(store.node(path)[WRITTEN])[0] in GROWING


def read_part(store: Store, path: str) -> Part:
    """A group that is made of images, batches or targets, as it lies in a store.

    Raises
    ------
    LayoutError
        It is laid out in a way that whole items cannot be told apart.
    """
    part = read_any_part(store, path)
    template = part.template
    if set(template.item_size.values()) - {1}:
        raise LayoutError(problem("its items are larger than one index", where=path))
    axes = template.item_dims
    for array in template.arrays:
        if array.dims[: len(axes)] != axes:
            where = f"{path}/{array.name}"
            raise LayoutError(problem("a variable without the group's item dims", where=where))
    return part


def read_any_part(store: Store, path: str) -> Part:
    """A group as it lies in a store, of images and batches those that hold data."""
    node = store.node(path)
    mask = store.mask(path)
    marker: Any = node.attrs["taqstore"]
    item_dims = tuple(marker["item_dims"])
    places = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    if item_dims[0] not in GROWING:
        places = np.arange(len(mask))
    arrays, coords = _contents(node, path, item_dims[0], places)
    sizes = _sizes(node, item_dims, len(places))
    extents = dict(zip(item_dims, marker["item_size"], strict=True))
    template = Template(
        path=path,
        kind=marker["kind"],
        sizes=sizes,
        arrays=arrays,
        coords=coords,
        item_dims=item_dims,
        item_size={dim: extent for dim, extent in extents.items() if extent != 1},
        shard=_shards(node, arrays, sizes, extents),
        attrs={k: v for k, v in node.attrs.items() if k not in _OWN},
    )
    return Part(
        store=str(store.location),
        node=node,
        template=template,
        places=places,
        mask=mask[places],
        lazy=partial(store.array, path),
        backend=store.backend,
    )


def _contents(
    node: zarr.Group, path: str, grows: str, places: np.ndarray
) -> tuple[tuple[Array, ...], dict[str, tuple[tuple[str, ...], np.ndarray]]]:
    listed = str(node.attrs.get("coordinates", "")).split()
    every: dict[str, Any] = dict(node.arrays())
    labels = [name for name, array in every.items() if dimension_names(array) == (name,)]
    coords = {}
    for name in [*labels, *listed]:
        if name != WRITTEN:
            dims, values = dimension_names(every[name]), read_coordinate(node, name)
            coords[name] = (dims, values[places] if dims[:1] == (grows,) else values)
    data = [name for name in every if name not in {*labels, *listed}]
    unknown = [name for name in data if name not in VARIABLES]
    if unknown:
        raise LayoutError(problem(f"variable {unknown[0]!r} is not of this format", where=path))
    return tuple(_array(every[name]) for name in sorted(data)), coords


def _array(stored: Any) -> Array:
    from zarr.codecs import ZstdCodec

    dims = dimension_names(stored)
    split = None
    if stored.shards is not None:
        axes = list(zip(dims, stored.shards, stored.chunks, strict=True))
        cut = [dim for dim, shard, chunk in axes if shard != chunk]
        # A dimension of length 1 may be split without a trace; any such gives the same bytes.
        split = (cut or [dim for dim, shard, _ in axes if shard == 1])[0]
    return Array(
        stored.basename,
        dims,
        np.dtype(stored.dtype).name,
        split=split,
        compress=any(isinstance(codec, ZstdCodec) for codec in stored.compressors),
        attrs=dict(stored.attrs),
    )


def _sizes(node: zarr.Group, item_dims: tuple[str, ...], items: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for _, array in node.arrays():
        sizes.update(zip(dimension_names(array), array.shape, strict=True))
    return {**sizes, item_dims[0]: items}


def _shards(
    node: zarr.Group,
    arrays: Sequence[Array],
    sizes: Mapping[str, int],
    extents: Mapping[str, int],
) -> dict[str, int]:
    """Extent of shards where it is not what a template has by itself."""
    found = {}
    for array in arrays:
        stored: Any = node[array.name]
        for dim, extent in zip(array.dims, stored.shards or stored.chunks, strict=True):
            if extent != max(1, min(sizes[dim], extents.get(dim, sizes[dim]))):
                found[dim] = extent
    return found


def differences(first: Template, second: Template) -> list[str]:
    """Fields in which two groups cannot be one: layout, coordinates, model and settings."""
    grows = first.item_dims[:1]
    found = [
        f"{name} ({a!r} and {b!r})"
        for name, a, b in (
            ("kind", first.kind, second.kind),
            ("items", first.item_dims, second.item_dims),
            ("shards", dict(first.shard), dict(second.shard)),
        )
        if a != b
    ]
    sizes = {**first.sizes, **second.sizes}
    pairs = ((dim, first.sizes.get(dim), second.sizes.get(dim)) for dim in sizes)
    found += [f"{dim} ({a} and {b})" for dim, a, b in pairs if a != b and dim not in grows]
    found += _array_differences(first, second)
    for name in sorted({*first.coords, *second.coords}):
        if name not in first.coords or name not in second.coords:
            found.append(f"coordinate {name} (only one has it)")
            continue
        (dims, a), (_, b) = first.coords[name], second.coords[name]
        if not set(dims) & set(GROWING) and not equal(np.asarray(a), np.asarray(b)):
            found.append(name)
    return [*found, *_setting_differences(first.attrs, second.attrs)]


def _array_differences(first: Template, second: Template) -> list[str]:
    ours, theirs = ({a.name: a for a in t.arrays} for t in (first, second))
    found = [f"variable {name} (only one has it)" for name in sorted(ours.keys() ^ theirs.keys())]
    return found + [
        f"variable {name} (dtype, layout or attributes)"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name]
    ]


def _setting_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted({*first, *second}):
        a, b = first.get(name), second.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [
                f"{name}.{key} ({a.get(key)!r} and {b.get(key)!r})"
                for key in CONFIGURATION
                if a.get(key) != b.get(key)
            ]
        elif a != b and name != "id":
            found.append(f"{name} ({a!r} and {b!r})"[:200])
    return found


def joined(parts: Sequence[Part]) -> Template:
    """The group that holds the images or batches of all parts, one part's before the next one's."""
    first, grows = parts[0].template, parts[0].grows
    coords = {
        name: (dims, np.concatenate([part.template.coords[name][1] for part in parts]))
        if dims[:1] == (grows,)
        else (dims, values)
        for name, (dims, values) in first.coords.items()
    }
    sizes = {**first.sizes, grows: sum(len(part.places) for part in parts)}
    attrs = reduce(_common, (part.template.attrs for part in parts))
    return replace(first, sizes=sizes, coords=coords, attrs=attrs)


def _common(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The first's attributes; of documents only what is as true of both together."""
    kept = dict(first)
    for name, value in first.items():
        other = second.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value != other:
            # The id of the latents stays the first's: so does that of the merged latents.
            kept[name] = {k: v for k, v in value.items() if k == "latents" or v == other.get(k)}
        if name.startswith("source_") and isinstance(kept[name], Mapping):
            kept[name] = {k: v for k, v in kept[name].items() if k not in _COUNTS}
    return kept
