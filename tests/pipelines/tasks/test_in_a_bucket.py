"""Runs shared out on an object store: claims are objects, and a killed worker's expire."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from taqstore.pipelines.generate import Request, generate

from support.live_capture import needs_models
from support.s3_server import S3Server
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
    for path in ("latents",):
        assert ours.mask(path).all()
        found, expected = ours[path].load(), theirs[path].load()
        assert sorted(found.variables) == sorted(expected.variables)
        for name, values in expected.variables.items():
            assert found[name].values.tobytes() == values.values.tobytes(), name
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
    bucket: str, s3: S3Server, request_: Request, tmp_path: Path
) -> None:
    """Three processes as a queue; one is killed at an item, the others finish without a restart."""
    address = f"{bucket}/run.zarr"
    command = [
        sys.executable, "-m", "taqstore", "generate", address, "--model", "reference",
        "--prompts", str(request_.prompts), "--num-images", str(IMAGES), "--steps", "3",
        "--resume", "--wait", "120",
    ]  # fmt: skip
    environment = {**os.environ, "TAQSTORE_CLAIM_SECONDS": "5"}
    workers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    with s3.counted() as count:
        while not any("latents" in key and "commit" in key for key in count.keys("PUT")):
            count.log.clear()
            assert any(worker.poll() is None for worker in workers)
