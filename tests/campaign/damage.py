"""Every file of a store damaged in turn: named, never read as data, mended where that can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from campaign.stores import (
    Values,
    check_flagged,
    check_read,
    every_kind,
    files_of,
    fill,
    one_kind,
    values_of,
    write,
)
from campaign.trials import Trials, spread
from taqstore import create_store, open_store
from taqstore.cli.verify import command as verify_command
from taqstore.errors import TaqError
from taqstore.upkeep.repair import repair_store
from taqstore.upkeep.verify import verify_store

Contents = Mapping[str, bytes]
Way = Callable[[str, Contents], dict[str, bytes | None] | None]


def _deleted(name: str, files: Contents) -> dict[str, bytes | None]:
    return {name: None}


def _truncated(name: str, files: Contents) -> dict[str, bytes | None] | None:
    return {name: files[name][: len(files[name]) // 2]} if files[name] else None


def _emptied(name: str, files: Contents) -> dict[str, bytes | None] | None:
    return {name: b""} if files[name] else None


def _zeroed(name: str, files: Contents) -> dict[str, bytes | None] | None:
    return {name: bytes(len(files[name]))} if any(files[name]) else None


def _exchanged(name: str, files: Contents) -> dict[str, bytes | None] | None:
    """With another of its size, one of the same array where there is one."""
    own = files[name]
    others = [n for n, raw in files.items() if len(raw) == len(own) and raw != own]
    if not others:
        return None
    other = max(others, key=lambda n: sum(a == b for a, b in zip(n, name, strict=False)))
    return {name: files[other], other: own}


def _flipped(name: str, files: Contents) -> dict[str, bytes | None] | None:
    raw = bytearray(files[name])
    if not raw:
        return None
    raw[hash_of(name) % len(raw)] ^= 1 << hash_of(name) % 8
    return {name: bytes(raw)}


def _edited(name: str, files: Contents) -> dict[str, bytes | None] | None:
    """JSON stays JSON and says something else."""
    if not name.endswith("zarr.json"):
        return None
    document = json.loads(files[name])
    document["attributes"]["cfg_scale"] = 3.5
    return {name: json.dumps(document).encode()}


def hash_of(name: str) -> int:
    """A number that follows from a name, the same in every run."""
    return sum((i + 1) * byte for i, byte in enumerate(name.encode()))


WAYS: dict[str, Way] = {
    "deleted": _deleted,
    "truncated": _truncated,
    "emptied": _emptied,
    "zeroed": _zeroed,
    "exchanged": _exchanged,
    "flipped": _flipped,
    "edited": _edited,
}


def damaged_stores(folder: Path, *, most: int | None) -> Iterator[Trials]:
    """Damage every file in every way.

    Parameters
    ----------
    most
        Trials of each store at most, spread evenly; None: all.
    """
    whole = folder / "whole.zarr"
    write(whole, every_kind())
    yield _tried("a group of every kind", whole, every_kind(), most)
    killed = folder / "killed.zarr"
    write(killed, one_kind()[:1])
    for template in one_kind()[1:]:  # flags not closed yet, no second copy of metadata
        fill(create_store(killed), template)
    yield _tried(
        "flags of a killed writer", killed, one_kind(), None if most is None else most // 3
    )


def _tried(what: str, path: Path, templates: list, most: int | None) -> Trials:
    trials, files = Trials("damage", what), files_of(path)
    expected = values_of(open_store(path))
    assert not verify_store(path).damage
    every = [
        (name, way, changes)
        for name in files
        for way, change in WAYS.items()
        # A flag that is gone is an item that was not written yet.
        if not (way == "deleted" and "/items/commit/c." in name)
        if (changes := change(name, files)) is not None
    ]
    for number in spread(len(every), most):
        name, way, changes = every[number]
        with trials.trial(f"{name} {way}"), _changed(path, changes, files):
            _check_named(path, changes)
            check_read(path, expected)
            if way != "flipped":
                check_read(path, expected, chunks=None)
            _check_repair(path, expected, templates, files)
    assert files_of(path) == files
    return trials


@contextmanager
def _changed(path: Path, changes: Mapping[str, bytes | None], files: Contents) -> Iterator[None]:
    for name, raw in changes.items():
        if raw is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(raw)
    try:
        yield
    finally:
        for name in changes:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(files[name])


def _is_finished(files: Contents) -> bool:
    """Whether the root has a copy of all metadata."""
    return b"consolidated_metadata" in files["zarr.json"]


def _check_named(path: Path, changes: Mapping[str, bytes | None]) -> None:
    result = CliRunner().invoke(verify_command, [str(path)])
    if isinstance(result.exception, TaqError):
        assert any(name in str(result.exception) for name in changes), str(result.exception)
        return
    assert result.exit_code == 1, f"verify exits {result.exit_code}: {result.exception!r}"
    damage = verify_store(path).damage
    for name in changes:
        assert any(name in (f.key, f.where) for f in damage), f"{name} is not named"


def _check_repair(path: Path, expected: Values, templates: list, whole: Contents) -> None:
    """What repair leaves is whole but for what it called lost; the writer then completes all."""
    copy = path.with_name("repaired.zarr")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    before = files_of(copy)
    records = {n: raw for n, raw in whole.items() if n.startswith("provenance/json/c/")}
    digest = json.loads(whole["zarr.json"])["attributes"]["taqstore"]["digest"]
    said = repair_store(copy, dry_run=True)
    assert files_of(copy) == before, "a dry run changed something"
    steps = repair_store(copy)
    assert steps == said, "a dry run says something else"
    lost = [step.where for step in steps if not step.done]
    # A finished store has everything but data twice.
    assert not (lost and _is_finished(whole)), f"lost: {lost}"
    left = verify_store(copy).damage
    stray = [f.where for f in left if not any(f.where in w or w in f.where for w in lost)]
    assert not stray, f"not mended, and not called lost: {stray}"
    check_flagged(copy, expected)
    if all(before.get(name) == raw for name, raw in records.items()):
        assert open_store(copy).digest == digest, "provenance records are lost"
    gone = {t.path for t in templates if any(w.startswith(t.path) for w in lost)}
    listed = set(open_store(copy).paths)
    write(copy, templates, replaced=[*gone, *({t.path for t in templates} - listed)])
    assert not verify_store(copy).damage
    assert check_read(copy, expected), "not completed"
