"""SIGKILL at random moments: what is flagged is whole, and resuming ends in the same store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.ingest import ingest

from support.crash_server import Server
from support.same_stores import assert_same_bits, assert_same_stores, raw_arrays
from support.thinned import EXPLORE
from taqstore import open_store
from taqstore.errors import StoreError
from taqstore.testing import RunShape, make_run_folder
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(images=10, steps=9, hidden=16, image_tokens=20, latent=(16, 16), cache_images=3)
# `make campaign` kills before every file event.
KILLS, CHAIN = 20 if EXPLORE else 12, 4
HALF_WAY = (60, 180) if EXPLORE else (120,)  # files that are there


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("made") / "run", shape=SHAPE)


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    """An uninterrupted run, compared with the source once here."""
    path = run.parent / "whole.zarr"
    assert ingest([run], path).problems == []
    latents = open_store(path)["latents"].x
    for file in (run / "samples").iterdir():
        image, step = map(int, file.stem.split("_"))
        with np.load(file) as source:
            assert_same_bits(latents.sel(image=image, step=step).values, source["x"][0], file)
    return path


@pytest.fixture(scope="module")
def expected(whole: Path) -> dict[str, np.ndarray]:
    return raw_arrays(whole)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    pair = [Server(), Server()]
    yield pair
    for server in pair:
        server.close()


def check_flagged(store: Path, expected: dict[str, np.ndarray]) -> tuple[int, int]:
    """Every flagged item has the source's bytes; returns how many are flagged, and of how many."""
    try:
        groups = list(open_store(store))
    except StoreError:
        # Killed before the store had its marker: then it must not hold data either.
        assert not list(store.glob("**/c/*"))
        return 0, 1
    report = verify_store(store)
    assert report.damage == ()
    arrays, opened = raw_arrays(store), open_store(store)
    flagged = total = 0
    for group in groups:
        mask = opened.mask(group)  # `written` lags behind until a writer closes the flags
        flagged, total = flagged + int(mask.sum()), total + mask.size
        for name in (n for n in expected if n.startswith(f"{group}/")):
            if name.endswith("/written"):
                continue
            if expected[name].shape[: mask.ndim] != mask.shape:
                assert_same_bits(arrays[name], expected[name], name)
                continue
            assert_same_bits(arrays[name][mask], expected[name][mask], name)
    return flagged, total


def files(store: Path) -> int:
    """How many files a store has by now: how far the writing has come, whatever the load."""
    return sum(len(names) for _, _, names in os.walk(store))


def test_killed_at_random(
    tmp_path: Path, run: Path, whole: Path, expected: dict[str, np.ndarray], servers: list[Server]
) -> None:
    """Chains of kill and resume, each finished at last and compared."""
    server, rng = servers[0], np.random.default_rng(20260411)
    total = files(whole)
    interrupted = 0
    for kills in range(KILLS):
        store = tmp_path / f"{kills // CHAIN}.zarr"
        target = int(rng.integers(min(files(store), total - 40), total - 8))
        server.start("ingest", run, store, "--resume")
        assert server.kill_when(lambda: files(store) >= target)  # noqa: B023 - called here
        flagged, items = check_flagged(store, expected)
        interrupted += 0 < flagged < items
        if kills % CHAIN == CHAIN - 1:
            server.start("ingest", run, store, "--resume")
            assert server.wait() == 0
            assert_same_stores(store, whole)
    assert interrupted >= KILLS // 2  # the kills did fall into the writing


def test_a_killed_command(
    tmp_path: Path, run: Path, whole: Path, expected: dict[str, np.ndarray]
) -> None:
    """The same with whole interpreters, killed once the first flags are on disk."""
    store, rng = tmp_path / "s.zarr", np.random.default_rng(7)
    command = [sys.executable, "-m", "taqstore", "ingest", str(run), str(store), "--resume"]
    for group in ("latents", "blocks/img"):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and not any((store / group / "items/commit").glob("c.*")):
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.05)))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        check_flagged(store, expected)
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert_same_stores(store, whole)


def test_two_processes_fill_one_store(
    tmp_path: Path, run: Path, whole: Path, expected: dict[str, np.ndarray], servers: list[Server]
) -> None:
    """Both at once, then both with one killed half-way: nothing lost, nothing torn."""
    for kill in (None, *HALF_WAY):
        store = tmp_path / f"{kill}.zarr"
        for server in servers:
            server.start("ingest", run, store, "--resume")
        if kill is not None:
            assert servers[1].kill_when(lambda: files(store) >= kill)  # noqa: B023 - called here
            assert servers[0].wait() == 0
        else:
            assert [server.wait() for server in servers] == [0, 0]
        check_flagged(store, expected)
        servers[0].start("ingest", run, store, "--resume")
        assert servers[0].wait() == 0
        assert_same_stores(store, whole)
