"""One group open for writing: shards put, items flagged, flags closed now and then.

The commit rule: an item's data reach the disk with all that stands behind them, then its record
does. Whatever is killed in between, a flagged item is whole and an unflagged one is written again
by the next run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.items.closing import close_items
from taqstore.items.flag_files import flag_bytes, flag_files, flag_key, write_flag_files
from taqstore.items.flags import Items, read_group
from taqstore.layout.item_records import ABSENT, Identity, Item, ItemLayout, Shard
from taqstore.layout.nodes import GroupNode
from taqstore.layout.shards import Frames, fingerprint_of
from taqstore.layout.template import Array, Template
from taqstore.metadata.root import without_copies
from taqstore.place.backend import Backend, Piece
from taqstore.place.disk import disk_errors
from taqstore.place.location import Location
from taqstore.store.groups import MADE_BY, array_differences
from taqstore.store.growth import match_items
from taqstore.store.opening import HISTOGRAM, Opened, sums_of
from taqstore.store.regions import Region, Values, whole

# Records written alone are closed after so many: opening a group reads each of them.
_log = logging.getLogger(__name__)
_CLOSED_AFTER = 500


class GroupWriter:
    """One group open for writing; safe to use from several threads for different items.

    Item indices and region starts are those of the template; they are moved to the store's own
    positions by image id or batch label.
    """

    def __init__(
        self,
        location: Location,
        backend: Backend,
        template: Template,
        uuid: str,
        *,
        known: Items | None = None,
    ) -> None:
        """Open a group of the store with this uuid; `known` is what was read or written of it."""
        self.location, self.backend, self.template = location, backend, template
        self._uuid = uuid
        self._items = self._read(known)
        self.zarr = self._items.loaded.node(location.zarr_store(read_only=True))
        self._moved = match_items(self.zarr, template)
        self._put: dict[Shard, Identity] = {}
        self._lock, self._alone = Lock(), 0

    @property
    def _layout(self) -> ItemLayout:
        return self._items.layout

    def _find(self, before: Items | None) -> Items | None:
        where = str(self.location)
        return read_group(
            self.backend, self.template.path, uuid=self._uuid, where=where, before=before
        )

    def _read(self, before: Items | None) -> Items:
        items = self._find(before)
        if items is None:
            what = "the group is gone while it is written"
            raise StoreError(problem(what, where=f"{self.location} {self.template.path}"))
        return items

    def look_again(self) -> Items:
        """What is flagged by now.

        Raises
        ------
        StoreError
            Another process has put another group in this one's place.
        """
        before, self._items = self._items, self._read(self._items)
        if self._items.loaded is not before.loaded:
            self._check_same()
        return self._items

    def _check_same(self) -> None:
        """Refuse to write on where another group stands in the place of the one opened."""
        node = self._items.loaded.node(self.location.zarr_store(read_only=True))
        moved = match_items(node, self.template, missing=True)
        same = all(np.array_equal(moved[dim], at) for dim, at in self._moved.items())
        made = self.zarr.attrs.get(MADE_BY) == node.attrs.get(MADE_BY)
        if not same or not made or array_differences(node, self.template):
            what = "another process has replaced this group while it was written"
            remedy = "run again where only one of them is needed, or in another store"
            where = f"{self.location} {self.template.path}"
            raise StoreError(problem(what, where=where, remedy=remedy))

    def written(self) -> np.ndarray:
        """Completion mask over the template's items."""
        mask = self.look_again().mask
        for axis, dim in enumerate(self.template.item_dims):
            if dim in self._moved:
                mask = np.take(mask, self._moved[dim], axis=axis)
        return mask

    @contextmanager
    def claim(self, item: Item) -> Iterator[bool]:
        """Hold an item's lock; yields False where another process holds it."""
        path, placed = self.template.path, self._placed(item)
        flag = f"{path}/{flag_key(self._number(placed))}"
        size = flag_bytes(self._layout)
        with self.backend.claimed(path, placed, flag, size) as held:
            yield held

    def put(self, name: str, start: Sequence[int], values: Values) -> int:
        """Write one whole shard; returns bytes written.

        Parameters
        ----------
        name
            A data array of the template.
        start
            First index of the region, aligned to the array's shards.
        values
            The region, cut to the array's shape at its edges; or its inner chunks in order along
            the array's `split` dim, so that a large shard need not be in memory at once.

        Raises
        ------
        LayoutError
            Not aligned, or of another shape or dtype.
        StoreError
            The disk is full or cannot be written.
        """
        array = self.template.array(name)
        region = Region.of(self.template, array, start)
        moved = region.moved(self._moved, array.dims)
        capacity = self._capacity(array)
        chunks = (
            [region.padded(whole(values), array)]
            if array.split is None
            else region.chunks(values, array)
        )
        frames = Frames(chunks, capacity=capacity, encode=encoder(array))
        key = "/".join((self.template.path, name, "c", *map(str, moved.coords)))
        with disk_errors(self.location):
            size = self.backend.write(key, frames)
        self._put[name, moved.coords] = (size, frames.fingerprint)
        return size

    def put_file(
        self, name: str, start: Sequence[int], pieces: Iterable[Piece], identity: Identity
    ) -> int:
        """Write one whole shard as it lies in another store; returns bytes written.

        Parameters
        ----------
        name, start
            As of `put`.
        pieces
            Its bytes, compared on the way: it is whole or not there.
        identity
            Its size and fingerprint.

        Raises
        ------
        LayoutError
            Not aligned.
        StoreError
            The disk is full or cannot be written.
        """
        array = self.template.array(name)
        moved = Region.of(self.template, array, start).moved(self._moved, array.dims)
        key = "/".join((self.template.path, name, "c", *map(str, moved.coords)))
        with disk_errors(self.location):
            size = self.backend.write(key, pieces)
        self._put[name, moved.coords] = identity
        return size

    def owned(self, item: Item) -> dict[Shard, Identity] | None:
        """Files of an item of the template, as `Items.owned` tells them: by place in the store."""
        return self._items.owned(self._number(self._placed(item)))

    def _placed(self, item: Item) -> Item:
        return tuple(
            int(self._moved[d][i]) if d in self._moved else i
            for d, i in zip(self.template.item_dims, item, strict=True)
        )

    def _number(self, placed: Item) -> Item:
        """The item that a position is in."""
        return tuple(i // n for i, n in zip(placed, self._items.size, strict=True))

    def complete(self, items: Iterable[Item]) -> bool:
        """Whether every item is flagged by now."""
        placed = [self._placed(item) for item in items]
        mask = self._items.mask
        if not all(mask[place] for place in placed):
            mask = self.look_again().mask
        return all(bool(mask[place]) for place in placed)

    def commit(self, items: Iterable[Item]) -> None:
        """Flag items whose data has been `put`; their data is on disk before any flag is."""
        self.commit_all({self: items})

    @staticmethod
    def commit_all(items: Mapping[GroupWriter, Iterable[Item]]) -> None:
        """Flag items of several groups of one store; data of all is on disk before any flag is.

        Together they share the flushes of the disk.
        """
        if not items:
            return
        first, files, numbers = next(iter(items)), dict[str, bytes](), list[list[Item]]()
        with disk_errors(first.location):
            first.backend.flush()
            for group, some in items.items():
                records = group._records(some)
                files |= flag_files(group.template.path, records)
                numbers.append(list(records))
            write_flag_files(first.backend, files)
            first.backend.flush()
        for group, flagged in zip(items, numbers, strict=True):
            group._committed(flagged)

    def _records(self, items: Iterable[Item]) -> dict[Item, bytes]:
        """Records of items as they will be, by number of the item."""
        flags = self._flags(items)
        return {number: self._record(number, mask) for number, mask in flags.items()}

    def _committed(self, numbers: Sequence[Item]) -> None:
        """Forget what was put of items that are flagged now."""
        _log.debug("wrote %s, items %s", self.template.path, " ".join(map(str, numbers)))
        for number in numbers:
            for shard in self._layout.shards(number):
                self._put.pop(shard, None)
        self._close_now_and_then(len(numbers))

    def _flags(self, items: Iterable[Item]) -> dict[Item, np.ndarray]:
        """Flags of the items' positions, and of those flagged before, by number of the item."""
        size, found = self._items.size, dict[Item, np.ndarray]()
        for place in map(self._placed, items):
            number = self._number(place)
            if number not in found:
                found[number] = self._flagged(number)
            found[number][tuple(i % n for i, n in zip(place, size, strict=True))] = True
        return found

    def _flagged(self, number: Item) -> np.ndarray:
        if max(self._items.size) == 1:
            return np.zeros(self._items.size, bool)
        record = self.look_again().record(number)
        return np.zeros(self._items.size, bool) if record is None else self._layout.flags(record)

    def _record(self, number: Item, mask: np.ndarray) -> bytes:
        identities = [self._identity(shard) for shard in self._layout.shards(number)]
        return self._layout.pack(self._items.loaded.scope, number, mask, identities)

    def _identity(self, shard: Shard) -> Identity:
        """Size and fingerprint of a shard: as put, or as it lies there."""
        if shard in self._put:
            return self._put[shard]
        name, coords = shard
        raw = self.backend.read("/".join((self.template.path, name, "c", *map(str, coords))))
        if raw is None:
            return ABSENT
        return len(raw), fingerprint_of(raw, self._capacity(self.template.array(name)))

    def _capacity(self, array: Array) -> int | None:
        """Inner chunks of a full shard; None where a file is one chunk."""
        if array.split is None:
            return None
        return self.template.shard_shape(array)[array.dims.index(array.split)]

    def _close_now_and_then(self, count: int) -> None:
        with self._lock:
            self._alone += count
            if self._alone < _CLOSED_AFTER:
                return
            self._alone = 0
        with disk_errors(self.location), self.backend.locked():
            self.close()

    def close(self) -> None:
        """Close the flags of what was committed. The caller holds the store's lock."""
        close_groups([self])

    def add_up(self) -> None:
        """Keep the sums of counts of all that is whole, where they are not there.

        Nothing rests on them: a reader that finds none, or other ones, adds up the counts itself.
        """
        folder, path = self.location.folder, self.template.path
        if folder is None or HISTOGRAM not in {array.name for array in self.template.arrays}:
            return
        opener = partial(self.location.zarr_store, read_only=True)
        try:
            items = self.look_again()
            view = Opened(GroupNode(items.loaded, opener), items.mask, items)
            found = {f"{path}/{key}": raw for key, raw in sums_of(view, folder / path).items()}
            with disk_errors(self.location):
                self.backend.write_all(found)
        except StoreError as error:  # what was to be written is there, and flagged
            _log.debug("no sums of %s: %s", path, error)

    def to_close(self) -> Items | None:
        """The group as it is now, where there are flags to close."""
        items = self._find(self._items)
        return items if items is not None and items.fresh else None


def close_groups(groups: Iterable[GroupWriter]) -> None:
    """Close the flags of what was committed in these groups. The caller holds the store's lock."""
    found = {group: items for group in groups if (items := group.to_close()) is not None}
    for group in list(found)[:1]:
        without_copies(group.backend, str(group.location))
        close_items(list(found.values()))


def encoder(array: Array) -> Callable[[memoryview], bytes] | None:
    """What is applied to the bytes of each chunk of an array; None: they stay as they are."""
    return _zstd if array.compress else None


def _zstd(content: memoryview) -> bytes:
    from numcodecs.zstd import Zstd

    return bytes(Zstd(level=3).encode(content))
