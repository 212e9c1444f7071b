"""What documents of a group claim of its items: bounded before anything of that size is made."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from taqstore.errors import StoreError, problem
from taqstore.layout.array_documents import (
    array_documents,
    data_arrays,
    dimensions,
    is_coordinate,
)
from taqstore.layout.coordinate_files import check_coordinates
from taqstore.layout.item_records import ItemLayout, record_chunk
from taqstore.metadata.sealed import damaged
from taqstore.metadata.tree import Loaded
from taqstore.names import KINDS, WRITTEN

# Of one group; more are no calibration run, and their flags would fill memory and time.
MOST_ITEMS, _MOST_RECORD_BYTES = 1 << 21, 1 << 30


def checked_layout(loaded: Loaded) -> tuple[ItemLayout, tuple[int, ...]]:
    """Which files the items of a group own, and the shape of its flags.

    Raises
    ------
    StoreError
        The group is of another kind, its arrays are not of the format or do not fit each other, or
        they claim more than any group has: nothing of that size has been made yet.
    """
    if loaded.record.kind not in KINDS:
        what = f"a group of kind {loaded.record.kind!r}, which this taqstore does not know"
        raise StoreError(problem(what, where=loaded.path, remedy="upgrade taqstore"))
    documents = array_documents(loaded)
    coordinates = {
        name: document
        for name, document in documents.items()
        if name != WRITTEN and is_coordinate(loaded.document, name, document)
    }
    base = len(loaded.path) + 1
    content = loaded.content
    files = {key[base:]: content[key] for key in content if not key.endswith("zarr.json")}
    check_coordinates(coordinates, files, loaded.path)
    record, shape = loaded.record, tuple(documents[WRITTEN]["shape"])
    layout = ItemLayout.of(data_arrays(loaded, documents), record.item_dims, record.item_size)
    _check_claims(loaded, layout, shape, dimensions(documents[WRITTEN]))
    return layout, shape


def _check_claims(
    loaded: Loaded, layout: ItemLayout, shape: Sequence[int], dims: tuple[str, ...]
) -> None:
    """Refuse more items, or larger records, than any group has, before anything of their size."""
    where, record = f"{loaded.path}/{WRITTEN}", loaded.record
    if dims != record.item_dims or not dims:
        raise damaged(where, f"flags along {dims}, items along {record.item_dims}")
    if prod(shape) > MOST_ITEMS or prod(record.item_size) > MOST_ITEMS:
        raise damaged(where, f"{prod(shape)} items of {prod(record.item_size)} positions")
    grid = [-(-n // size) for n, size in zip(shape, record.item_size, strict=True)]
    size = layout.record_bytes
    if (
        size > 1 << 20
        or prod(record_chunk(grid, size)) > 1 << 26
        or prod(grid) * size > _MOST_RECORD_BYTES
    ):
        raise damaged(where, f"records of {size} bytes of {prod(grid)} items")
