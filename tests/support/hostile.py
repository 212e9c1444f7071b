"""Stores that mean harm: whole, sealed, and lying about what they hold.

A seal protects from accidents alone. Whoever makes a store can seal it, so that everything a
document says is checked again when it is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from crc32c import crc32c
from numcodecs.zstd import Zstd

from support.builders import write_pooled
from taqstore.items.flag_files import flag_files, write_flag_files
from taqstore.items.flags import read_group
from taqstore.kinds.templates import latents_template
from taqstore.layout.item_records import ABSENT
from taqstore.layout.shards import fingerprint_of
from taqstore.layout.template import Template
from taqstore.metadata.group_record import GroupRecord, claim_of
from taqstore.metadata.root import KEY
from taqstore.metadata.sealed import Document, checksum, encoded, sealed
from taqstore.place.local_backend import LocalBackend
from taqstore.store.writer import create_store

Change = Callable[[Document], object]


class Hostile:
    """A store whose documents and files are changed and sealed anew.

    Parameters
    ----------
    path
        A store of format 2.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.backend = path, LocalBackend(path)

    def document(self, key: str) -> Document:
        """A metadata document as it lies there."""
        document: Document = json.loads((self.path / key / KEY).read_bytes())
        return document

    def root(self, change: Change) -> Hostile:
        """Change the root's document and seal it; its copies of others are dropped."""
        document = self.document("")
        document.pop("consolidated_metadata", None)
        change(document)
        (self.path / KEY).write_bytes(encoded(sealed(document)))
        return self

    def group(self, path: str, change: Change) -> Hostile:
        """Change a group's own document, and seal it."""
        document = self.document(path)
        change(document)
        (self.path / path / KEY).write_bytes(encoded(sealed(document)))
        return self.root(lambda document: None)

    def array(self, group: str, name: str, change: Change) -> Hostile:
        """Change an array's document; the group's record says that this is what was written."""
        document = self.document(f"{group}/{name}")
        change(document)
        (self.path / group / name / KEY).write_bytes(encoded(document))
        return self.claiming(group, documents={name: checksum(document)})

    def file(self, group: str, key: str, content: bytes) -> Hostile:
        """Put another file in place of one; the group's record says that it was written."""
        place = self.path / group / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return self.claiming(group, files={key: claim_of(content)})

    def coordinate(self, group: str, name: str, values: Any) -> Hostile:
        """Give a coordinate other values, as if they had been written."""
        array: Any = zarr.open_group(self.path, mode="r+", use_consolidated=False)[
            f"{group}/{name}"
        ]
        array[...] = values
        key = f"{name}/c/{'/'.join('0' * array.ndim)}"
        return self.file(group, key, (self.path / group / key).read_bytes())

    def claiming(
        self,
        group: str,
        *,
        documents: Mapping[str, int] | None = None,
        files: Mapping[str, tuple[int, int]] | None = None,
    ) -> Hostile:
        """Let a group's record say that these were written."""
        document = self.document(group)
        record = GroupRecord.of(document, group)
        record = replace(
            record,
            documents={**record.documents, **(documents or {})},
            files={**record.files, **(files or {})},
        )
        (self.path / group / KEY).write_bytes(encoded(record.in_document(document)))
        return self.root(lambda document: None)

    def shard(self, group: str, key: str, content: bytes, capacity: int | None) -> Hostile:
        """Put another data file in place of one, with a record of its item that fits it."""
        (self.path / group / key).write_bytes(content)
        items = read_group(self.backend, group)
        assert items is not None
        name, _, place = key.partition("/c/")
        coords = tuple(map(int, place.split("/")))
        item = items.layout.item_of(name, coords)
        owned = items.owned(item)
        assert owned is not None
        owned[name, coords] = (len(content), fingerprint_of(content, capacity))
        flags = np.ones(items.size, bool)
        record = items.layout.pack(items.loaded.scope, item, flags, list(owned.values()))
        write_flag_files(self.backend, flag_files(group, {item: record}))
        return self


def checked(content: bytes) -> bytes:
    """Content with the checksum that zarr's codec puts behind it."""
    return content + struct.pack("<I", crc32c(content))


def bomb(size: int = 3 << 28) -> bytes:
    """A few kilobytes of zstd that become `size` bytes, with a checksum."""
    return checked(bytes(Zstd(level=3).encode(np.zeros(size, np.uint8))))


def hollow(file: bytes) -> bytes:
    """A file of one frame whose header is as it was, and whose blocks are none, with a checksum."""
    header = 18
    return checked(file[:header] + bytes(b ^ 0xFF for b in file[header:-4]))


def nested(depth: int = 100_000) -> bytes:
    """JSON of lists in lists."""
    return b"[" * depth + b"]" * depth


def marker(**changes: Any) -> Change:
    """A change of the attribute `taqstore`."""
    return lambda document: document["attributes"]["taqstore"].update(changes)


def setting(*path: Any, to: Any) -> Change:
    """A change of one value somewhere in a document."""

    def change(document: Document) -> None:
        place: Any = document
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


POOLED = "pooled/timestep_stats/mlp.fc2"
LATENTS = "latents"


def small_latents() -> Template:
    """Latents of two images."""
    return latents_template(
        images=[0, 1],
        prompts=["a cat", "a dog"],
        seeds=[1, 2],
        cfg_weight=5.0,
        sigmas=np.array([1, 0.5, 0], np.float32),
        timesteps=np.array([1000, 500, 0], np.float32),
        shape=(8, 8, 16),
        attrs={},
    )


def make_small(path: Path) -> Hostile:
    """A store of two small groups, everything of it as it should be."""
    with create_store(path) as writer:
        group = writer.group(small_latents())
        for image in (0, 1):
            group.put("x", (image, 0, 0, 0, 0), np.full((1, 3, 8, 8, 16), image, np.float32))
            group.commit([(image,)])
    write_pooled(path)
    return Hostile(path)


def _codecs(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


def _array(name: str, change: Change, group: str = POOLED) -> Callable[[Hostile], object]:
    return lambda store: store.array(group, name, change)


def _group(change: Change, group: str = POOLED) -> Callable[[Hostile], object]:
    return lambda store: store.group(group, change)


def _root(change: Change) -> Callable[[Hostile], object]:
    return lambda store: store.root(change)


def _raw(key: str, content: bytes) -> Callable[[Hostile], object]:
    return lambda store: (store.path / key).write_bytes(content)


def _data_bomb(store: Hostile) -> None:
    key = "hist_counts/c/0/0/0"
    capacity = 2
    chunk = bomb()
    index = np.array([[0, len(chunk)], [0, len(chunk)]], "<u8").tobytes()
    store.shard(POOLED, key, chunk + checked(index), capacity)


def _absent(store: Hostile) -> None:
    """An array of gigabytes whose files are all said to be absent."""
    side = 1 << 13
    for place in (
        ("shape",),
        ("chunk_grid", "configuration", "chunk_shape"),
        ("codecs", 0, "configuration", "chunk_shape"),
    ):
        depth = {"shape": [2, 3], "chunk_grid": [1, 3], "codecs": [1, 1]}[place[0]]
        store.array(LATENTS, "x", setting(*place, to=[*depth, side, side, 16]))
    items = read_group(store.backend, LATENTS)
    assert items is not None
    for item in ((0,), (1,)):
        record = items.layout.pack(items.loaded.scope, item, np.ones(1, bool), [ABSENT])
        write_flag_files(store.backend, flag_files(LATENTS, {item: record}))


HOSTILE: dict[str, tuple[str, Callable[[Hostile], object]]] = {
    "2*10^8 records": ("records", _root(marker(records=200_000_000))),
    "records that are no number": ("records", _root(marker(records=1e300))),
    "400,000 groups": ("groups", _root(marker(groups=[f"g{n}" for n in range(400_000)]))),
    "a group elsewhere": ("name", _root(marker(groups=["../../etc"]))),
    "a group of the machine": ("name", _root(marker(groups=["/etc"]))),
    "a group that a terminal obeys": ("name", _root(marker(groups=["a\x1b[2Jb"]))),
    "a group of 5 MB": ("name", _root(marker(groups=["x" * 5_000_000]))),
    "a root nested too deep": ("damaged", _raw(KEY, b'{"a": ' + nested() + b"}")),
    "a root of one long list": ("JSON", _raw(KEY, b"[" + b"[]," * 2_000_000 + b"[]]")),
    "a number of 10^6 digits": ("damaged", _raw(KEY, b'{"a": ' + b"9" * 1_000_000 + b"}")),
    "a newer format": ("newer", _root(marker(format=3))),
    "a format that is no number": ("not a taqstore", _root(marker(format="2"))),
    "a marker of another type": (
        "not a taqstore",
        _raw(KEY, b'{"zarr_format": 3, "node_type": "group", "attributes": {"taqstore": []}}'),
    ),
    "no attributes": ("not a taqstore", _raw(KEY, b'{"zarr_format":3,"node_type":"group"}')),
    "a document of Zarr v2": ("Zarr v3", _raw(KEY, b'{"zarr_format":2}')),
    "copies that are none": (
        "copies",
        _root(setting("consolidated_metadata", to={"metadata": [1]})),
    ),
    "a newer group": ("version", _group(marker(version=99))),
    "a group of another kind": ("kind", _group(marker(kind="evil"))),
    "items of no extent": ("items", _group(marker(item_size=[0]))),
    "items of infinite extent": ("record", _group(marker(item_size=[1e999]))),
    "items of 10^18": ("items", _group(marker(item_size=[10**18]))),
    "items along nothing": ("items", _group(marker(item_dims=[]))),
    "a document elsewhere": ("name", _group(marker(documents={"../../x": 1}))),
    "a file elsewhere": ("name", _group(marker(files={"/etc/passwd": [1, 1]}))),
    "10^5 arrays": ("documents", _group(marker(documents={f"a{n}": 1 for n in range(100_000)}))),
    "a shape of 10^10": ("fit", _array("avg_min", setting("shape", 2, to=10**10))),
    "a shape of 10^400": ("shape", _array("avg_min", setting("shape", 2, to=10**400))),
    "a shape below nothing": ("shape", _array("avg_min", setting("shape", 2, to=-1))),
    "40 dimensions": ("lengths", _array("avg_min", setting("shape", to=[1] * 40))),
    "ragged chunks": (
        "lengths",
        _array("avg_min", setting("chunk_grid", "configuration", "chunk_shape", to=[1])),
    ),
    "chunks of nothing": (
        "chunks",
        _array("avg_min", setting("chunk_grid", "configuration", "chunk_shape", to=[0, 1, 1])),
    ),
    "compressed chunks of 10^12": (
        "inner chunks",
        _array(
            "hist_counts", setting("chunk_grid", "configuration", "chunk_shape", to=[3, 2, 10**12])
        ),
    ),
    "10^15 flags": ("fit", _array("written", setting("shape", to=[10**15]))),
    "a coordinate of 10^9": ("fit", _array("layer", setting("shape", to=[10**9]))),
    "an unknown codec": ("codec", _array("tensor_absmax", setting("codecs", to=_codecs("evil")))),
    "a codec that unpickles": (
        "codec",
        _array("tensor_absmax", setting("codecs", to=_codecs("numcodecs.pickle", "crc32c"))),
    ),
    "gzip": (
        "codec",
        _array("tensor_absmax", setting("codecs", to=_codecs("bytes", "gzip", "crc32c"))),
    ),
    "zstd twice": (
        "codec",
        _array("tensor_absmax", setting("codecs", to=_codecs("bytes", "zstd", "zstd", "crc32c"))),
    ),
    "no checksum": ("codec", _array("tensor_absmax", setting("codecs", to=_codecs("bytes")))),
    "an unknown type": (
        "data type",
        _array("tensor_absmax", setting("data_type", to="datetime64")),
    ),
    "a type with a configuration": (
        "array",
        _array("tensor_absmax", setting("data_type", to={"name": "x", "configuration": {}})),
    ),
    "dimensions without names": (
        "array",
        _array("tensor_absmax", setting("dimension_names", to=None)),
    ),
    "a dimension twice": (
        "dimensions",
        _array("tensor_absmax", setting("dimension_names", to=["step", "step"])),
    ),
    "a dimension that a terminal obeys": (
        "dimensions",
        _array("tensor_absmax", setting("dimension_names", 1, to="\x1b[2J")),
    ),
    "a fill that is none": ("", _array("tensor_absmax", setting("fill_value", to={"a": 1}))),
    "a transformer": (
        "transformers",
        _array("tensor_absmax", setting("storage_transformers", to=[{"name": "x"}])),
    ),
    "a bomb as a coordinate": ("coordinate", lambda s: s.file(LATENTS, "image/c/0", bomb())),
    "a coordinate that says its size and holds none": (
        "coordinate",
        lambda s: s.file(
            LATENTS, "image/c/0", hollow((s.path / LATENTS / "image/c/0").read_bytes())
        ),
    ),
    "a bomb as strings": ("coordinate", lambda s: s.file(LATENTS, "prompt/c/0", bomb())),
    "10^9 strings in 12 bytes": (
        "coordinate",
        lambda s: s.file(POOLED, "layer/c/0", checked(struct.pack("<III", 1 << 30, 0, 0))),
    ),
    "a string of 9 MB": (
        "coordinate",
        lambda s: s.file(
            POOLED,
            "layer/c/0",
            checked(struct.pack("<II", 5, 9_000_000) + b"x" * 9_000_000 + bytes(16)),
        ),
    ),
    "strings that are no text": (
        "coordinate",
        lambda s: s.file(POOLED, "layer/c/0", checked(struct.pack("<IIB", 5, 1, 255) + bytes(16))),
    ),
    "a bomb as flags": ("damaged", lambda s: s.file(POOLED, "written/c.0", bomb())),
    "a bomb as records": ("record", lambda s: s.file(POOLED, "items/record/c/0/0", bomb())),
    "a bomb as data": ("chunk", _data_bomb),
    "terabytes of nothing": ("", _absent),
    "a layer that is none": (
        "",
        lambda s: s.file(
            POOLED,
            "layer/c/0",
            checked(struct.pack("<I", 5) + struct.pack("<II", 4, 0x1B1B1B1B) * 5),
        ),
    ),
}
"""Stores that are sealed and lie: what has to be said of them, and how they are made."""


def make_hostile(path: Path, name: str) -> Path:
    """The small store, made hostile in one way."""
    HOSTILE[name][1](make_small(path))
    return path
