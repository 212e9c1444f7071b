"""A store in an object store: S3, Google Cloud Storage, Azure, whatever obstore reaches.

Kills lose nothing, for a put is whole or not there. What several writers share is put on the
condition that nobody has changed it since this one read it, under a lock that is a lease.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from taqstore.errors import TaqError
from taqstore.place.backend import Item, Piece
from taqstore.place.plain_files import check_key, is_foreign
from taqstore.place.remote import threads
from taqstore.place.remote.claims import Claims
from taqstore.place.remote.objects import PART, Objects
from taqstore.place.remote.single_writer import SingleWriter
from taqstore.place.remote.store_lock import StoreLock, superseded

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

_DOCUMENT, _SMALL, _MOST_REMEMBERED = "/zarr.json", 1 << 14, 1 << 13


class ObjectBackend:
    """The objects below one prefix; safe to use from several threads."""

    remote = True

    def __init__(self, client: Client, name: str) -> None:
        self.client, self._name = client, name
        self.objects = Objects(client, name)
        self._claims = Claims(self.objects)
        self._one_at_a_time = threading.Lock()
        self._holder = threading.local()
        self._alone: SingleWriter | None = None
        self._documents: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectBackend, (self.client, self._name)

    @property
    def name(self) -> str:
        """The address."""
        return self._name

    @cached_property
    def _place(self) -> tuple[Objects, str]:
        return _beside(self.client, self._name)

    @property
    def _beside(self) -> Objects:
        """Where locks lie; who only reads has no client for it."""
        return self._place[0]

    @cached_property
    def _lock(self) -> StoreLock:
        return StoreLock(self._beside, f"{self._place[1]}.lock", self._name)

    @property
    def _note(self) -> str:
        return f"{self._place[1]}.writer"

    @property
    def _tags(self) -> dict[str, str | None] | None:
        """What the thread that holds the lock has read, by key; None in others."""
        return getattr(self._holder, "tags", None)

    def read(self, key: str) -> bytes | None:
        """The whole object; None where there is none."""
        return self.read_many([key])[key]

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The whole objects, asked for side by side."""
        wanted = list(keys)
        for key in wanted:
            check_key(key)
        found = self.objects.get_many(wanted)
        self._remember({key: f[0] for key, f in found.items() if f is not None})
        if self._tags is not None:
            self._tags.update({key: None if f is None else f[1] for key, f in found.items()})
        return {key: None if f is None else f[0] for key, f in found.items()}

    def remembered(self, key: str) -> bytes | None:
        """What a small document was when this back end last read or wrote it."""
        return self._documents.get(key)

    def _remember(self, files: Mapping[str, bytes]) -> None:
        for key, content in files.items():
            if key.endswith(_DOCUMENT) and len(content) < _SMALL:
                self._documents[key] = content
        while len(self._documents) > _MOST_REMEMBERED:
            self._documents.pop(next(iter(self._documents)), None)

    def read_range(self, key: str, start: int, length: int) -> bytes | None:
        """A part of an object; None where there is none."""
        check_key(key)
        return self.objects.get_range(key, start, length)

    def names(self, prefix: str) -> list[str]:
        """Names directly below a prefix."""
        folders, sizes = self.objects.listed(prefix)
        return sorted(name for name in {*folders, *sizes} if not is_foreign(name))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of the objects directly below a prefix, by name."""
        _, sizes = self.objects.listed(prefix)
        return {name: size for name, size in sorted(sizes.items()) if not is_foreign(name)}

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        found = self.objects.head(key)
        return None if found is None else found[0]

    def write(self, key: str, pieces: Iterable[Piece]) -> int:
        """Put an object of an item; large ones as a stream of parts, a few in memory at a time."""
        self._claims.check()
        rest, small = iter(pieces), bytearray()
        for piece in rest:
            if len(small) + memoryview(piece).nbytes > PART:
                pieces = itertools.chain([bytes(small), piece], rest)
                # Parts take no condition: the claim is asked about when all of them are there.
                return self.objects.put_parts(key, pieces, partial(self._claims.check, sure=True))
            small += memoryview(piece).cast("B")
        self._put_once(key, bytes(small))
        return len(small)

    def _put_once(self, key: str, content: bytes) -> None:
        """Put what is not there yet, or what a writer that is no more has left."""
        if self._alone is not None:
            self.objects.put(key, content)
            return
        if self.objects.create(key, content) is not None:
            return
        found = self.objects.head(key)
        self._claims.check(sure=True)
        if found is None or self.objects.replace(key, content, found[1]) is None:
            raise superseded(f"{self._name}/{key}")

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Put several small objects, side by side, each if it is as the caller has read it."""
        self._remember(files)
        tags = self._tags
        if tags is None or self._alone is not None:
            for _ in self.objects.each(lambda item: self.objects.put(*item), files.items()):
                pass
            return
        self._lock.check()
        put = self.objects.each(lambda key: self._put_shared(key, files[key], tags), files)
        tags.update(zip(files, put, strict=True))

    def _put_shared(self, key: str, content: bytes, tags: Mapping[str, str | None]) -> str:
        """Put what writers share; the tag it has then."""
        tag = tags.get(key)
        objects = self.objects
        put = objects.create(key, content) if tag is None else objects.replace(key, content, tag)
        if put is None and key not in tags:
            # There, and never read: whoever is passed over by now is told so by its lease.
            found = objects.head(key)
            self._lock.check(sure=True)
            put = None if found is None else objects.replace(key, content, found[1])
        if put is None:
            raise superseded(f"{self._name}/{key}")
        return put

    def flush(self) -> None:
        """Nothing: a put that returned is durable."""

    def delete(self, key: str) -> None:
        """Remove an object, and all below it."""
        check_key(key)
        keys = self.objects.below(key)
        self.objects.delete([key, *keys])
        if self._tags is not None:
            gone = [k for k in self._tags if k == key or k.startswith(f"{key}/")]
            self._tags.update(dict.fromkeys(gone))

    def delete_all(self, keys: Iterable[str]) -> None:
        """Remove objects, about a thousand by one request."""
        gone = list(keys)
        self.objects.delete(gone)
        if self._tags is not None:
            self._tags.update(dict.fromkeys(gone))

    def begin(self, *, owner: str) -> None:
        """Where the store knows no conditions, be its only writer."""
        if self._alone is None and not self._lock.is_honoured():
            self._alone = SingleWriter(self._who, partial(self._beside.put, self._note), self._name)
        if self._alone is not None:
            self._alone.begin()

    def _who(self) -> bytes | None:
        found = self._beside.get(self._note)
        return None if found is None else found[0]

    def end(self) -> None:
        """Let others write, where only one may."""
        if self._alone is not None:
            self._alone.end()

    @contextmanager
    def locked(self, *, timeout: float | None = None) -> Iterator[None]:
        """Hold the store's lease, by one thread at a time."""
        with self._one_at_a_time:
            if self._alone is not None:
                with threads.locked(self._name, timeout):
                    yield
                return
            self._lock.acquire(timeout)
            self._holder.tags = {}
            try:
                yield
            finally:
                self._holder.tags = None
                with suppress(TaqError):  # others pass over it
                    self._lock.release()

    @contextmanager
    def claimed(self, group: str, item: Item, flag: str, size: int) -> Iterator[bool]:
        """Hold an item by a claim in the place of its flag."""
        if self._alone is not None:
            with threads.claimed(self._name, group, item) as held:
                yield held
            return
        with self._claims.claimed(flag, size) as held:
            yield held

    def any_claimed(self, group: str, items: Iterable[Item], flags: str) -> bool:
        """Whether a claim that is somebody's lies among the flags."""
        if self._alone is not None:
            return threads.any_claimed(self._name, group, items)
        return self._claims.any_held([f"{flags}/{name}" for name in self.sizes(flags)])

    def put_flag(self, key: str, content: bytes) -> None:
        """Put a flag in the place of the claim."""
        if self._alone is not None:
            self.objects.put(key, content)
        else:
            self._claims.flag(key, content)


def _beside(client: Client, name: str) -> tuple[Objects, str]:
    """Where locks lie, and how their keys begin: beside the store, in it where it is a bucket."""
    made: Any = client
    prefix = str(getattr(made, "prefix", None) or "").strip("/")
    if not prefix:
        return Objects(client, name), ".taqstore"
    above, _, last = prefix.rpartition("/")
    parent = type(made)(
        prefix=above or None,
        config=made.config,
        client_options=made.client_options,
        retry_config=made.retry_config,
        credential_provider=made.credential_provider,
    )
    return Objects(parent, name.rpartition("/")[0]), f".{last}"
