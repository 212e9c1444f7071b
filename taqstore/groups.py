"""Groups on disk: created from a template, compared with one, grown along image or batch."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c

from taqstore.errors import LayoutError, StoreError, problem
from taqstore.names import DIMENSIONS, VARIABLES, WRITTEN
from taqstore.template import STRING, Array, Template

if TYPE_CHECKING:
    import zarr

GROWING = ("image", "batch")
# What zarr's codecs raise on damaged bytes; anything else is a bug and keeps its traceback.
CODEC_ERRORS = (ValueError, RuntimeError, OSError, EOFError)


def create_arrays(root: zarr.Group, template: Template) -> zarr.Group:
    """Create a group with all its arrays and coordinates; its `taqstore` attribute comes last."""
    group = root.create_group(template.path, overwrite=True)
    for array in template.arrays:
        _create_data(group, template, array)
    for name, (dims, values) in template.coords.items():
        _create_coordinate(group, name, dims, np.asarray(values))
    mask = Array(WRITTEN, template.item_dims, "bool")
    sizes = tuple(template.sizes[d] for d in template.item_dims)
    _create(group, mask, sizes, chunks=template.mask_chunk())
    others = [n for n, (dims, _) in template.coords.items() if dims != (n,)]
    marker = {
        "kind": template.kind,
        "version": 1,
        "item_dims": list(template.item_dims),
        "item_size": [template.item_extent(d) for d in template.item_dims],
    }
    group.update_attributes(
        {**template.attrs, "coordinates": " ".join([*others, WRITTEN]), "taqstore": marker}
    )
    return group


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
    spec = _Coordinate(name, dims, dtype, attrs=attrs)
    array = _create(group, spec, values.shape, chunks=tuple(max(1, n) for n in values.shape))
    if values.size:
        array[...] = values.astype(object) if dtype == STRING else values


class _Coordinate(Array):
    """A coordinate: documented by its dimension where it has no entry of its own."""

    @property
    def documentation(self) -> dict[str, Any]:
        return super().documentation if self.name in VARIABLES else dict(self.attrs)


def read_coordinate(group: zarr.Group, name: str) -> np.ndarray:
    """A coordinate's values; strings as an object array of str.

    Raises
    ------
    StoreError
        Its bytes are damaged.
    """
    try:
        values = np.asarray(group[name][...])  # type: ignore[index]
    except CODEC_ERRORS as error:
        raise StoreError(
            problem("damaged coordinate", where=f"{group.path}/{name}", found=str(error))
        ) from error
    return values.astype(object) if values.dtype.kind == "T" else values


def dimension_names(array: Any) -> tuple[str, ...]:
    """Names of an array's dimensions; empty where it has none."""
    return tuple(array.metadata.dimension_names or ())


def check_compatible(group: zarr.Group, template: Template) -> None:
    """Compare an existing group with a template.

    Raises
    ------
    LayoutError
        They differ; every differing field is named.
    """
    differing = [*_array_differences(group, template), *_coordinate_differences(group, template)]
    if differing:
        raise LayoutError(
            problem(
                f"the store's group differs from the source in {'; '.join(differing)}",
                where=template.path,
                remedy="use another store, or --force to replace the group",
            )
        )


def _array_differences(group: zarr.Group, template: Template) -> list[str]:
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
    return found


def _coordinate_differences(group: zarr.Group, template: Template) -> list[str]:
    found = []
    done = read_mask(group)
    for name, (dims, values) in template.coords.items():
        if name not in group:
            found.append(f"coordinate {name} missing in the store")
            continue
        stored, wanted = read_coordinate(group, name), _as_stored(np.asarray(values))
        grow = next((d for d in dims if d in GROWING), None)
        if grow is None:
            if not _equal(stored, wanted):
                found.append(f"{name} (store {_brief(stored)}, source {_brief(wanted)})")
            continue
        if name == grow:
            continue
        old, new = _shared(group, template, grow, done)
        if not _equal(stored[old], wanted[new]):
            found.append(f"{name} of {grow}s already written")
    return found


def _shared(
    group: zarr.Group, template: Template, dim: str, done: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (in the store, in the template) of labels that both have and that hold data."""
    stored = read_coordinate(group, dim)[: done.shape[0]]
    flagged = np.asarray(done.reshape(done.shape[0], -1).any(axis=1))
    wanted = np.asarray(template.coords[dim][1])
    _, old, new = np.intersect1d(stored, wanted, return_indices=True)
    return old[flagged[old]], new[flagged[old]]


def _as_stored(values: np.ndarray) -> np.ndarray:
    return values.astype(object) if values.dtype.kind in "UOT" else values


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def _brief(values: np.ndarray) -> str:
    text = ", ".join(str(v) for v in values.ravel()[:4])
    return f"{values.dtype}[{text}{', ...' if values.size > 4 else ''}]"


def grow_group(group: zarr.Group, template: Template) -> None:
    """Add the template's new images or batches, and refresh coordinates of unwritten ones.

    `written` is resized last: its length is the length of the group, so a kill in between leaves a
    group that reads as before.
    """
    dim = next((d for d in template.item_dims if d in GROWING), None)
    if dim is None:
        return
    done = read_mask(group)
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
    mask: Any = group[WRITTEN]
    if mask.shape[0] != total:
        mask.resize((total, *mask.shape[1:]))


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
        new = _as_stored(np.asarray(values))
        stored[where[~flagged[where]]] = new[~flagged[where]]
        _update(group, name, stored)


def _update(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Write a coordinate that changed; one that did not is left alone, file and all."""
    if not _equal(read_coordinate(group, name), values):
        group[name][...] = values  # type: ignore[index]


def match_items(group: zarr.Group, template: Template) -> Mapping[str, np.ndarray]:
    """For each growing item dim: the store's position of every template position, by label."""
    found = {}
    for dim in template.item_dims:
        if dim in GROWING:
            labels = read_coordinate(group, dim)
            position = {int(label): i for i, label in enumerate(labels)}
            wanted = np.asarray(template.coords[dim][1])
            found[dim] = np.array([position[int(label)] for label in wanted], dtype=np.int64)
    return found


def read_mask(group: zarr.Group, folder: Path | None = None) -> np.ndarray:
    """The group's completion mask, bool, over its item dims.

    Only flagged items have a chunk, so on a local disk the files present are read directly:
    thousands of one-byte chunks take milliseconds instead of seconds.

    Raises
    ------
    StoreError
        A flag's checksum does not match.
    """
    mask: Any = group[WRITTEN]
    if folder is None:
        return np.asarray(mask[...], dtype=bool)
    out = np.zeros(mask.shape, dtype=bool)
    base = folder / WRITTEN / "c"
    for path in base.glob("/".join("*" * mask.ndim)) if base.is_dir() else ():
        if path.suffix == ".partial":
            continue
        start = [int(p) * c for p, c in zip(path.relative_to(base).parts, mask.chunks, strict=True)]
        region = tuple(
            slice(s, min(s + c, n)) for s, c, n in zip(start, mask.chunks, mask.shape, strict=True)
        )
        block = read_flags(path).reshape(mask.chunks)
        out[region] = block[tuple(slice(0, r.stop - r.start) for r in region)]
    return out


def read_flags(path: Path) -> np.ndarray:
    """Flags of one mask chunk, in a row.

    Raises
    ------
    StoreError
        Its checksum does not match.
    """
    raw = path.read_bytes()
    if len(raw) <= 4 or crc32c(raw[:-4]) != struct.unpack("<I", raw[-4:])[0]:
        raise StoreError(
            problem(
                "damaged completion flag",
                where=str(path),
                remedy="delete this file and run again with --resume",
            )
        )
    return np.frombuffer(raw[:-4], dtype=bool)
