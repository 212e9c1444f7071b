"""Stores that are sealed and lie: one line, exit 1, and never a gigabyte or ten seconds."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cli_runner import Runner
from support.hostile import (
    HOSTILE,
    LATENTS,
    POOLED,
    checked,
    make_hostile,
    make_small,
    marker,
    nested,
    setting,
)
from support.limited import complaints, run_limited
from support.store_commands import calls
from support.thinned import in_turn
from taqstore import open_store
from taqstore.errors import StoreError, TaqError
from taqstore.metadata.root import KEY
from taqstore.upkeep.verify import verify_store

# One lie of a group, tried with every command there is, and one of the root, which all open by one
# function: with a part of them.
EVERYWHERE = {"2*10^8 records": 4, "a shape of 10^10": 1}


def asked(store: Path) -> dict[str, list[Any]]:
    """Commands that look at everything there is, one way or another."""
    return {
        "info": ["info", store],
        "query": ["query", store, POOLED, "--limit", 3],
        "query of compressed data": ["query", store, POOLED, "hist_counts", "--limit", 3],
        "query of the other group": ["query", store, LATENTS, "--reduce", "height=mean"],
        "verify": ["verify", store],
        "repair": ["repair", store, "--dry-run"],
    }


def test_a_lie_is_refused_in_one_line_and_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    stores = {name: make_hostile(tmp_path / f"{n}.zarr", name) for n, name in enumerate(HOSTILE)}
    for store in stores.values():
        files = (file for file in store.rglob("*") if file.is_file())
        assert sum(file.stat().st_size for file in files) < 12_000_000
    calls = run_limited(
        (f"{name}: {command}", arguments)
        for name, store in stores.items()
        for command, arguments in asked(store).items()
    )
    assert complaints(calls) == []
    for name, (words, _) in HOSTILE.items():
        ours = {
            c.name.removeprefix(f"{name}: "): c for c in calls if c.name.startswith(f"{name}: ")
        }
        said = [
            c.error.splitlines() for n, c in ours.items() if c.code and n.startswith(("i", "q"))
        ]
        assert all(len(lines) == 1 for lines in said), said
        if words:
            assert any(words in line for lines in said for line in lines), (name, said)
            assert ours["verify"].code == 1, name


@pytest.mark.parametrize("name", EVERYWHERE)
def test_no_command_takes_a_gigabyte_or_ten_seconds(tmp_path: Path, name: str) -> None:
    store = make_hostile(tmp_path / "s.zarr", name)
    every = list(calls(store, tmp_path, group=POOLED))
    assert len(every) > 50, "the commands were not found"
    always = ("query", "verify")
    asked = [call for call in every if call[0] not in always]
    turn = in_turn(asked, turn=0, turns=EVERYWHERE[name])
    done = run_limited([*(call for call in every if call[0] in always), *turn])
    assert complaints(done) == []
    assert {call.code for call in done if call.name in always} == {1}


def make_format1(path: Path) -> Path:
    """A small store of format 1, by hand: what zarr writes, with the markers of that time."""
    import zarr
    from zarr.codecs import Crc32cCodec

    root = zarr.open_group(path, mode="w")
    identity = {"format": 1, "uuid": "0-1", "created_by": "taqstore 0.1"}
    root.update_attributes({"taqstore": identity})
    group = root.create_group("latents")
    options: dict[str, Any] = {
        "compressors": [Crc32cCodec()],
        "config": {"write_empty_chunks": True},
    }
    for name, values, chunks, dims in (
        ("image", np.arange(2), (2,), ("image",)),
        ("step", np.arange(3), (3,), ("step",)),
        ("x", np.ones((2, 3), np.float32), (1, 3), ("image", "step")),
        ("written", np.array([True, False]), (1,), ("image",)),
    ):
        made = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunks,
            dimension_names=dims,
            **options,
        )
        made[...] = values
    said = {"kind": "latents", "version": 1, "item_dims": ["image"], "item_size": [1]}
    group.update_attributes({"coordinates": "written", "taqstore": said})
    return path


def _edited(key: str, *place: Any, to: Any) -> Any:
    def change(store: Path) -> None:
        document = json.loads((store / key / KEY).read_bytes())
        setting(*place, to=to)(document)
        (store / key / KEY).write_text(json.dumps(document), encoding="utf-8")

    return change


def _bytes(key: str, content: bytes) -> Any:
    def change(store: Path) -> None:
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).write_bytes(content)

    return change


FORMAT1 = {
    "a shape of 10^10": _edited("latents/x", "shape", to=[2, 10**10]),
    "flags of 10^10": _edited("latents/written", "shape", to=[10**10]),
    "a coordinate of 10^10": _edited("latents/step", "shape", to=[10**10]),
    "an unknown codec": _edited("latents/x", "codecs", 1, "name", to="evil"),
    "a codec that unpickles": _edited("latents/x", "codecs", 1, "name", to="numcodecs.pickle"),
    "a newer group": _edited("latents", "attributes", "taqstore", "version", to=7),
    "items of no extent": _edited("latents", "attributes", "taqstore", "item_size", to=[0]),
    "items of 10^400": _edited("latents", "attributes", "taqstore", "item_size", to=[10**400]),
    "a group nested too deep": _bytes(f"latents/{KEY}", b'{"a":' + nested() + b"}"),
    "a flag of another size": _bytes("latents/written/c/0", checked(bytes(100))),
    "a coordinate of another size": _bytes("latents/image/c/0", checked(bytes(8_000_000))),
}


@pytest.mark.parametrize("name", FORMAT1)
def test_format_1_is_read_with_as_little_trust(tmp_path: Path, taq: Runner, name: str) -> None:
    store = make_format1(tmp_path / "s.zarr")
    assert taq("query", store, LATENTS).code == taq("verify", store).code == 0
    FORMAT1[name](store)
    for arguments in (["query", store, LATENTS], ["upgrade", store]):
        done = taq(*arguments)
        assert done.code == 1
        (line,) = (line for line in done.err.splitlines() if not line.startswith("upgrading"))
        assert line.startswith("taqstore: ")
    assert taq("verify", store).code == 1


def test_trees_of_zarr_2_are_not_opened(tmp_path: Path, taq: Runner) -> None:
    for name, content in (
        (".zgroup", {"zarr_format": 2}),
        (".zattrs", {"taqstore": {"format": 1}}),
    ):
        _bytes(name, json.dumps(content).encode())(tmp_path / "s.zarr")
    array = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "compressor": None,
        "filters": [{"id": "pickle"}],
        "fill_value": None,
        "order": "C",
    }
    trap = b"cos\nmkdir\n(V" + os.fsencode(tmp_path / "trapped") + b"\ntR."
    _bytes("x/.zarray", json.dumps(array).encode())(tmp_path / "s.zarr")
    _bytes("x/0", trap)(tmp_path / "s.zarr")
    done = run_limited(calls(tmp_path / "s.zarr", tmp_path))
    assert complaints(done) == []
    assert not (tmp_path / "trapped").exists()
    # Those that write make no store of a folder that holds something else.
    assert {call.code for call in done} == {1, 2}


def test_records_that_are_no_records_take_nothing_with_them(tmp_path: Path, taq: Runner) -> None:
    store = make_small(tmp_path / "s.zarr").root(marker(records=3))
    texts = (b"{}", b'{"a": ' + nested() + b"}", json.dumps({"inputs": [7]}).encode())
    for number, text in enumerate(texts):
        content = checked(struct.pack("<II", 1, len(text)) + text)
        _bytes(f"provenance/json/c/{number}", content)(store.path)
    assert taq("info", store.path).code == 0
    assert taq("query", store.path, POOLED).code == 0
    assert len(open_store(store.path).bad_records) == 3
    damage = [finding.where for finding in verify_store(store.path).damage]
    assert [f"provenance/json/c/{n}" for n in range(3)] == [d for d in damage if "json/c" in d]


def test_a_path_in_a_document_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for number, name in enumerate(("../secret", str(tmp_path / "secret"), "a//b", ".")):
        store = make_small(tmp_path / f"{number}.zarr")
        store.group(POOLED, marker(files={name: [6, 0]}))
        with pytest.raises(StoreError, match="the name"):
            open_store(store.path)[POOLED]
        with pytest.raises(TaqError):
            store.backend.read(name)
