"""Groups on disk: created from a template, compared with one, read back."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c

from taqstore.errors import LayoutError, StoreError, problem
from taqstore.names import DIMENSIONS, VARIABLES, WRITTEN
from taqstore.store.template import STRING, Array, Template

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
            problem(
                "damaged coordinate",
                where=f"{group.path}/{name}",
                found=str(error),
                remedy="restore it, or write the group again with --force",
            )
        ) from error
    return values.astype(object) if values.dtype.kind == "T" else values


def dimension_names(array: Any) -> tuple[str, ...]:
    """Names of an array's dimensions; empty where it has none."""
    return tuple(array.metadata.dimension_names or ())


def check_compatible(group: zarr.Group, template: Template, done: np.ndarray) -> None:
    """Compare an existing group, of which `done` is the mask, with a template.

    Raises
    ------
    LayoutError
        They differ; every differing field is named.
    """
    arrays, coords = (
        _array_differences(group, template),
        _coordinate_differences(group, template, done),
    )
    differing = [*arrays, *coords]
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
        try:
            return np.asarray(mask[...], dtype=bool)
        except CODEC_ERRORS as error:
            where = f"{group.path}/{WRITTEN}"
            remedy = "write the group again with --force"
            raise StoreError(
                problem("damaged completion flag", where=where, found=str(error), remedy=remedy)
            ) from error
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
