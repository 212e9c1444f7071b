"""Several stores read as one: what `merge` would make of them, with nothing copied."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from taqstore.arrays.store_array import ArrayReader
from taqstore.asked import meant
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.layout.template import Template
from taqstore.metadata.group_record import GroupRecord
from taqstore.metadata.provenance import BadRecord
from taqstore.metadata.root import Root
from taqstore.metadata.staging import Staging
from taqstore.place.location import Location
from taqstore.store.groups import create_arrays
from taqstore.store.opening import Identities, Opened, Way
from taqstore.store.reader import Store
from taqstore.together.agreed import put_together, shared_groups
from taqstore.together.checks import Duplicates
from taqstore.together.joined_array import JoinedArray
from taqstore.together.parts import Part

if TYPE_CHECKING:
    import zarr

_SCHEME = "several://"
"""Of an address that nobody can take for one of a store to write to."""


@dataclass(frozen=True)
class Places(Location):
    """Where several stores are. Nothing is written there."""

    @property
    def name(self) -> str:
        """What the stores are called."""
        return " + ".join(address.rsplit("/", 1)[-1] for address in str(self).split(" + "))

    def __str__(self) -> str:
        return self.url.removeprefix(_SCHEME)

    def backend(self, *, read_only: bool = True) -> NoReturn:
        """Refuse: there is no one place."""
        what, remedy = "several stores read as one are no store to write to", "taqstore merge"
        raise MisuseError(problem(what, where=str(self), remedy=remedy))

    def zarr_store(self, *, read_only: bool) -> NoReturn:
        """Refuse: there is no one place."""
        self.backend()


class JoinedStore(Store):
    """Several stores read as one, as `taqstore merge` would write them: see `Store`.

    Attributes
    ----------
    stores
        The stores, in order.
    notes
        Which groups were left out, and why, a line each.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        way: Way,
        groups: Sequence[str],
        renumber: bool,
        duplicates: Duplicates,
    ) -> None:
        self.stores = [
            store.reading(chunks=None, checksum=True, incomplete=True) for store in stores
        ]
        self._asked = tuple(path.strip("/") for path in groups)
        self._renumber, self._duplicates = renumber, duplicates
        self._chunks, self._checksum, self._incomplete = way
        self.location = Places(_SCHEME + " + ".join(str(store.location) for store in stores), None)
        self._datasets, self._views, self._labels = {}, {}, {}
        self._ways = {way: self}
        self._put_together()

    def _put_together(self) -> None:
        self.notes: list[str] = []
        paths = shared_groups(self.stores, self._asked, self.notes, leave_out=True)
        self._together = put_together(
            self.stores,
            paths,
            renumber=self._renumber,
            duplicates=self._duplicates,
            trust=True,
        )
        roots = [store.root for store in self.stores]
        self.root = Root(
            format=max(root.format for root in roots),
            uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(root.uuid for root in roots))),
            created_by=roots[0].created_by,
            groups=tuple(sorted(paths)),
        )

    def opener(self) -> Callable[[], Store]:
        """What opens the stores again, for another process."""
        return partial(
            _opened_again,
            [store.opener() for store in self.stores],
            way=(self._chunks, self._checksum, self._incomplete),
            groups=self._asked,
            renumber=self._renumber,
            duplicates=self._duplicates,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the groups that the stores have together."""
        return self.root.groups

    @property
    def digest(self) -> str:
        """Identity of the content: changes with every recorded write to one of the stores."""
        content = [[store.digest for store in self.stores], self._renumber, self._duplicates]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def stored_bytes(self, path: str) -> dict[str, int] | None:
        """Bytes of each data variable of a group where it lies; None where one is of format 1."""
        found: dict[str, int] = {}
        for store in self.stores:
            sizes = store.stored_bytes(path) if path in store.paths else {}
            if sizes is None:
                return None
            found = {name: size + found.get(name, 0) for name, size in sizes.items()} or found
        return found

    def identities(self, path: str, name: str) -> Identities | None:
        """None: files of several stores are told apart in each of them."""
        return None

    def refresh(self, *paths: str) -> None:
        """Look at groups again, in every store; all are put together anew."""
        for store in self.stores:
            store.refresh(*(path for path in paths if path in store.paths))
        self._put_together()
        for view in self._ways.values():
            view.__dict__.update(
                notes=self.notes, root=self.root, _together=self._together,
                _views={}, _datasets={}, _labels={},
            )  # fmt: skip

    @property
    def remote(self) -> bool:
        """Whether one of the stores is on no local disk."""
        return any(store.remote for store in self.stores)

    def staging(self, most: int) -> JoinedStore:
        """The same stores, those on no local disk staged: see `Store.staging`."""
        if not self.remote or not most:
            return self
        way = self._chunks, self._checksum, self._incomplete, most
        if way not in self._ways:
            view = copy(self)
            view.stores, view._staged = [store.staging(most) for store in self.stores], (most,)
            view._datasets, view._views, view._labels = {}, {}, {}
            view._put_together()
            self._ways[way] = view
        found = self._ways[way]
        assert isinstance(found, JoinedStore)
        return found

    def _view(self, path: str) -> Opened:
        if path not in self._views:
            if path not in self.paths:
                raise self._no_group(path)
            self._views[path] = self._joined(path)
        return self._views[path]

    def _no_group(self, path: str) -> MissingError:
        without = [store for store in self.stores if path not in store.paths]
        what = f"no group {path!r}"
        if 0 < len(without) < len(self.stores):
            where, remedy = str(without[0].location), "the other stores have it: open those alone"
            return MissingError(problem(what, where=where, remedy=remedy))
        if not without:
            remedy = "open the store alone that is asked for" if not self._asked else "name it too"
            what = f"{path} is not of several stores as one"
            return MissingError(problem(what, where=str(self.location), remedy=remedy))
        return MissingError(problem(what, where=str(self.location), remedy=meant(path, self.paths)))

    def _joined(self, path: str) -> Opened:
        template, parts = self._together.template(path), self._together.parts[path]
        rows = self._together.rows(path)
        mask = np.zeros([template.sizes[dim] for dim in template.item_dims], bool)
        for part, at in zip(parts, rows, strict=True):
            mask[at] |= part.mask
        arrays = partial(_array, template, parts, _Held.of(parts, rows, mask))
        return Opened(_node(template, self.root), mask, array_of=arrays)

    def _records(self) -> list[dict[str, Any] | BadRecord]:
        found: list[dict[str, Any] | BadRecord] = []
        there = set()
        for record in (one for store in self.stores for one in store._records()):
            name = record.get("id") if isinstance(record, dict) else None
            if name is None or name not in there:
                there.add(name)
                found.append(record)
        return found


def _opened_again(openers: Sequence[Callable[[], Store]], **how: Any) -> JoinedStore:
    return JoinedStore([opener() for opener in openers], **how)


@dataclass(frozen=True)
class _Held:
    """Which part holds what of a group: parameters of `JoinedArray`."""

    owner: np.ndarray
    places: Sequence[np.ndarray]

    @classmethod
    def of(cls, parts: Sequence[Part], rows: Sequence[np.ndarray], mask: np.ndarray) -> _Held:
        """Of each item, the first part that has it."""
        # Later parts first: what an earlier one has is its own.
        numbered = list(enumerate(zip(parts, rows, strict=True)))[::-1]
        owner, places = np.zeros(mask.shape, np.int64), []
        for number, (part, at) in numbered:
            owner[at] = number  # where no part has the item: it reads as fill
            place = np.full(len(mask), -1)
            place[at] = part.places
            places.append(place)
        for number, (part, at) in numbered:
            owner[at] = np.where(part.mask, number, owner[at])
        by_row = owner.reshape(len(owner), -1)
        if owner.size and (by_row == by_row[:, :1]).all():
            owner = by_row[:, 0]
        return cls(owner, places[::-1])


def _array(
    template: Template, parts: Sequence[Part], held: _Held, name: str, way: Way
) -> ArrayReader:
    arrays = [part.array(name, way) for part in parts]
    shape = template.shape(template.array(name))
    if len(arrays) == 1 and shape == arrays[0].shape:
        return arrays[0]
    return JoinedArray(arrays, shape=shape, owner=held.owner, places=held.places)


def _node(template: Template, root: Root) -> zarr.Group:
    """The group's documents and coordinates, in memory; none of its data."""
    staging = Staging()
    create_arrays(staging.root, template)
    extents = tuple(template.item_extent(dim) for dim in template.item_dims)
    record = GroupRecord(
        template.path, template.kind, tuple(template.item_dims), extents, root.identity
    )
    node: Any = staging.root[template.path]
    node.update_attributes({"taqstore": record.marker()})
    return cast("zarr.Group", node)
