"""Runs shared out on an object store: claims are objects, a killed worker's are taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from taqstore.pipelines.generate import Request, generate

from support.live_capture import needs_models
from support.same_stores import assert_same_bits
from taqstore.place.location import Location
from taqstore.place.remote.owners import told_by
from taqstore.run.mode import Mode
from taqstore.run.share import Shard
from taqstore.store.reader import open_store
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
IMAGES = 6


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a handwritten seven\na handwritten two", encoding="utf-8")
    return Request("reference", prompts, IMAGES, steps=3)


def assert_whole(address: str, request_: Request, tmp_path: Path) -> None:
    """The bucket holds what a single process writes to a disk, and verifies."""
    generate(tmp_path / "whole.zarr", request_)
    ours, theirs = open_store(address), open_store(tmp_path / "whole.zarr")
    assert ours.mask("latents").all()
    found, expected = ours["latents"].load(), theirs["latents"].load()
    assert sorted(found.variables) == sorted(expected.variables)
    for name, values in expected.variables.items():
        assert_same_bits(found[name].values, values.values, name)
    assert not verify_store(address).damage


def test_shards(bucket: str, request_: Request, tmp_path: Path) -> None:
    address = f"{bucket}/run.zarr"
    generate(address, request_, mode=Mode(resume=True, groups_only=True))
    for k in (1, 0):
        done = generate(address, request_, mode=Mode(shard=Shard(k, 2)))
        assert done.groups["latents"].written == IMAGES // 2
    assert_whole(address, request_, tmp_path)
    assert len(open_store(address).provenance) == 2


def test_a_killed_workers_item_is_done_by_those_that_live(
    bucket: str, request_: Request, tmp_path: Path
) -> None:
    """Three processes as a queue; one is killed at an item, the others finish without a restart."""
    address = f"{bucket}/run.zarr"
    command = [
        sys.executable, "-m", "taqstore", "generate", address, "--model", "reference",
        "--prompts", str(request_.prompts), "--num-images", str(IMAGES), "--steps", "3",
        "--resume", "--wait", "120",
    ]  # fmt: skip
    workers = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    victim = claimant(address, [worker.pid for worker in workers])
    os.kill(victim, signal.SIGKILL)
    # Its number stays taken until it is waited for; so long it is not known to be gone.
    next(worker for worker in workers if worker.pid == victim).wait(60)
    codes = [worker.wait(300) for worker in workers]
    said = [worker.communicate()[1].decode() for worker in workers]
    expected = [-signal.SIGKILL if worker.pid == victim else 0 for worker in workers]
    assert codes == expected, said
    assert_whole(address, request_, tmp_path)
    records = open_store(address).provenance
    assert sum(record["counts"]["written"] for record in records) == IMAGES
    assert len(records) <= 2


def claimant(address: str, processes: list[int]) -> int:
    """Which of some processes was the first to be seen at an item."""
    backend, begun = Location.parse(address).backend(), time.monotonic()
    while time.monotonic() - begun < 200:
        for name in backend.names("latents/items/commit"):
            told = told_by(backend.read(f"latents/items/commit/{name}") or b"")
            if told is not None and told.get("process") in processes and not told["free"]:
                return int(told["process"])
        time.sleep(0.02)
    raise AssertionError("nobody claims anything")


def test_tasks(bucket: str, request_: Request, tmp_path: Path) -> None:
    """Workers reach the bucket as whoever sent them does; options are not in any record."""
    address = f"{bucket}/run.zarr"
    done = generate(address, request_, mode=Mode(scheduler="processes:2"))
    assert done.groups["latents"].written == IMAGES
    assert_whole(address, request_, tmp_path)
    assert len(open_store(address).provenance) == 1
