"""One small store at every kind of address."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from taqstore.place.location import Location
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=4, blocks=2, hidden=16)


def make_folder(place: Path) -> Path:
    """A store `run.zarr` in a folder, with statistics of its sites."""
    return make_store(place / "run.zarr", shape=SHAPE)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by key."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def put(folder: Path, address: Any, options: dict[str, str] | None = None) -> None:
    """Put every file of a folder at an address, byte by byte."""
    backend = Location.parse(address, options).backend(read_only=False)
    for key, content in contents(folder).items():
        backend.write(key, [content])


def zipped(folder: Path, to: Path, *, nested: bool) -> Path:
    """The folder as a zip file; `nested` as `zip -r` makes it, with the folder in it."""
    root, base = (folder.parent, folder.name) if nested else (folder, ".")
    return Path(shutil.make_archive(str(to.with_suffix("")), "zip", root, base))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class _Listless(_Quiet):
    def list_directory(self, path: Any) -> None:
        self.send_error(404)


@contextmanager
def web_server(folder: Path, *, lists: bool = True) -> Iterator[str]:
    """The address of a web server on loopback that serves a folder."""
    handler = partial(_Quiet if lists else _Listless, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
