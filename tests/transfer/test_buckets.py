"""Pulled from a bucket, pushed to one, merged in one, read as one: on an S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.merge_runs import GROUPS, SITE, make
from support.s3_server import S3Server
from support.same_stores import assert_same_bits, assert_same_stores
from taqstore import open_store
from taqstore.errors import TaqError
from taqstore.layout import checked_pieces
from taqstore.transfer import Choice, pull
from taqstore.upkeep import merge, verify_store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("source") / "run", [4, 3, 9])


def test_there_and_back(source: Path, tmp_path: Path, bucket: str, s3: S3Server) -> None:
    with s3.counted() as pushed:
        pull(source, f"{bucket}/run", command="push")
    puts = [key for key in pushed.keys("PUT") if "/c/" in key and "items" not in key]
    assert len(puts) == len(set(puts)) > 50
    assert not verify_store(f"{bucket}/run").damage
    assert pull(source, f"{bucket}/run", command="push").written == 0
    with s3.counted() as pulled:
        pull(f"{bucket}/run", tmp_path / "back")
    data = [key for key in pulled.keys("GET") if "/x/c/" in key]
    assert len(data) == len(set(data)), "a file is fetched once"
    assert assert_same_stores(tmp_path / "back", source) > 25
    commands = [r["command"] for r in open_store(tmp_path / "back").provenance]
    assert commands == ["collect", "push", "pull"]


def test_files_larger_than_a_piece_are_asked_for_in_ranges(
    source: Path, tmp_path: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(source, f"{bucket}/run")
    monkeypatch.setattr(checked_pieces, "PIECE", 500)
    with s3.counted() as count:
        pull(f"{bucket}/run", tmp_path / "out", choice=Choice(groups=["latents"]))
    ranges = [request.range for request in count.log if "latents/x/c" in request.key]
    assert len(ranges) > 6
    assert all(ranges)
    ours, theirs = (open_store(p)["latents"]["x"] for p in (tmp_path / "out", source))
    assert_same_bits(ours, theirs)


def test_a_part_of_a_bucket_reads_no_more_than_it_needs(
    source: Path, tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    pull(source, f"{bucket}/run")
    with s3.counted() as count:
        pull(f"{bucket}/run", tmp_path / "out", choice=Choice(groups=["blocks"], image="3"))
    touched = {key.split("/c/")[1].split("/")[0] for key in count.keys("GET") if "/x/c/" in key}
    assert touched == {"1"}
    assert not [key for key in count.keys("GET") if "latents/x" in key or "histogram" in key]
    assert open_store(tmp_path / "out")["blocks/img"]["image"].values.tolist() == [3]


def test_merged_and_read_as_one(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    ids = {"a": [0], "b": [2, 1], "c": [5]}
    local = [make(tmp_path / name, images) for name, images in ids.items()]
    for path in local:
        pull(path, f"{bucket}/{path.name}", command="push")
    remote = [f"{bucket}/{name}" for name in ids]
    merge(*remote, f"{bucket}/all")
    whole = make(tmp_path / "whole", [0, 2, 1, 5])
    pull(f"{bucket}/all", tmp_path / "all")
    assert assert_same_stores(tmp_path / "all", whole) > 25
    for chunks in (None, "auto"):
        ours = open_store(remote, chunks=chunks)  # type: ignore[arg-type]
        for path in GROUPS:
            for name in ours[path].data_vars:
                assert_same_bits(ours[path][name], open_store(whole)[path][name], (path, name))
    mixed = open_store([local[0], remote[1], local[2]])
    assert_same_bits(mixed[SITE]["histogram"], open_store(whole)[SITE]["histogram"])


@pytest.mark.parametrize("fault", [{"status": 503, "retry_after": 0}, {"status": 500}])
def test_faults_are_passed_over(
    source: Path, bucket: str, s3: S3Server, fault: dict[str, int]
) -> None:
    with (
        s3.fault(what="PUT", key="/x/c/", skip=2, times=3, **fault),
        s3.fault(what="GET", skip=5, times=2, **fault),
    ):
        pull(source, f"{bucket}/run", command="push")
    assert not verify_store(f"{bucket}/run").damage


def test_credentials_that_end_in_the_middle_leave_a_whole_store(
    source: Path, bucket: str, s3: S3Server
) -> None:
    with (
        s3.fault(status=403, code="ExpiredToken", what="PUT", key="/x/c/", skip=4, times=10**6),
        pytest.raises(TaqError),
    ):
        pull(source, f"{bucket}/run", command="push")
    assert not verify_store(f"{bucket}/run").damage
    done = pull(source, f"{bucket}/run", command="push")
    assert done.written > 0
    assert not verify_store(f"{bucket}/run").damage
