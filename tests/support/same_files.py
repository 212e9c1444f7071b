"""Folders and npz files compared name by name, dtype by dtype, bit by bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from support.groups_from_files import read_npz


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_same_arrays(ours: Path, theirs: Path) -> None:
    got, want = read_npz(ours), read_npz(theirs)
    assert set(got) == set(want)
    for name, values in want.items():
        assert (got[name].dtype, got[name].shape) == (values.dtype, values.shape), name
        assert got[name].tobytes() == values.tobytes(), name


def assert_same_folder(ours: Path, theirs: Path, pattern: str) -> int:
    names = sorted(p.name for p in theirs.glob(pattern))
    assert sorted(p.name for p in ours.glob(pattern)) == names
    for name in names:
        assert_same_arrays(ours / name, theirs / name)
    return len(names)


def files_of(store: Path, *groups: str) -> dict[str, str]:
    """Checksums of all files below these groups."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for group in groups
        for path in sorted((store / group).rglob("*"))
        if path.is_file()
    }
