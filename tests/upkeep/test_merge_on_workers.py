"""`merge --scheduler`: other processes copy, and the store is the one that this one would make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import taqstore
from support.cli_runner import Runner
from support.merge_runs import make
from support.s3_server import S3Server
from support.same_stores import assert_same_stores
from taqstore.run.dealing import NO_DASHBOARD
from taqstore.upkeep import verify_store

distributed = pytest.importorskip("distributed", reason="extra `distributed` not installed")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [make(folder / name, ids) for name, ids in {"a": [0, 1], "b": [2], "c": [4, 3]}.items()]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **NO_DASHBOARD) as it:
        yield it


@pytest.mark.parametrize("where", ["cluster", "processes:2"])
def test_the_store_is_the_same(
    taq: Runner, sources: list[Path], tmp_path: Path, cluster: Any, where: str
) -> None:
    scheduler = cluster.scheduler_address if where == "cluster" else where
    here = taq("merge", *sources, tmp_path / "here", "--json")
    there = taq("merge", *sources, tmp_path / "there", "--json", "--scheduler", scheduler)
    assert (there.code, there.out) == (here.code, here.out)
    assert assert_same_stores(tmp_path / "there", tmp_path / "here") > 25
    assert not verify_store(tmp_path / "there").damage
    again = taq("merge", *sources, tmp_path / "there", "--scheduler", scheduler)
    assert again.code == 0
    records = taqstore.open_store(tmp_path / "there").provenance
    assert [record["command"] for record in records] == ["collect"] * 3 + ["merge"]


def test_into_a_bucket(
    taq: Runner, sources: list[Path], tmp_path: Path, cluster: Any, bucket: str, s3: S3Server
) -> None:
    words = [*s3.words(), "--scheduler", cluster.scheduler_address]
    assert taq("merge", *sources, f"{bucket}/out.zarr", *words).code == 0
    assert taq("pull", f"{bucket}/out.zarr", tmp_path / "back", *s3.words()).code == 0
    assert not verify_store(tmp_path / "back").damage
    shown = taqstore.open_store(tmp_path / "back")["latents"]
    assert sorted(shown.image.values.tolist()) == [0, 1, 2, 3, 4]
