"""Bytes of files that lie far away: asked for once, several at a time, kept within a stated amount.

What was fetched lately stays in memory, so that parts of one file, whoever asks for them, are one
request. A store that is read again and again also stages what it fetches on the local disk.
Whatever comes from here is compared with its checksum by who decodes it, wherever it was kept.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from taqstore.arrays.at_once import at_once
from taqstore.arrays.staged import Staged, staged_here
from taqstore.layout.item_records import Identity
from taqstore.place.backend import Backend

Raw: TypeAlias = bytes | memoryview
KEPT_BYTES = 64 << 20
"""Of files fetched lately that a store keeps in memory."""


@dataclass(frozen=True)
class Piece:
    """A file, or a part of one.

    Parameters
    ----------
    key
        Of the file, below the root of the store.
    identity
        Size and fingerprint by which its item owns it; None where nothing tells.
    start, length
        Of the part; a length of None is all of it.
    """

    key: str
    identity: Identity | None = None
    start: int = 0
    length: int | None = None


class Pieces:
    """The files of one store that is not on a local disk; safe to use from several threads.

    Parameters
    ----------
    backend
        Where they lie.
    staged
        Bytes that may be staged on the local disk, all stores of this process together; 0: none.
    """

    def __init__(self, backend: Backend, *, staged: int = 0, token: str = "") -> None:
        self.backend, self.most_staged = backend, staged
        self._token = token or secrets.token_hex(8)
        self._kept: OrderedDict[Piece, Raw] = OrderedDict()
        self._bytes = 0
        self._coming: dict[Piece, Future[Raw | None]] = {}
        self._lock = Lock()
        _KNOWN[self._token] = self

    def __reduce__(self) -> tuple[Any, ...]:
        # All arrays and tasks of a worker share what it has fetched.
        return _again, (self.backend, self.most_staged, self._token)

    def fetch(self, pieces: Sequence[Piece]) -> list[Raw | None]:
        """The bytes of each, in order; None where there is no such file.

        A part that reaches over the end of its file is as long as the file has bytes for it.
        """
        wanted = list(dict.fromkeys(pieces))
        found, mine, theirs = self._looked_up(wanted)
        try:
            for piece, raw in zip(mine, at_once(self._ask, mine), strict=True):
                found[piece] = raw
                self._keep(piece, raw)
        except BaseException as error:
            self._failed(mine, error)
            raise
        for piece, future in theirs.items():
            found[piece] = future.result()
        return [found[piece] for piece in pieces]

    def _looked_up(
        self, wanted: Iterable[Piece]
    ) -> tuple[dict[Piece, Raw | None], list[Piece], dict[Piece, Future[Raw | None]]]:
        found: dict[Piece, Raw | None] = {}
        mine, theirs = [], {}
        with self._lock:
            for piece in wanted:
                if piece in self._kept:
                    self._kept.move_to_end(piece)
                    found[piece] = self._kept[piece]
                elif piece in self._coming:
                    theirs[piece] = self._coming[piece]
                else:
                    self._coming[piece] = Future()
                    mine.append(piece)
        return found, mine, theirs

    def _ask(self, piece: Piece) -> Raw | None:
        area = self._area
        name = self._name(piece)
        if area is not None and piece.identity is not None:
            raw = area.read(name)
            if raw is not None:
                return raw
        if piece.length is None:
            raw = self.backend.read(piece.key)
        else:
            raw = self.backend.read_range(piece.key, piece.start, piece.length)
            if raw is not None and len(raw) > piece.length:  # a web server that knows no ranges
                raw = raw[piece.start : piece.start + piece.length]
        if area is not None and piece.identity is not None and raw is not None:
            area.keep(name, raw)
        return raw

    def _name(self, piece: Piece) -> str:
        return f"{self.backend.name}\0{piece}"

    @property
    def _area(self) -> Staged | None:
        return staged_here(self.most_staged) if self.most_staged else None

    def _keep(self, piece: Piece, raw: Raw | None) -> None:
        with self._lock:
            if raw is not None and len(raw) <= KEPT_BYTES:
                self._kept[piece] = raw
                self._bytes += len(raw)
            while self._bytes > KEPT_BYTES:
                _, old = self._kept.popitem(last=False)
                self._bytes -= len(old)
            future = self._coming.pop(piece)
        future.set_result(raw)

    def _failed(self, mine: Iterable[Piece], error: BaseException) -> None:
        with self._lock:
            left = [self._coming.pop(piece) for piece in mine if piece in self._coming]
        for future in left:
            future.set_exception(error)

    def forget(self, pieces: Iterable[Piece]) -> None:
        """Ask for these again: what came of them was not what was written."""
        area, gone = self._area, list(pieces)
        with self._lock:
            for piece in gone:
                self._bytes -= len(self._kept.pop(piece, b""))
        if area is not None:
            for piece in gone:
                area.drop(self._name(piece))


_KNOWN: WeakValueDictionary[str, Pieces] = WeakValueDictionary()


def _again(backend: Backend, staged: int, token: str) -> Pieces:
    known = _KNOWN.get(token)
    return known if known is not None else Pieces(backend, staged=staged, token=token)
