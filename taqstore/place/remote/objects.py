"""Objects of an object store, each whole or not there: put, put if absent, put if unchanged.

A tag is what the store says of an object's content: an ETag; of Google's, the generation. Where a
request was cut off, so that nobody knows whether it was done, the object is read back and compared
before it is put again.
"""

from __future__ import annotations

import itertools
import queue
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from taqstore.place.remote.remote_errors import check_absent, remote_errors

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

SIDE_BY_SIDE = 16
"""Requests under way at once."""
PART = 5 << 20
"""Bytes of a part of a large object; what is no larger is put by one request."""
_PARTS_UNDER_WAY = 2
_TRIES = 5
# The answer of servers that know no conditions, and do not pass over them.
_NOT_IMPLEMENTED = re.compile(r"\b501\b.{0,40}Not ?Implemented|<Code>NotImplemented</Code>")


class Objects:
    """The objects of one store, through obstore; safe to use from several threads."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        # Google compares generations, where others compare ETags.
        google = type(client).__name__ == "GCSStore"
        self._tag: Literal["version", "e_tag"] = "version" if google else "e_tag"
        self.no_tag = "1" if google else f'"{"0" * 32}"'
        """One that no object has."""

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Content and tag; None where there is no such object."""
        import obstore

        with remote_errors(self.name, key):
            try:
                found = obstore.get(self.client, key)
                return bytes(found.bytes()), str(found.meta[self._tag])
            except FileNotFoundError as error:
                check_absent(error, self.name)
                return None

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """A part of the content, cut where it ends; None where there is no such object."""
        import obstore

        with remote_errors(self.name, key):
            try:
                return bytes(obstore.get_range(self.client, key, start=start, length=length))
            except FileNotFoundError as error:
                check_absent(error, self.name)
                return None

    def get_many(self, keys: Iterable[str]) -> dict[str, tuple[bytes, str] | None]:
        """Contents and tags of several objects, asked for side by side."""
        wanted = list(keys)
        return dict(zip(wanted, self.each(self.get, wanted), strict=True))

    def each(self, ask: Callable[[Any], Any], over: Iterable[Any]) -> Iterator[Any]:
        """A function of each, side by side; in order."""
        wanted = list(over)
        if len(wanted) < 2:
            return iter([ask(one) for one in wanted])
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(wanted))) as pool:
            return iter(list(pool.map(ask, wanted)))

    def head(self, key: str) -> tuple[int, str] | None:
        """Bytes and tag; None where there is no such object."""
        import obstore

        with remote_errors(self.name, key):
            try:
                found = obstore.head(self.client, key)
            except FileNotFoundError as error:
                check_absent(error, self.name)
                return None
            return int(found["size"]), str(found[self._tag])

    def listed(self, prefix: str) -> tuple[list[str], dict[str, int]]:
        """Names of folders, and sizes of objects by name, directly below a prefix."""
        import obstore

        with remote_errors(self.name, prefix):
            found = obstore.list_with_delimiter(self.client, prefix or None)
            return (
                [str(name).rpartition("/")[2] for name in found["common_prefixes"]],
                {str(o["path"]).rpartition("/")[2]: int(o["size"]) for o in found["objects"]},
            )

    def below(self, prefix: str) -> list[str]:
        """Keys of all objects below a prefix."""
        import obstore

        with remote_errors(self.name, prefix):
            pages = obstore.list(self.client, prefix, chunk_size=1000)
            return [str(found["path"]) for page in pages for found in page]

    def delete(self, keys: list[str]) -> None:
        """Remove objects that may not be there."""
        import obstore

        if keys:
            with remote_errors(self.name, keys[0]):
                try:
                    obstore.delete(self.client, keys)
                except FileNotFoundError:
                    return

    def create(self, key: str, content: bytes) -> str | None:
        """Put where nothing is, or the very same; the tag, None where something else is."""
        return self._conditional(key, content, None)

    def replace(self, key: str, content: bytes, tag: str) -> str | None:
        """Put where the object has that tag, or this content; the new tag, or None."""
        return self._conditional(key, content, tag)

    def _conditional(self, key: str, content: bytes, tag: str | None) -> str | None:
        from obstore import put
        from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

        mode: Any = "create" if tag is None else {self._tag: tag}
        for attempt in itertools.count(1):
            with remote_errors(self.name, key):
                try:
                    return str(put(self.client, key, content, mode=mode)[self._tag])
                except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                    # It may be ours: an answer that was lost on its way, and asked for again.
                    found = self.get(key)
                    return found[1] if found is not None and found[0] == content else None
                except GenericError as error:
                    if _NOT_IMPLEMENTED.search(str(error)):
                        raise NotImplementedError(str(error)) from error
                    found = self.get(key)
                    if found is not None and found[0] == content:
                        return found[1]
                    if (None if found is None else found[1]) != tag:
                        return None
                    if attempt == _TRIES:
                        raise
            time.sleep(0.1 * 2**attempt)
        raise AssertionError

    def put(self, key: str, content: bytes) -> None:
        """Put, whatever is there."""
        from obstore import put

        with remote_errors(self.name, key):
            put(self.client, key, content, use_multipart=False)

    def put_parts(
        self, key: str, pieces: Iterator[bytes | memoryview], at_last: Callable[[], None]
    ) -> int:
        """Put a large object as a stream of parts; its bytes.

        Parameters
        ----------
        at_last
            Called when all has been sent, before it becomes an object: what it raises leaves all
            as it was.
        """
        total, waiting = 0, bytearray()
        with _Upload(self.client, key) as upload, remote_errors(self.name, key):
            for piece in pieces:
                view = memoryview(piece).cast("B")
                total += view.nbytes
                for start in range(0, view.nbytes, PART):
                    waiting += view[start : start + PART]
                    if len(waiting) >= PART:
                        upload.send(bytes(waiting))
                        waiting.clear()
            at_last()
            upload.send(bytes(waiting))
            upload.finish()
        return total


class _Upload:
    """An object that is put in parts by a thread of its own.

    obstore asks for parts from inside its event loop, where what makes them could not ask obstore
    for anything. Left before `finish`, nothing becomes an object.
    """

    def __init__(self, client: Client, key: str) -> None:
        self._client, self._key = client, key
        self._parts: queue.Queue[bytes | _Broken | None] = queue.Queue(maxsize=1)
        self._pool = ThreadPoolExecutor(1)
        self._done: Future[Any] | None = None

    def __enter__(self) -> _Upload:
        self._done = self._pool.submit(self._put)
        return self

    def _put(self) -> None:
        from obstore import put

        put(
            self._client,
            self._key,
            self._given(),
            use_multipart=True,
            chunk_size=PART,
            max_concurrency=_PARTS_UNDER_WAY,
        )

    def _given(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            if isinstance(part, _Broken):
                raise part
            yield part

    def send(self, part: bytes | _Broken | None) -> None:
        """Hand a part over, once the one before is taken; raises what the upload has met."""
        assert self._done
        while True:
            with suppress(queue.Full):
                self._parts.put(part, timeout=0.1)
                return
            if self._done.done():
                self._done.result()
                return

    def finish(self) -> None:
        """Wait until it is an object."""
        assert self._done
        self.send(None)
        self._done.result()

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        assert self._done
        if kind is not None and not self._done.done():
            with suppress(Exception):
                self.send(_Broken())
                self._done.result()
        self._pool.shutdown()


class _Broken(Exception):  # noqa: N818
    """The parts end here, and are not all."""
