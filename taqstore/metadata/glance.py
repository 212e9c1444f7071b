"""A glance at a store on this machine's disk: its names, for a shell that completes words.

A shell waits, so the root document is read and nothing is checked, NumPy and zarr are not imported,
and what is missing, damaged or elsewhere has no names. Names go into a command line as they are:
only those are told that no shell takes for anything else.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taqstore.names import ITEMS

_KEY = "zarr.json"
_MOST_BYTES = 64 << 20
_MARKER = b'"taqstore"'
# The marker is among the first attributes, and these are what the document begins with.
_HEAD = 1 << 16
_SAFE = re.compile(r"[\w][\w.:+/@=-]*", re.ASCII)
_LONGEST, _MOST_LABELS = 200, 1 << 14


def looks_like_store(folder: str | os.PathLike[str]) -> bool:
    """Whether the root document of a folder begins as that of a store does."""
    try:
        return _MARKER in _read(Path(folder, _KEY), most=_HEAD)
    except OSError:
        return False


def around(path: str | os.PathLike[str]) -> Path | None:
    """The store that a path is, or lies in."""
    try:
        place = Path(os.path.abspath(path))
    except (OSError, ValueError):
        return None
    return next((one for one in (place, *place.parents) if looks_like_store(one)), None)


@dataclass(frozen=True)
class Glance:
    """Names of a store.

    Parameters
    ----------
    folder
        Where it is.
    groups
        Paths of its data groups.
    documents
        The other documents of metadata, by path, where the root has copies of them.
    """

    folder: Path
    groups: tuple[str, ...] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, address: str) -> Glance | None:
        """The store at an address; None where none can be looked at."""
        try:
            folder = _folder(address)
            if folder is None:
                return None
            root = json.loads(_read(folder / _KEY, most=_MOST_BYTES))
            copies = (root.get("consolidated_metadata") or {}).get("metadata") or {}
            marker = _marker(root)
            listed = marker.get("groups") or (p for p, d in copies.items() if _marker(d))
            return cls(folder, tuple(_safe(listed)), copies) if marker else None
        except Exception:  # a shell asks: whatever is wrong with the store, it has no names
            return None

    def arrays(self, path: str) -> dict[str, Mapping[str, Any]]:
        """Documents of the variables and coordinates of a group, by name."""
        prefix = f"{path}/"
        found = {
            key.removeprefix(prefix): document
            for key, document in self.documents.items()
            if key.startswith(prefix) and isinstance(document, dict)
        }
        if not found:
            found = dict(self._arrays_on_disk(path))
        return {
            name: document
            for name, document in found.items()
            if document.get("node_type") == "array" and "/" not in name and _is_safe(name)
        }

    def _arrays_on_disk(self, path: str) -> Iterator[tuple[str, Any]]:
        # While the structure changes, the root has no copies.
        if path not in self.groups:
            return
        for name in sorted(os.listdir(self.folder / path)):
            if name != ITEMS and (key := self.folder / path / name / _KEY).is_file():
                yield name, json.loads(_read(key, most=_MOST_BYTES))

    def dimensions(self, path: str) -> list[str]:
        """Dimensions of a group's arrays."""
        names = [n for d in self.arrays(path).values() for n in d.get("dimension_names") or ()]
        return list(_safe(names))

    def labels(self, path: str, name: str) -> list[str]:
        """Texts of a coordinate of a group, each once; empty where they are compressed."""
        document = self.arrays(path).get(name, {})
        codecs = [codec["name"] for codec in document.get("codecs", ())]
        if codecs != ["vlen-utf8", "crc32c"] or len(document["shape"]) != 1:
            return []
        try:
            raw = _read(self.folder / path / name / "c" / "0", most=1 << 20)
        except OSError:
            return []
        return list(_safe(_texts(raw)))

    def every_label(self, paths: Iterable[str], name: str) -> list[str]:
        """Texts of a coordinate of several groups, each once."""
        return list(dict.fromkeys(text for path in paths for text in self.labels(path, name)))


def _folder(address: str) -> Path | None:
    if "://" not in address:
        return Path(address).absolute()
    from taqstore.place.location import Location

    return Location.parse(address).folder


def _marker(document: Any) -> dict[str, Any]:
    # As `sealed.marker_of`; with it come checksums, and 30 ms.
    found = document["attributes"].get("taqstore", {})
    return found if isinstance(found, dict) else {}


def _texts(raw: bytes) -> Iterator[str]:
    """Strings as zarr's `vlen-utf8` has them: a count, then each behind its length."""
    count, place = int.from_bytes(raw[:4], "little"), 4
    for _ in range(min(count, _MOST_LABELS)):
        length = int.from_bytes(raw[place : place + 4], "little")
        place += 4 + length
        if place > len(raw):
            return
        yield raw[place - length : place].decode("utf-8", "replace")


def _safe(names: Iterable[Any]) -> Iterator[str]:
    return (name for name in dict.fromkeys(map(str, names)) if _is_safe(name))


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return len(name) <= _LONGEST and _SAFE.fullmatch(name) is not None and ".." not in parts


def _read(path: Path, *, most: int) -> bytes:
    """The beginning of a plain file; a pipe would wait for a writer that never comes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(str(path))
    with open(descriptor, "rb") as file:
        return file.read(most)
