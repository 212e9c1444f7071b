"""Outputs that are not on this disk: made here, then put where they belong, whole.

A file is one object and appears at once. Objects of a folder appear one after another, the one by
which such an output is known last: without it there is no output.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from taqstore.errors import TaqError, problem
from taqstore.place.backend import Backend
from taqstore.place.location import Location

# `Path` turns `s3://bucket` into `s3:/bucket`. One letter is a drive of Windows.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_LOCAL = ("file", "local")
_PIECE = 8 << 20
METADATA = "zarr.json"
"""Of a node of Zarr: a store has one."""
ELSEWHERE = "choose a path that has nothing to do with a store"


class RemotePath(PosixPath):
    """A URL that is taken apart and put together as a path, and shown as a URL."""

    def __str__(self) -> str:
        return _URL.sub(r"\1://", super().__str__(), count=1)


def output_path(out: str | os.PathLike[str]) -> Path:
    """The path of an output: of this disk, or a `RemotePath`. `file://` is this disk."""
    text = os.fspath(out)
    found = _URL.match(text)
    if found is None:
        return Path(text)
    if found[1] in _LOCAL:
        return Path(unquote(urlsplit(_URL.sub(r"\1:///", text, count=1)).path))
    return RemotePath(text)


@dataclass(frozen=True)
class Place:
    """Where a remote output goes.

    Parameters
    ----------
    url
        Its address.
    backend
        Of the whole bucket.
    key
        Its name there, or what names of a folder begin with.
    """

    url: str
    backend: Backend
    key: str

    @classmethod
    def of(
        cls,
        out: str | os.PathLike[str],
        *,
        read_only: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Place:
        """The place at an address; `options` by default those that hold now.

        Raises
        ------
        TaqError
            It names no object, or nothing can be written there.
        """
        url = str(output_path(out))
        root, _, key = url.partition("://")[2].partition("/")
        if not root or not key:
            what, remedy = "names no file in a bucket", "write it like s3://bucket/folder/name"
            raise TaqError(problem(what, where=url, remedy=remedy))
        location = Location.parse(f"{url.partition('://')[0]}://{root}", options)
        return cls(url, location.backend(read_only=read_only), key)

    def files(self) -> dict[str, int]:
        """Names below it, and their bytes: of a folder."""
        # Some list an object below its own name.
        is_file = self.backend.size(self.key) is not None
        return {} if is_file else dict(_below(self.backend, self.key))

    def check(self, is_marked: Callable[[bytes], bool], *, most: int) -> None:
        """Refuse a place that is a store, lies in one, or has one below it, by a TaqError."""
        self.check_above(is_marked, most=most)
        for name in self.files():
            folder, _, last = name.rpartition("/")
            inside = f"{self.key}/{folder}".rstrip("/")
            if last == METADATA and self._is_store(inside, is_marked, most):
                what = "a store lies in this folder"
                raise TaqError(problem(what, where=self.url, found=folder, remedy=ELSEWHERE))

    def check_above(self, is_marked: Callable[[bytes], bool], *, most: int) -> None:
        """Refuse a place that is a store or lies in one, by a TaqError."""
        parts = self.key.split("/")
        for length in range(len(parts), -1, -1):
            above = "/".join(parts[:length])
            if self._is_store(above, is_marked, most):
                what = "is a store" if above == self.key else "lies in a store"
                found = above or self.url.removesuffix(f"/{self.key}")
                raise TaqError(problem(what, where=self.url, found=found, remedy=ELSEWHERE))

    def _is_store(self, folder: str, is_marked: Callable[[bytes], bool], most: int) -> bool:
        key = f"{folder}/{METADATA}".lstrip("/")
        size = self.backend.size(key)
        if size is None:
            return False
        return size > most or is_marked(self.backend.read(key) or b"")

    def check_file(self, *, force: bool) -> None:
        """Refuse what a file may not replace."""
        if self.backend.size(self.key) is not None:
            self._check_forced(force)
        elif self.backend.names(self.key):
            what = "not a file, so it is not replaced by one"
            raise TaqError(problem(what, where=self.url, remedy="choose another path"))

    def check_folder(self, content: Sequence[str], *, force: bool) -> None:
        """Refuse what a folder of such content may not replace."""
        if self.backend.size(self.key) is not None:
            self._check_forced(force)
            what = "not a folder, so it is not replaced by one"
            raise TaqError(problem(what, where=self.url, remedy="choose another path"))
        if standing := self.files():
            self._check_forced(force)
            foreign = [f for f in standing if not any(fnmatchcase(f, p) for p in content)]
            if foreign:
                what = "not an earlier output of this kind, so it is not replaced"
                remedy = "choose another path"
                raise TaqError(problem(what, where=self.url, found=min(foreign), remedy=remedy))

    def _check_forced(self, force: bool) -> None:
        if not force:
            remedy = "choose another path, or replace it with --force"
            raise TaqError(problem("the target exists", where=self.url, remedy=remedy))


@contextmanager
def sent_file(place: Place, *, force: bool) -> Iterator[Path]:
    """Hand out the path of a file to make, which is put in its place at the end."""
    place.check_file(force=force)
    with TemporaryDirectory(prefix="taqstore-") as folder:
        fresh = Path(folder, place.key.rpartition("/")[2])
        yield fresh
        place.check_file(force=force)
        _put(place.backend, place.key, fresh)
        place.backend.flush()


@contextmanager
def sent_folder(place: Place, *, content: Sequence[str], force: bool) -> Iterator[Path]:
    """Hand out the path of a folder to make, whose files are put in their places at the end."""
    place.check_folder(content, force=force)
    with TemporaryDirectory(prefix="taqstore-") as folder:
        fresh = Path(folder, place.key.rpartition("/")[2])
        yield fresh
        place.check_folder(content, force=force)
        names = [p.relative_to(fresh).as_posix() for p in sorted(fresh.rglob("*")) if p.is_file()]
        # What an output is known by goes first and comes last: a half one is known for none.
        names.sort(key=lambda name: name == content[0])
        standing = sorted(place.files(), key=lambda name: name != content[0])
        for name in standing:
            if name == content[0] or name not in names:
                place.backend.delete(f"{place.key}/{name}")
        for name in names:
            _put(place.backend, f"{place.key}/{name}", fresh / name)
        place.backend.flush()


def described(path: RemotePath) -> list[int]:
    """Bytes of the file, or of all files of the folder, that stands at a remote path."""
    place = Place.of(path, read_only=True)
    size = place.backend.size(place.key)
    return [*place.files().values()] if size is None else [size]


def _put(backend: Backend, key: str, file: Path) -> None:
    with file.open("rb") as stream:
        backend.write(key, _pieces(stream))


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _below(backend: Backend, prefix: str, within: str = "") -> Iterator[tuple[str, int]]:
    folder = f"{prefix}/{within}".rstrip("/")
    sizes = backend.sizes(folder)
    for name in backend.names(folder):
        if name in sizes:
            yield f"{within}{name}", sizes[name]
        else:
            yield from _below(backend, prefix, f"{within}{name}/")
