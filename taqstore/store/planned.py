"""A store as a run would open it for writing, of which nothing is written: `--dry-run`.

What a run is refused with is refused here in the same words. No lock is taken, no folder made.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.files.targets import check_below_store
from taqstore.items.flag_files import holds_flags
from taqstore.items.flags import Items, read_group
from taqstore.layout.item_bytes import numbers_of, raw_bytes
from taqstore.layout.item_records import Item, ItemLayout, Shard
from taqstore.layout.shards import Frames
from taqstore.layout.template import Array, Template
from taqstore.metadata.root import KEY, Root, read_root
from taqstore.place.backend import Backend
from taqstore.place.disk import disk_errors
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store.format1 import SPARSE
from taqstore.store.group_writer import GroupWriter, encoder
from taqstore.store.groups import check_compatible
from taqstore.store.growth import match_items
from taqstore.store.regions import Region, Values, whole
from taqstore.store.unfilled import unfilled
from taqstore.store.writer import StoreWriter, check_format, check_free, check_place, new_root


@takes_storage_options
def plan_store(
    address: Address,
    *,
    writable: bool = True,
    storage_options: StorageOptions | None = None,
) -> PlannedWriter:
    """Open a store to plan a run; there need not be one.

    Parameters
    ----------
    writable
        Refuse a place that cannot be written.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    StoreError
        As of `create_store`.
    """
    return PlannedWriter(Location.parse(address), writable=writable)


class PlannedWriter(StoreWriter):
    """A store that would be written: groups say what they hold, and what is put is counted."""

    def __init__(self, location: Location, *, writable: bool) -> None:
        self._gone, self._writable = set[str](), writable
        super().__init__(location)

    def _open(self) -> Backend:
        folder = self.location.folder
        backend = self.location.backend(read_only=True)
        if folder is not None:
            check_place(folder)
            if self._writable:
                _check_writable(self.location)
            check_below_store(folder)
        elif backend.read(KEY) is None:
            check_free(self.location, backend)
        self._absent = backend.read(KEY) is None
        self._root = new_root() if self._absent else read_root(backend, str(self.location))
        check_format(self._root, self.location)
        return backend

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Leave everything as it is."""

    def root_record(self) -> Root:
        """What the root says, or would say of a store that is made."""
        return self._root

    def node(self, path: str) -> Any:
        """A group as zarr sees it; None if there is none, or it would have made way by now."""
        return None if self._absent or path in self._gone else super().node(path)

    def group(self, template: Template, *, replace: bool = False) -> PlannedGroup:
        """The template's group as the run would open it; raises as the run would."""
        path, items = template.path, None
        with disk_errors(self.location):
            if replace:
                self._gone.add(path)
            if not self._absent and path not in self._gone:
                items = read_group(
                    self.backend, path, uuid=self._root.uuid, where=str(self.location)
                )
                if items is None:
                    self._refuse_lost(path)
        return PlannedGroup(self.location, self.backend, template, items)

    def groups(
        self, templates: Sequence[Template], *, replaced: Collection[str] = ()
    ) -> dict[str, GroupWriter]:
        """The templates' groups, each as `group` opens it."""
        return {t.path: self.group(t, replace=t.path in replaced) for t in templates}

    def _refuse_lost(self, path: str) -> None:
        if path in self._root.groups or holds_flags(self.backend, path):
            what = "this group's document is missing, and its data are not"
            where = f"{self.location} {path}"
            raise StoreError(problem(what, where=where, remedy="see taqstore repair"))

    def remove_unfilled(self, paths: Collection[str], *, among: Collection[str]) -> None:
        """Take those of these groups that hold no whole item for gone."""
        if not self._absent:
            self._gone.update(unfilled(self.location, self.backend, paths, among))

    def record(self, record: Mapping[str, Any]) -> None:
        """Record nothing."""

    def finish(self, *, succeeded: bool = True) -> None:
        """Leave everything as it is."""


class PlannedGroup(GroupWriter):
    """A group of a `PlannedWriter`.

    Parameters
    ----------
    items
        What the store has of it; None: nothing.
    """

    def __init__(
        self, location: Location, backend: Backend, template: Template, items: Items | None
    ) -> None:
        self.location, self.backend, self.template = location, backend, template
        self._raw, self._made = Counter[str](), Counter[str]()
        self._files, self._items_put = Counter[str](), set[Item]()
        self._counting = Lock()
        self._mask = np.zeros([template.sizes[d] for d in template.item_dims], bool)
        self._there = items
        if items is not None:
            node: Any = items.loaded.node(location.zarr_store(read_only=True))
            check_compatible(node, template, items.mask)
            self._mask = _over_template(items.mask, match_items(node, template, missing=True),
                                        template)  # fmt: skip

    @property
    def documents(self) -> int:
        """Files that are made with the group, where it is not there: documents and coordinates."""
        arrays, coords = len(self.template.arrays), len(self.template.coords)
        return arrays + 2 * coords + 6 if self._there is None else 0

    def written(self) -> np.ndarray:
        """Completion mask over the template's items."""
        return self._mask.copy()

    def complete(self, items: Iterable[Item]) -> bool:
        """Whether every item is flagged."""
        return all(bool(self._mask[item]) for item in items)

    @contextmanager
    def claim(self, item: Item) -> Iterator[bool]:
        """Take any item: nothing is written."""
        yield True

    def put(self, name: str, start: Sequence[int], values: Values) -> int:
        """Check and encode one whole shard, and count it; returns its bytes."""
        array = self.template.array(name)
        region = Region.of(self.template, array, start)
        split = array.split is not None
        chunks = region.chunks(values, array) if split else [region.padded(whole(values), array)]
        frames = Frames(chunks, capacity=self._capacity(array), encode=self._encoder(array))
        with self._counting:
            self._files[name] += 1
        return sum(len(piece) for piece in frames)

    def measure(self, name: str, values: np.ndarray) -> None:
        """Encode inner chunks of a part of a shard, to see how well they compress."""
        array = self.template.array(name)
        encode = self._encoder(array)
        if encode is None:
            return
        axis = array.dims.index(array.split) if array.split else 0
        count = values.shape[axis] if array.split else 1
        for chunk in np.array_split(values, count, axis=axis):
            encode(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)

    def _encoder(self, array: Array) -> Callable[[memoryview], bytes] | None:
        """The array's own, which counts besides what it makes of values."""
        encode = encoder(array)
        if encode is None:
            return None

        def counted(content: memoryview) -> bytes:
            made = encode(content)
            with self._counting:
                self._raw[array.name] += len(content)
                self._made[array.name] += len(made)
            return made

        return counted

    def commit(self, items: Iterable[Item]) -> None:
        """Flag nothing, and count whose shards were put."""
        size = [self.template.item_extent(dim) for dim in self.template.item_dims]
        numbers = {tuple(i // n for i, n in zip(item, size, strict=True)) for item in items}
        with self._counting:
            self._items_put |= numbers

    def present(self) -> dict[str, float]:
        """Share of its shards that an item has, of arrays that may lack some; as far as known."""
        names = [array.name for array in self.template.arrays if array.name in SPARSE]
        if not names or not self._items_put:
            return {}
        every = Counter(name for n in self._items_put for name, _ in self._shards_of(n))
        return {name: self._files[name] / every[name] for name in names}

    def _shards_of(self, number: Item) -> list[Shard]:
        return ItemLayout.of_template(self.template).shards(number)

    def close(self) -> None:
        """Close nothing."""

    def shares(self) -> dict[str, float]:
        """Compressed by raw bytes of arrays that are compressed: as put, else as stored."""
        names = [array.name for array in self.template.arrays if array.compress]
        found = {name: self._made[name] / self._raw[name] for name in names if self._raw[name]}
        return {**self._stored_shares(names), **found}

    def _stored_shares(self, names: Sequence[str]) -> dict[str, float]:
        if self._there is None:
            return {}
        count = len(numbers_of(self.template, self._there.mask))
        if not names or not count:
            return {}
        stored, first = self._there.stored_bytes(), (0,) * len(self.template.item_dims)
        raw = raw_bytes(self.template, first)
        return {name: stored[name] / (raw[name] * count) for name in names if name in stored}


def _over_template(
    mask: np.ndarray, moved: Mapping[str, np.ndarray], template: Template
) -> np.ndarray:
    """A store's mask at the template's items; what the store lacks is not done."""
    for axis, dim in enumerate(template.item_dims):
        if dim in moved:
            at = moved[dim]
            absent = (at < 0) | (at >= mask.shape[axis])
            shape = [*mask.shape[:axis], len(at), *mask.shape[axis + 1 :]]
            taken = np.zeros(shape, bool)
            if mask.shape[axis]:
                taken = np.take(mask, np.where(absent, 0, at), axis=axis)
            taken[(slice(None),) * axis + (absent,)] = False
            mask = taken
    return mask


def _check_writable(location: Location) -> None:
    """Refuse a place that cannot be written, as the first write would."""
    folder = location.folder
    assert folder is not None
    with disk_errors(location):
        beside = location.beside("lock")
        for path in (folder, beside):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.stat(path)
        there = next(path for path in beside.parents if os.path.lexists(path))
        if not there.is_dir():
            number = errno.EEXIST if there == beside.parent else errno.ENOTDIR
            raise OSError(number, os.strerror(number), str(beside.parent))
        for path in (there, *([folder] if folder.is_dir() else [])):
            if not os.access(path, os.W_OK | os.X_OK):
                read_only = os.statvfs(path).f_flag & os.ST_RDONLY
                number = errno.EROFS if read_only else errno.EACCES
                raise OSError(number, os.strerror(number), str(path))
