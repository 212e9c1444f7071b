"""The Zarr tree over HTTP is what the library shows, to other clients too."""

from __future__ import annotations

import http.client
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import xarray as xr
import zarr

import taqstore
from support.running import Running, running
from support.s3_server import S3Server
from support.uploaded import uploaded
from taqstore.statistics.histogram import Layout
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import create_store
from taqstore.testing import RunShape, make_store, raw_activations
from taqstore.testing.store import activations_templates, write_batch

SHAPE = RunShape(images=3, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
LAYOUT = Layout("float16", 4)
CHUNK = "activations/mlp.fc2/min/c/0/0/0/0"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("served") / "a run.zarr")


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Running]:
    with running(store) as found:
        yield found


def write(path: Path, images: list[int]) -> None:
    """Observations of some images of a run."""
    with create_store(path) as store:
        writers = [store.group(one) for one in activations_templates(SHAPE, layout=LAYOUT)]
        for image in images:
            batch = [raw_activations(SHAPE, seed=0, image=image, step=s) for s in SHAPE.stats_steps]
            for writer in writers:
                write_batch(writer, image, batch, LAYOUT)


def test_xarray_reads_every_group_as_the_library_does(served: Running, store: Path) -> None:
    own = taqstore.open_store(store, incomplete=True)
    assert len(own) > 3
    for path, expected in own.items():
        url = f"{served.url}/zarr/a%20run.zarr/{path}"
        found = xr.open_zarr(url, consolidated=False, chunks=None)
        assert set(found.variables) == set(expected.variables)
        for name in expected.variables:
            one, other = found[name].values, expected[name].values
            if one.dtype.kind in "fc":
                np.testing.assert_array_equal(one, other)
            else:
                assert one.tolist() == other.tolist(), (path, name)


def test_zarr_walks_the_whole_tree(served: Running, store: Path) -> None:
    root = zarr.open_group(f"{served.url}/zarr/a%20run.zarr", mode="r")
    assert set(root["activations"].keys()) == {
        p.name for p in (store / "activations").iterdir() if p.is_dir()
    }


def test_the_library_reads_what_it_serves(served: Running, store: Path) -> None:
    found, own = taqstore.open_store(f"{served.url}/zarr/a%20run.zarr"), taqstore.open_store(store)
    assert found.digest == own.digest
    for path in own:
        xr.testing.assert_identical(found[path].compute(), own[path].compute())


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-3", 0, 4),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=0-999999999", 0, None),
    ],
)
def test_a_range_is_that_part_of_the_file(
    served: Running, store: Path, asked: str, start: int, stop: int | None
) -> None:
    raw = (store / CHUNK).read_bytes()
    found = served.get(f"/zarr/a%20run.zarr/{CHUNK}", Range=asked)
    assert found.status == 206
    assert found.body == raw[start:stop]
    first = start % len(raw)
    assert (
        found.headers["content-range"] == f"bytes {first}-{first + len(found.body) - 1}/{len(raw)}"
    )


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "lines=0-1", "bytes=4-1", "bytes=-", "bytes=a-", "bytes=" + "9" * 30 + "-"],
)
def test_what_is_no_single_range_is_answered_by_the_whole(
    served: Running, store: Path, asked: str
) -> None:
    found = served.get(f"/zarr/a%20run.zarr/{CHUNK}", Range=asked)
    assert (found.status, found.body) == (200, (store / CHUNK).read_bytes())


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(
    served: Running, store: Path, asked: str
) -> None:
    found = served.get(f"/zarr/a%20run.zarr/{CHUNK}", Range=asked)
    assert found.status == 416
    assert found.headers["content-range"] == f"bytes */{(store / CHUNK).stat().st_size}"


@pytest.mark.parametrize(
    "key", [CHUNK, "zarr.json", "activations/mlp.fc2/zarr.json", "activations/mlp.fc2/step/c/0"]
)
def test_a_known_file_is_not_sent_again(served: Running, store: Path, key: str) -> None:
    first = served.get(f"/zarr/a%20run.zarr/{key}")
    assert (first.status, first.body) == (200, (store / key).read_bytes())
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["accept-ranges"] == "bytes"
    again = served.get(f"/zarr/a%20run.zarr/{key}", If_None_Match=f'"x", {first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    head = served.get(f"/zarr/a%20run.zarr/{key}", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(first.body))
    changed = served.get(f"/zarr/a%20run.zarr/{key}", Range="bytes=0-0", If_Range='"other"')
    assert changed.status == 200


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A store that a test may spoil."""
    return Path(make_store(tmp_path / "run.zarr"))


def test_what_leads_out_of_a_store_is_not_followed(own: Path) -> None:
    secret = own.with_name("secret")
    secret.mkdir()
    (secret / "0").write_text("secret")
    folder = own / "activations/mlp.fc2"
    (folder / "linked").symlink_to(secret)
    (own / "file").symlink_to(secret / "0")
    os.mkfifo(own / "pipe")
    shutil.rmtree(folder / "step/c")
    (folder / "step/c").symlink_to(secret)
    with running(own) as served:
        for key in (
            "file",
            "pipe",
            "activations/mlp.fc2/linked/0",
            "activations/mlp.fc2/step/c/0",
            "activations/mlp.fc2/linked",
            "activations/mlp.fc2/linked/",
        ):
            answer = served.get(f"/zarr/run.zarr/{key}")
            assert (answer.status, b"secret" in answer.body) == (403, False), key
        for way in (
            "..",
            "%2e%2e",
            "%2E.",
            ".%2e",
            "..%2f",
            "%5c..",
            "..%5c",
            "%00",
            "a%2fb",
            ".",
            "x/../..",
            "%252e%252e",
        ):
            for end in ("secret/0", "run.zarr/zarr.json", ""):
                answer = served.get(f"/zarr/run.zarr/{way}/{end}")
                assert (answer.status, b"secret" in answer.body) == (404, False), way
        for path in (
            "/zarr//etc/passwd",
            "/zarr/run.zarr//etc/passwd",
            "//zarr/run.zarr/zarr.json",
            f"/zarr/{own}/zarr.json",
            "/zarr/..%2frun.zarr/zarr.json",
            "/zarr/.run.zarr.lock",
        ):
            assert served.get(path).status == 404, path


def test_files_that_are_none_of_the_store_are_not_there(own: Path) -> None:
    for name in (".DS_Store", "x.partial", "~x~", "#x#", "Thumbs.db"):
        (own / name).write_text("foreign")
    with running(own) as served:
        assert served.get("/zarr/run.zarr/.DS_Store").status == 404
        assert served.get("/zarr/run.zarr/x.partial").status == 404
        listed = served.get("/zarr/run.zarr/").body
    assert b"DS_Store" not in listed
    assert b"partial" not in listed


def test_an_item_that_is_not_flagged_is_not_there_whatever_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    write(path, [0])
    monkeypatch.setattr(GroupWriter, "commit", lambda self, items: None)
    write(path, [1])
    monkeypatch.undo()
    chunk = "activations/mlp.fc2/min/c/1/0/0/0"
    raw = (path / chunk).read_bytes()
    assert raw
    with running(path) as served:
        url = f"{served.url}/zarr/run.zarr/activations/mlp.fc2"
        assert served.get(f"/zarr/run.zarr/{chunk}").status == 404
        found = xr.open_zarr(url, consolidated=False, chunks=None)["min"].values
        assert np.isnan(found[1]).all()
        assert not np.isnan(found[0]).any()
        own = taqstore.open_store(path, incomplete=True)["activations/mlp.fc2"]["min"].values
        np.testing.assert_array_equal(found, own)
        write(path, [1])  # goes on, and flags it
        answer = served.get(f"/zarr/run.zarr/{chunk}")
        assert (answer.status, answer.body) == (200, raw)
        found = xr.open_zarr(url, consolidated=False, chunks=None)["min"].values
        assert not np.isnan(found[:2]).any()


def test_a_file_that_is_not_the_one_that_was_written_is_an_error_and_not_empty(own: Path) -> None:
    with running(own) as served:
        assert served.get(f"/zarr/run.zarr/{CHUNK}").status == 200
        raw = (own / CHUNK).read_bytes()
        (own / CHUNK).write_bytes(raw[:-1])
        shorter = served.get(f"/zarr/run.zarr/{CHUNK}")
        (own / CHUNK).unlink()
        missing = served.get(f"/zarr/run.zarr/{CHUNK}")
    for answer in (shorter, missing):
        assert (answer.status, b"taqstore verify" in answer.body) == (500, True)


def test_a_file_that_shrinks_while_it_is_sent_ends_the_answer(own: Path) -> None:
    large = own / "large"
    large.write_bytes(bytes(32 << 20))
    with running(own) as served:
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        client.request("GET", "/zarr/run.zarr/large")
        answer = client.getresponse()
        assert len(answer.read(1000)) == 1000
        os.truncate(large, 1 << 20)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        client.close()


def test_names_in_data_are_text(own: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\"'"
    (own / name).write_text("x")
    with running(own) as served:
        listed = served.get("/zarr/run.zarr/")
        assert listed.headers["content-type"].startswith("text/html")
        assert b"<img" not in listed.body
        assert b"&lt;img" in listed.body
        link = f"/zarr/run.zarr/{quote(name, safe='')}"
        assert f'href="{link}"'.encode() in listed.body
        assert served.get(link).body == b"x"


@pytest.fixture(params=["memory", "bucket"])
def elsewhere(request: pytest.FixtureRequest, store: Path) -> Iterator[str]:
    """The address of a copy of the store that is on no disk of this machine."""
    if request.param == "bucket":
        address = f"{request.getfixturevalue('bucket')}/a run.zarr"
        yield uploaded(store, address)
        return
    import fsspec

    there = fsspec.filesystem("memory")
    there.put(str(store), "/elsewhere/a run.zarr", recursive=True)
    yield "memory://elsewhere/a run.zarr"
    there.rm("/elsewhere", recursive=True)


def test_a_store_elsewhere_is_the_same(store: Path, served: Running, elsewhere: str) -> None:
    with running(elsewhere) as far:
        for path in sorted(store.rglob("*")):
            if path.is_file():
                address = "/zarr/a%20run.zarr/" + quote(path.relative_to(store).as_posix())
                near, found = served.get(address), far.get(address)
                assert (found.status, found.body) == (near.status, near.body), address
        part = far.get(f"/zarr/a%20run.zarr/{CHUNK}", Range="bytes=-5")
        assert (part.status, part.body) == (206, (store / CHUNK).read_bytes()[-5:])
        for key in (
            f"{CHUNK[:-1]}9",
            "activations/nothing/zarr.json",
            "nothing/",
            "x/../zarr.json",
        ):
            assert far.get(f"/zarr/a%20run.zarr/{key}").status == 404, key
        first = far.get(f"/zarr/a%20run.zarr/{CHUNK}")
        again = far.get(f"/zarr/a%20run.zarr/{CHUNK}", If_None_Match=first.headers["etag"])
        assert again.status == 304
        url = f"{far.url}/zarr/a%20run.zarr/activations/mlp.fc2"
        expected = taqstore.open_store(store)["activations/mlp.fc2"]["max"].values
        found_max = xr.open_zarr(url, consolidated=False, chunks=None)["max"].values
        np.testing.assert_array_equal(found_max, expected)


def test_what_is_asked_again_costs_a_bucket_nothing(store: Path, s3: S3Server, bucket: str) -> None:
    uploaded(store, f"{bucket}/run.zarr")
    with running(f"{bucket}/run.zarr") as far:
        assert far.get("/zarr/run.zarr/zarr.json").status == 200
        known = far.get("/zarr/run.zarr/activations/mlp.fc2/min/zarr.json")
        with s3.counted() as count:
            for _ in range(5):
                again = far.get("/zarr/run.zarr/activations/mlp.fc2/min/zarr.json")
                assert again.body == known.body
        assert not [key for key in count.keys("GET") if key.endswith("min/zarr.json")]


def test_a_bucket_that_fails_is_an_error_and_not_empty(
    store: Path, s3: S3Server, bucket: str
) -> None:
    uploaded(store, f"{bucket}/run.zarr")
    with running(f"{bucket}/run.zarr") as far:
        assert far.get(f"/zarr/run.zarr/{CHUNK}").status == 200
        with s3.fault(status=403, code="AccessDenied", what="GET", key="min/c/0"):
            refused = far.get(f"/zarr/run.zarr/{CHUNK}")
        assert refused.status == 500
        assert b"error" in refused.body
