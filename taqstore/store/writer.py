"""Writing: template -> aligned shard writes -> completion mask.

The commit rule: an item's data reach the disk, then its flag in `written` does. Whatever is killed
in between, a flagged item is whole and an unflagged one is written again by the next run.
"""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.files.targets import check_above_store, check_below_store
from taqstore.names import FORMAT_VERSION, WRITTEN
from taqstore.store.disk import disk_errors, lock, try_lock
from taqstore.store.folder_store import PARTIAL, drop_partial_metadata
from taqstore.store.groups import check_compatible, create_arrays, read_flags, read_mask
from taqstore.store.growth import grow_group, match_items
from taqstore.store.location import Location, check_format
from taqstore.store.provenance import append_record
from taqstore.store.regions import Region, Values, whole
from taqstore.store.shards import flush, write_chunk, write_shard
from taqstore.store.template import Array, Template

if TYPE_CHECKING:
    import zarr

Item = tuple[int, ...]
_LOCK_SECONDS = 60.0


def create_store(address: str | os.PathLike[str]) -> StoreWriter:
    """Open a store for writing, creating it when there is none.

    Raises
    ------
    StoreError
        The place is not a store, is of a newer format, or cannot be written.
    """
    return StoreWriter(Location.parse(address))


class StoreWriter:
    """A store open for writing. Use as a context manager, or call `finish`."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._aside: list[Path] = []
        with disk_errors(location):
            self.root = self._open_root()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.finish(succeeded=kind is None)

    def _open_root(self) -> zarr.Group:
        folder = self.location.folder
        if folder is not None and folder.is_dir():
            found = [path.name for path in folder.iterdir() if not _left_behind(path)]
            if found and "zarr.json" not in found:
                raise StoreError(
                    problem(
                        "not a taqstore and not empty",
                        where=str(folder),
                        remedy="choose another path for the store",
                    )
                )
        elif folder is not None and folder.exists():
            remedy = "choose another path"
            raise StoreError(
                problem("a file is in the way of the store", where=str(folder), remedy=remedy)
            )
        if folder is not None:
            check_above_store(folder)
        with self.locked():
            if folder is not None:
                # Under the lock: a store that another process is making is one by now.
                check_below_store(folder)
                drop_partial_metadata(folder)
            root = self.location.root(mode="a")
            if "taqstore" not in root.attrs and not dict(root.members()):
                root.attrs["taqstore"] = _new_marker()
            check_format(root, str(self.location))
        return root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's metadata lock: structure changes one writer at a time."""
        with lock(self.location, "lock", timeout=_LOCK_SECONDS):
            yield

    def group(self, template: Template, *, replace: bool = False) -> GroupWriter:
        """Create the template's group, or open it for more items.

        Parameters
        ----------
        replace
            Set an existing group aside and write a new one; the old one is deleted by `finish`.

        Raises
        ------
        LayoutError
            An existing group differs; the message names the fields.
        """
        with disk_errors(self.location), self.locked():
            existing = self._existing(template.path)
            self._drop_consolidated()
            if existing is not None and replace:
                self._set_aside(template.path)
                existing = None
            if existing is None:
                group = create_arrays(self.root, template)
            else:
                folder = self.location.folder
                done = read_mask(existing, None if folder is None else folder / template.path)
                check_compatible(existing, template, done)
                grow_group(existing, template, done)
                group = existing
        return GroupWriter(self, group, template)

    def _existing(self, path: str) -> zarr.Group | None:
        """The finished group at `path`; an unfinished one is as good as none."""
        import zarr

        node = self.root.get(path)
        return node if isinstance(node, zarr.Group) and "taqstore" in node.attrs else None

    def _set_aside(self, path: str) -> None:
        if self.location.folder is None:
            del self.root[path]
            return
        aside = (
            self.location.beside("replaced") / f"{path.replace('/', '@')}.{uuid.uuid4().hex[:8]}"
        )
        aside.parent.mkdir(exist_ok=True)
        (self.location.folder / path).rename(aside)
        self._aside.append(aside)

    def _drop_consolidated(self) -> None:
        # Shapes are about to change; rewriting the attributes leaves the consolidated copy out.
        self.root.update_attributes({})

    def record(self, record: Mapping[str, Any]) -> None:
        """Append a provenance record."""
        with disk_errors(self.location), self.locked():
            self._drop_consolidated()
            append_record(self.root, record)

    def finish(self, *, succeeded: bool = True) -> None:
        """Consolidate metadata; delete what `replace` set aside if all went well."""
        import zarr

        with disk_errors(self.location), self.locked(), warnings.catch_warnings():
            # zarr warns that consolidated metadata is not yet in the v3 text; xarray reads it.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self.location.zarr_store(read_only=False))
        if self.location.folder is None:
            return
        if succeeded:
            for path in self._aside:
                shutil.rmtree(path)
            self._aside.clear()
        for folder in ("replaced", "locks"):
            with suppress(OSError):  # not empty, or never made: another writer is at work
                self.location.beside(folder).rmdir()


class GroupWriter:
    """One group open for writing; safe to use from several threads for different items.

    Item indices and region starts are those of the template; they are moved to the store's own
    positions by image id or batch label.
    """

    def __init__(self, store: StoreWriter, group: zarr.Group, template: Template) -> None:
        self.store, self.zarr, self.template = store, group, template
        self._moved = match_items(group, template)
        folder = store.location.folder
        self.folder = None if folder is None else folder / template.path
        self._touched: set[Path] = set()

    def written(self) -> np.ndarray:
        """Completion mask over the template's items."""
        mask = read_mask(self.zarr, self.folder)
        for axis, dim in enumerate(self.template.item_dims):
            if dim in self._moved:
                mask = np.take(mask, self._moved[dim], axis=axis)
        return mask

    @contextmanager
    def claim(self, item: Item) -> Iterator[bool]:
        """Hold an item's lock; yields False where another process holds it."""
        location = self.store.location
        if location.folder is None:
            yield True
            return
        name = location.item_lock_name(self.template.path, self._placed(item))
        with try_lock(location.beside("locks") / name) as held:
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
        with disk_errors(self.store.location):
            if self.folder is None or array.compress:
                return self._put_zarr(array, region, moved, values)
            path = self._chunk_path(array, moved)
            if array.split is None:
                size = write_chunk(path, region.padded(whole(values), array))
            else:
                capacity = region.shard[array.dims.index(array.split)]
                size = write_shard(path, region.chunks(values, array), capacity=capacity)
            # After the write: another thread's commit may flush and forget the folder at any time.
            self._touched.add(path.parent)
            return size

    def _put_zarr(self, array: Array, region: Region, moved: Region, values: Values) -> int:
        if not isinstance(values, np.ndarray):
            assert array.split is not None
            values = np.concatenate(list(values), axis=array.dims.index(array.split))
        region.check(values, array)
        target: Any = self.zarr[array.name]
        target[moved.slices] = values.astype(array.dtype, copy=False)
        if self.folder is None:
            return values.nbytes
        path = self._chunk_path(array, moved)
        flush(path)
        self._touched.add(path.parent)
        return path.stat().st_size

    def _chunk_path(self, array: Array, region: Region) -> Path:
        assert self.folder is not None
        return self.folder.joinpath(array.name, "c", *map(str, region.coords))

    def _placed(self, item: Item) -> Item:
        return tuple(
            int(self._moved[d][i]) if d in self._moved else i
            for d, i in zip(self.template.item_dims, item, strict=True)
        )

    def complete(self, items: Iterable[Item]) -> bool:
        """Whether every item is flagged by now; only local stores know, where items are claimed."""
        if self.folder is None:
            return False
        for number, places in self._by_mask_chunk(items).items():
            path = self.folder.joinpath(WRITTEN, "c", *map(str, number))
            if not path.exists():
                return False
            flags = read_flags(path).reshape(self.template.mask_chunk())
            if not all(flags[place] for place in places):
                return False
        return True

    def _by_mask_chunk(self, items: Iterable[Item]) -> dict[Item, list[Item]]:
        """Places of items inside the mask's chunks, by number of the chunk."""
        chunk = self.template.mask_chunk()
        found: dict[Item, list[Item]] = {}
        for item in map(self._placed, items):
            number = tuple(i // c for i, c in zip(item, chunk, strict=True))
            found.setdefault(number, []).append(
                tuple(i % c for i, c in zip(item, chunk, strict=True))
            )
        return found

    def commit(self, items: Iterable[Item]) -> None:
        """Flag items whose data has been `put`; their data is on disk before any flag is."""
        with disk_errors(self.store.location):
            for path in sorted(self._touched.copy()):
                flush(path)
                self._touched.discard(path)
            chunks = self._by_mask_chunk(items)
            folders = {self._flag(number, places) for number, places in chunks.items()}
            for folder in filter(None, folders):
                flush(folder)

    def _flag(self, number: Item, places: list[Item]) -> Path | None:
        """Write one mask chunk; returns the folder that is to be flushed."""
        chunk = self.template.mask_chunk()
        if self.folder is None:
            mask: Any = self.zarr[WRITTEN]
            for place in places:
                mask[tuple(n * c + p for n, c, p in zip(number, chunk, place, strict=True))] = True
            return None
        path = self.folder.joinpath(WRITTEN, "c", *map(str, number))
        flags = read_flags(path).reshape(chunk).copy() if path.exists() else np.zeros(chunk, bool)
        for place in places:
            flags[place] = True
        write_chunk(path, flags)
        return path.parent


def _left_behind(path: Path) -> bool:
    return path.suffix == PARTIAL and path.is_file()


def _new_marker() -> dict[str, Any]:
    from taqstore.version import __version__

    made_by = f"taqstore {__version__}"
    return {"format": FORMAT_VERSION, "uuid": str(uuid.uuid4()), "created_by": made_by}
