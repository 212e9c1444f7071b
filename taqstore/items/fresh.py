"""Records that were committed alone: known by name when a group is opened, read when one is asked.

A listing tells which items are flagged and how long their records are. On a local disk they are all
read with the group; far away that is a request each, for items of which most are never read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from taqstore.items.flag_files import flag_bytes, is_claim, item_of_flag, record_of_flag
from taqstore.layout.item_records import Item, ItemLayout
from taqstore.metadata.sealed import damaged
from taqstore.metadata.tree import Loaded
from taqstore.names import COMMIT
from taqstore.place.backend import Backend


class FreshRecords(Mapping[Item, bytes]):
    """Records by item, of those whose flag was there when it was looked.

    Attributes
    ----------
    gone
        Items whose flag is not there any more: a writer has closed them since.

    Parameters
    ----------
    backend, loaded, layout
        As of `Items`.
    names
        Flags that were listed, by item.
    known
        Records that were read before.
    """

    def __init__(
        self,
        backend: Backend,
        loaded: Loaded,
        layout: ItemLayout,
        names: Mapping[Item, str],
        known: Mapping[Item, bytes] | None = None,
    ) -> None:
        self._backend, self._loaded, self._layout = backend, loaded, layout
        self._names = dict(names)
        self._records = {item: known[item] for item in names if item in known} if known else {}
        self.gone: set[Item] = set()

    def __iter__(self) -> Iterator[Item]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, item: object) -> bool:
        return item in self._names

    def __getitem__(self, item: Item) -> bytes:
        """The record of an item.

        Raises
        ------
        KeyError
            It is not flagged, or a writer has closed it since.
        StoreError
            Its flag is damaged.
        """
        if item in self._names and item not in self._records:
            self.read([item])
        return self._records[item]

    def read(self, items: Iterable[Item]) -> bool:
        """Read those of some records that have not been, several at a time.

        Returns
        -------
        Whether none is gone.

        Raises
        ------
        StoreError
            A flag is damaged.
        """
        known = self._records.keys() | self.gone
        asked = [item for item in items if item in self._names and item not in known]
        keys = {item: f"{self._loaded.path}/{COMMIT}/{self._names[item]}" for item in asked}
        raws = self._backend.read_many(keys.values())
        for item, key in keys.items():
            raw = raws[key]
            if raw is None:
                self.gone.add(item)
                continue
            if is_claim(raw):
                del self._names[item]
                continue
            record = record_of_flag(raw, self._loaded.scope, self._layout, item)
            if record is None:
                raise damaged(key, "not what was written", "damaged completion flag")
            self._records[item] = record
        return not self.gone

    @property
    def records(self) -> Mapping[Item, bytes]:
        """Those that have been read."""
        return self._records


def listed_flags(
    backend: Backend, loaded: Loaded, layout: ItemLayout, dims: int
) -> dict[Item, str]:
    """Names of the flags of a group, by item; sizes are compared, contents are not.

    Claims of items that are being written lie among them, and are never as long as a flag.

    Raises
    ------
    StoreError
        A file is not as long as a record, and no claim.
    """
    prefix, expected = f"{loaded.path}/{COMMIT}", flag_bytes(layout)
    if not backend.remote:  # each is read, which tells more than its size
        named = ((item_of_flag(name, dims), name) for name in backend.names(prefix))
        return {item: name for item, name in named if item is not None}
    sizes = {
        name: size
        for name, size in backend.sizes(prefix).items()
        if item_of_flag(name, dims) is not None
    }
    others = [f"{prefix}/{name}" for name, size in sizes.items() if size != expected]
    for key, raw in backend.read_many(others).items():
        if raw is not None and not is_claim(raw) and len(raw) != expected:
            raise damaged(key, "not what was written", "damaged completion flag")
        if raw is None or is_claim(raw):
            del sizes[key.removeprefix(f"{prefix}/")]
    items = ((item_of_flag(name, dims), name) for name in sizes)
    return {item: name for item, name in items if item is not None}
