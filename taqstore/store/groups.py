"""Groups on disk: created from a template, compared with one, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.errors import LayoutError, StoreError, problem
from taqstore.layout.coordinate_files import MOST_STRING, decoded
from taqstore.layout.item_records import ItemLayout, mask_chunk, record_chunk
from taqstore.layout.nodes import ArrayNode, GroupNode
from taqstore.layout.shards import CODEC_ERRORS
from taqstore.layout.template import STRING, Array, Template
from taqstore.metadata.root import KEY
from taqstore.metadata.sealed import damaged
from taqstore.names import COMMIT, DIMENSIONS, ITEMS, RECORD, VARIABLES, WRITTEN

if TYPE_CHECKING:
    import zarr

GROWING = ("image", "batch")
MADE_BY = "run"
"""Attribute of a group: what made it; another configuration may not add to it."""
KEEP_OR_REPLACE = (
    "ask as it was made to go on with it, write to another store to keep what is here, "
    "or delete it with --force"
)
"""What may be done where a group was made otherwise."""
# Chunks of coordinates along a dim that grows: a file for so many labels, whatever was there when
# the group was made. zstd makes nothing of what is not used yet.
_GROWING_NUMBERS, _GROWING_TEXTS = 1 << 16, 1 << 14


def create_arrays(root: zarr.Group, template: Template) -> None:
    """Create a group with all its arrays and coordinates, still without a record of them."""
    group = root.create_group(template.path)
    for array in template.arrays:
        _create_data(group, template, array)
    for name, (dims, values) in template.coords.items():
        _create_coordinate(group, name, dims, np.asarray(values))
    sizes = tuple(template.sizes[d] for d in template.item_dims)
    extents = [template.item_extent(d) for d in template.item_dims]
    create_flags(group, template.item_dims, sizes, extents, ItemLayout.of_template(template))
    others = [n for n, (dims, _) in template.coords.items() if dims != (n,)]
    group.update_attributes({**template.attrs, "coordinates": " ".join([*others, WRITTEN])})


def create_flags(
    group: zarr.Group,
    item_dims: Sequence[str],
    sizes: Sequence[int],
    extents: Sequence[int],
    layout: ItemLayout,
) -> None:
    """`written`, and `items`: records, alone as they are committed and closed many to a file."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    # Keys like c.0.0: never those of format 1, where a flag was a file c/0/0 of its own.
    flat: Any = {"name": "default", "separator": "."}
    closed: Any = [ZstdCodec(level=3), Crc32cCodec()]
    mask = Array(WRITTEN, tuple(item_dims), "bool")
    group.create_array(
        WRITTEN,
        shape=tuple(sizes),
        dtype="bool",
        chunks=mask_chunk(sizes),
        compressors=closed,
        fill_value=False,
        chunk_key_encoding=flat,
        dimension_names=item_dims,
        attributes=mask.documentation,
        overwrite=True,
    )
    items = group.create_group(
        ITEMS, attributes={"description": "which files an item owns"}, overwrite=True
    )
    size = layout.record_bytes
    grid = tuple(-(-n // extent) for n, extent in zip(sizes, extents, strict=True))
    # Not the group's own dims: a plain reader need not align records with data.
    names = [*(f"item_{d}" for d in item_dims), "record_byte"]
    common: dict[str, Any] = {
        "shape": (*grid, size),
        "dtype": "uint8",
        "fill_value": 0,
        "dimension_names": names,
    }
    items.create_array(
        RECORD.partition("/")[2],
        chunks=record_chunk(grid, size),
        compressors=closed,
        attributes={"description": "records of items, see the format page"},
        **common,
    )
    items.create_array(
        COMMIT.partition("/")[2],
        chunks=(*(1 for _ in grid), size),
        compressors=[Crc32cCodec()],
        # One folder for all flags: it is there before the first one, and flushed alone.
        chunk_key_encoding=flat,
        attributes={"description": "records of items that were committed since the last closing"},
        **common,
    )


def _create_data(group: zarr.Group, template: Template, array: Array) -> None:
    shard, chunk = template.shard_shape(array), template.chunk_shape(array)
    sharded = array.split is not None
    _create(group, array, template.shape(array), chunks=chunk, shards=shard if sharded else None)


def _create(
    group: zarr.Group,
    array: Array,
    shape: tuple[int, ...],
    *,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
) -> zarr.Array[Any]:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return group.create_array(
        array.name,
        shape=shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=shards,
        # The filter-free, checksummed codec chain is what makes shards mappable and flips visible.
        compressors=[ZstdCodec(level=3), Crc32cCodec()] if array.compress else [Crc32cCodec()],
        fill_value=array.fill,
        dimension_names=array.dims,
        attributes=array.documentation,
        config={"write_empty_chunks": True},
    )


def _create_coordinate(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: np.ndarray
) -> None:
    dtype = STRING if values.dtype.kind in "UOT" else values.dtype.newbyteorder("<").str
    attrs = {} if name in VARIABLES else {"description": DIMENSIONS.get(name, name)}
    grows = bool(set(dims) & set(GROWING))
    spec = _Coordinate(name, dims, dtype, compress=grows, attrs=attrs)
    room = _GROWING_TEXTS if dtype == STRING else _GROWING_NUMBERS
    chunks = tuple(
        room if d in GROWING else max(1, n) for d, n in zip(dims, values.shape, strict=True)
    )
    array = _create(group, spec, values.shape, chunks=chunks)
    if values.size:
        array[...] = values.astype(object) if dtype == STRING else values


class _Coordinate(Array):
    """A coordinate: documented by its dimension where it has no entry of its own."""

    @property
    def documentation(self) -> dict[str, Any]:
        return super().documentation if self.name in VARIABLES else dict(self.attrs)


def read_coordinate(group: zarr.Group | GroupNode, name: str) -> np.ndarray:
    """A coordinate's values; strings as an object array of str.

    Raises
    ------
    StoreError
        Its bytes are damaged.
    """
    try:
        values = group.values(name) if isinstance(group, GroupNode) else _by_zarr(group, name)
    except CODEC_ERRORS as error:
        raise StoreError(
            problem(
                "damaged coordinate",
                where=f"{group.path}/{name}",
                found=str(error),
                remedy="see taqstore verify, then taqstore repair",
            )
        ) from error
    if values.dtype.kind not in "TO":
        return values
    texts = values.astype(object)
    if (longest := longest_of(texts)) > MOST_STRING:
        raise damaged(
            f"{group.path}/{name}", f"a string of {longest} characters", "damaged coordinate"
        )
    return texts


def _by_zarr(group: zarr.Group, name: str) -> np.ndarray:
    """Values of a coordinate; zarr is not asked where its files are in memory."""
    from taqstore.metadata.overlay import Overlay

    store, path, found = group.store, f"{group.path}/{name}", None
    if isinstance(store, Overlay) and (raw := store.known.get(f"{path}/{KEY}")) is not None:
        found = decoded(path, json.loads(raw), store.known)
    return np.asarray(group[name][...]) if found is None else found  # type: ignore[index]


def longest_of(texts: np.ndarray) -> int:
    """Characters of the longest of some strings."""
    return max(map(len, texts.flat), default=0)


def dimension_names(array: Any) -> tuple[str, ...]:
    """Names of an array's dimensions; empty where it has none."""
    if isinstance(array, ArrayNode):
        return array.dimension_names
    return tuple(array.metadata.dimension_names or ())


def check_compatible(group: zarr.Group, template: Template, done: np.ndarray) -> None:
    """Compare an existing group, of which `done` is the mask, with a template.

    Raises
    ------
    LayoutError
        They differ; every differing field is named.
    """
    arrays, coords = (
        array_differences(group, template),
        _coordinate_differences(group, template, done),
    )
    differing = [*_run_differences(group, template), *arrays, *coords]
    if differing:
        raise LayoutError(
            problem(
                f"the store's group differs from what is to be written in {'; '.join(differing)}",
                where=template.path,
                remedy=KEEP_OR_REPLACE,
            )
        )


def _run_differences(group: zarr.Group, template: Template) -> list[str]:
    """Settings that differ: where two begin a group at once, the second finds those of the first.

    Whoever finds the group there has compared them before, and named each.
    """
    stored, asked = group.attrs.get(MADE_BY), template.attrs.get(MADE_BY)
    return [] if stored is None or asked is None or stored == asked else ["settings of the run"]


def array_differences(group: zarr.Group, template: Template) -> list[str]:
    """What of a group's arrays is not as a template says, dims that grow left out."""
    marker: Any = group.attrs["taqstore"]
    found = [] if marker["kind"] == template.kind else [f"kind {marker['kind']}"]
    for array in template.arrays:
        stored: Any = group.get(array.name)
        if stored is None:
            found.append(f"variable {array.name} missing in the store")
            continue
        wanted = {d: template.sizes[d] for d in array.dims if d not in GROWING}
        actual = dict(zip(dimension_names(stored), stored.shape, strict=True))
        sizes = {d: n for d, n in actual.items() if d not in GROWING}
        if sizes != wanted:
            found.append(f"{array.name} shape (store {sizes}, source {wanted})")
        elif array.dtype != STRING and stored.dtype != np.dtype(array.dtype):
            found.append(f"{array.name} dtype (store {stored.dtype}, source {array.dtype})")
        elif (stored.shards or stored.chunks) != template.shard_shape(array):
            shards = f"store {stored.shards or stored.chunks}, source {template.shard_shape(array)}"
            found.append(f"{array.name} shards ({shards})")
    return found


def _coordinate_differences(group: zarr.Group, template: Template, done: np.ndarray) -> list[str]:
    found = []
    for name, (dims, values) in template.coords.items():
        if name not in group:
            found.append(f"coordinate {name} missing in the store")
            continue
        stored, wanted = read_coordinate(group, name), as_stored(np.asarray(values))
        grow = next((d for d in dims if d in GROWING), None)
        if grow is None:
            known = slice(None) if dims == (name,) else holding(done, template, dims)
            if stored.shape != wanted.shape or not equal(stored[known], wanted[known]):
                found.append(f"{name} (store {_brief(stored)}, source {_brief(wanted)})")
            continue
        if name == grow:
            continue
        old, new = _shared(group, template, grow, done)
        if not equal(stored[old], wanted[new]):
            found.append(f"{name} of {grow}s already written")
    return found


def holding(done: np.ndarray, template: Template, dims: tuple[str, ...]) -> Any:
    """Where a coordinate belongs to items that hold data: its other values may still change."""
    if dims[:1] != dims or dims[0] not in template.item_dims:
        return slice(None)
    axis = template.item_dims.index(dims[0])
    return done.any(axis=tuple(i for i in range(done.ndim) if i != axis))


def _shared(
    group: zarr.Group, template: Template, dim: str, done: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (in the store, in the template) of labels that both have and that hold data."""
    stored = read_coordinate(group, dim)[: done.shape[0]]
    flagged = np.asarray(done.reshape(done.shape[0], -1).any(axis=1))
    wanted = np.asarray(template.coords[dim][1])
    _, old, new = np.intersect1d(stored, wanted, return_indices=True)
    return old[flagged[old]], new[flagged[old]]


def as_stored(values: np.ndarray) -> np.ndarray:
    """Coordinate values in the dtype they are read back with."""
    return values.astype(object) if values.dtype.kind in "UOT" else values


def equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Same shape, dtype and values; NaN equals NaN."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def _brief(values: np.ndarray) -> str:
    text = ", ".join(str(v) for v in values.ravel()[:4])
    return f"{values.dtype}[{text}{', ...' if values.size > 4 else ''}]"
