"""Records that were committed alone are closed: many to a file, and into `written`.

Also the other way: flags made anew from the records that are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from taqstore.errors import StoreError
from taqstore.items.flag_files import flag_key
from taqstore.items.flags import Items, number_of
from taqstore.layout.item_records import Item, mask_chunk, record_chunk
from taqstore.layout.packed import packed, unpacked
from taqstore.metadata.sealed import damaged
from taqstore.metadata.tree import Change, put_in_place, settled
from taqstore.names import RECORD, WRITTEN


def close_items(groups: Sequence[Items]) -> None:
    """Put fresh records among the closed ones and into `written`. The caller holds the lock.

    All of these groups together: none of their flags is taken away before all are closed.
    """
    fresh = [(items, items.lying_alone()) for items in groups if items.fresh]
    put_in_place(groups[0].backend, [_closing(items, records) for items, records in fresh])
    for items, records in fresh:
        path = items.loaded.path
        items.backend.delete_all(f"{path}/{flag_key(item)}" for item in records)


def _closing(items: Items, records: Mapping[Item, bytes]) -> Change:
    files = {**mask_files(items.mask), **record_files(items, records)}
    loaded = items.loaded
    return Change(loaded.path, settled(items.backend, loaded), loaded.document, {}, files)


def mask_files(mask: np.ndarray) -> dict[str, bytes]:
    """The chunks of `written` for a mask, by key below the group."""
    chunk, files = mask_chunk(mask.shape), {}
    for start in range(0, max(1, mask.shape[0]), chunk[0]):
        block = np.zeros(chunk, bool)
        part = mask[start : start + chunk[0]]
        block[tuple(slice(0, n) for n in part.shape)] = part
        number = (start // chunk[0], *(0,) * (mask.ndim - 1))
        files[f"{WRITTEN}/c.{'.'.join(map(str, number))}"] = packed(block)
    return files


def record_files(items: Items, rows: Mapping[Item, bytes]) -> dict[str, bytes]:
    """The chunks of `items/record` in which these records are set, by key below the group."""
    chunk = record_chunk(items.grid, items.layout.record_bytes)
    touched: dict[Item, np.ndarray] = {}
    for item, record in rows.items():
        number = tuple(i // n for i, n in zip(item, chunk, strict=False))
        if number not in touched:
            touched[number] = _record_block(items, number, chunk)
        inside = tuple(i % n for i, n in zip(item, chunk, strict=False))
        touched[number][inside] = np.frombuffer(record, np.uint8)
    return {
        f"{RECORD}/c/{'/'.join(map(str, number))}/0": packed(block)
        for number, block in touched.items()
    }


def rebuild_flags(items: Items, *, without: Iterable[Item] = ()) -> None:
    """Write closed flags anew from the records that are whole. The caller holds the lock.

    Parameters
    ----------
    without
        Items that lose their flag, beside those whose record is damaged.
    """
    dropped = set(without)
    mask = recorded_mask(items)
    for item in dropped:
        items.put_flags(mask, item, False)
    chunk = record_chunk(items.grid, items.layout.record_bytes)
    files = mask_files(mask)
    for key, number in _record_numbers(items):
        try:
            block = _record_block(items, number, chunk)
        except StoreError:
            block = np.zeros(chunk, np.uint8)
        for item in dropped:
            if tuple(i // n for i, n in zip(item, chunk, strict=False)) == number:
                block[tuple(i % n for i, n in zip(item, chunk, strict=False))] = 0
        files[key] = packed(block)
    items.backend.delete_all(f"{items.loaded.path}/{flag_key(item)}" for item in dropped)
    record = settled(items.backend, items.loaded, unless=tuple(files))
    loaded = items.loaded
    put_in_place(items.backend, [Change(loaded.path, record, loaded.document, {}, files)])


def recorded_mask(items: Items) -> np.ndarray:
    """The mask as the records tell it, whatever `written` says; damaged records are passed over."""
    mask = np.zeros(items.shape, bool)
    chunk, layout = record_chunk(items.grid, items.layout.record_bytes), items.layout
    for _, number in _record_numbers(items):
        try:
            block = _record_block(items, number, chunk)
        except StoreError:
            continue
        for inside in np.argwhere(block.any(axis=-1)):
            item = tuple(int(n * c + i) for n, c, i in zip(number, chunk, inside, strict=False))
            record = block[tuple(inside)].tobytes()
            if layout.fits(record, items.loaded.scope, item):
                items.put_flags(mask, item, layout.flags(record))
    for item, record in items.lying_alone().items():
        items.put_flags(mask, item, layout.flags(record))
    return mask


def _record_numbers(items: Items) -> list[tuple[str, Item]]:
    """Keys of the closed records of a group, and their places in the grid."""
    shape = (*items.grid, items.layout.record_bytes)
    chunk = record_chunk(items.grid, items.layout.record_bytes)
    prefix = f"{RECORD}/c/"
    found = (
        (key, number_of(key.removeprefix(prefix), "/", shape, chunk))
        for key in items.loaded.record.keys
        if key.startswith(prefix)
    )
    return [(key, number[:-1]) for key, number in found if number is not None]


def _record_block(items: Items, number: Item, chunk: tuple[int, ...]) -> np.ndarray:
    key = f"{RECORD}/c/{'/'.join(map(str, number))}/0"
    where = f"{items.loaded.path}/{key}"
    raw = items.backend.read(where)
    if key not in items.loaded.record.keys:
        return np.zeros(chunk, np.uint8)
    if raw is None or not items.loaded.record.fits_file(key, raw):
        if raw is None and not items.loaded.record.expects(key):
            return np.zeros(chunk, np.uint8)
        raise damaged(where, "missing" if raw is None else "not what was written")
    return unpacked(raw, np.uint8, chunk, where).copy()
