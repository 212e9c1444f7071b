"""Files as bytes: a reader leaves a process descriptors, however much of a store it holds."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.same_stores import assert_same_bits
from taqstore import open_store
from taqstore.place import whole_files
from taqstore.place.whole_files import MapBudget, whole_file
from taqstore.testing import make_store
from taqstore.upkeep.verify import verify_store

resource = pytest.importorskip("resource", reason="no limits of descriptors here")
SPARE = 24
DIGITS = b"0123456789" * 10_000


@contextmanager
def _few(spare: int = SPARE) -> Iterator[None]:
    """No more than some descriptors beyond those that are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _everything(address: Path, chunks: Any) -> dict[str, list[np.ndarray]]:
    """Every array of a store, as its whole and place by place of its first axis; all are held."""
    store, held = open_store(address, chunks=chunks), {}
    for path in store:
        for name, variable in store[path].variables.items():
            first = variable.dims[0] if variable.dims else None
            places = range(variable.sizes[first]) if first else ()
            parts = [variable.isel({first: place}).values for place in places]
            held[f"{path}/{name}"] = [variable.values, *parts]
    return held


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of descriptors here")
@pytest.mark.parametrize("chunks", ["late", None, "auto"])
def test_all_of_a_store_is_held_with_few_descriptors(
    tmp_path: Path, chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = Path(make_store(tmp_path / "run.zarr"))
    assert sum(len(names) for _, _, names in os.walk(address)) > 4 * SPARE
    expected = _everything(address, chunks)
    # Room for as many maps as this process holds by now, and a few.
    monkeypatch.setattr(whole_files, "_most", lambda: len(whole_files._held) + SPARE // 4)
    with _few():
        found = _everything(address, chunks)
        assert verify_store(address).damage == ()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for ours, theirs in zip(found[name], values, strict=True):
            if theirs.dtype.kind != "O":
                assert_same_bits(ours, theirs, name)


def test_a_share_of_the_descriptors_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DIGITS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # no map of a test before this one ends meanwhile
    with path.open("rb") as file:
        held, before = [], len(whole_files._held)
        for _ in range(20):
            held.append(whole_file(file.fileno()))
        assert len(whole_files._held) == before + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 4 * before + 80), hard))
        try:
            held.append(whole_file(file.fileno()))
            assert isinstance(held[-1], bytes) == (sys.version_info < (3, 13))
            assert all(bytes(one) == DIGITS for one in held)
            del held
            assert len(whole_files._held) == before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_any_descriptor_left_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DIGITS)
    with path.open("rb") as file, _few(1):
        assert bytes(whole_file(file.fileno())) == DIGITS


def test_small_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DIGITS[:999])
    with path.open("rb") as file:
        file.seek(5)
        before = len(whole_files._held)
        assert whole_file(file.fileno()) == DIGITS[:999]
        assert len(whole_files._held) == before


@pytest.mark.parametrize("most", [0, 100_000])
def test_an_empty_file_has_no_bytes(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_files, "_most", lambda: most)
    path = tmp_path / "f"
    path.touch()
    with path.open("rb") as file, pytest.raises(ValueError, match=r"empty|0 bytes"):
        whole_file(file.fileno())


class Keeper:
    """Counts how often it was told to let go."""

    def __init__(self) -> None:
        self.told = 0

    def unmap(self) -> None:
        self.told += 1


def test_those_that_mapped_least_lately_let_go() -> None:
    budget, (a, b, c) = MapBudget(10), (Keeper(), Keeper(), Keeper())
    for keeper, size in ((a, 4), (b, 4), (a, 5), (c, 1), (a, 6)):
        budget.took(keeper, size)
        assert (a.told, b.told, c.told) == (0, int(keeper is a and size == 6), 0)
    budget.took(c, 30)
    assert (a.told, b.told, c.told) == (1, 1, 0)
    budget.took(c, 31)
    assert (a.told, b.told, c.told) == (1, 1, 0)


def test_one_that_is_gone_takes_no_room_for_ever() -> None:
    budget, kept = MapBudget(10), Keeper()
    for _ in range(50):
        budget.took(Keeper(), 3)
    budget.took(kept, 8)
    assert budget._bytes <= 10
    assert kept.told == 0
