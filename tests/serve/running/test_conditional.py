"""Answers to HEAD, of unchanged content and in ranges agree with the whole, over the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.explored_stores import Explored
from support.served import Served

GROUP = "activations/mlp.fc2"


def largest(store: Path) -> str:
    """The largest file of data of a group."""
    files = [path for path in (store / GROUP).rglob("c/**/*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size).relative_to(store).as_posix()


@pytest.fixture(scope="module")
def content(explored: Explored) -> tuple[str, bytes]:
    key = largest(explored.run)
    return f"/zarr/run.zarr/{key}", (explored.run / key).read_bytes()


@pytest.mark.parametrize("path", ["/zarr/run.zarr/zarr.json", f"/zarr/run.zarr/{GROUP}/zarr.json",
                                  "/api/stores", "/", "/main.js"])  # fmt: skip
def test_head_says_what_get_would(service: Served, path: str) -> None:
    got, head = service.ask(path), service.ask(path, method="HEAD")
    assert (head.status, head.body) == (got.status, b"") == (200, b"")
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers.get(name) == got.headers.get(name), name


@pytest.mark.parametrize("path", ["/zarr/run.zarr/zarr.json", "/main.js", "/style.css"])
def test_what_one_has_is_not_sent_again(service: Served, path: str) -> None:
    first = service.ask(path)
    etag = first.headers["etag"]
    again = service.ask(path, headers={"If-None-Match": etag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    for given in ('"other"', '"a", "b"'):
        assert service.ask(path, headers={"If-None-Match": given}).body == first.body
    assert service.ask(path, headers={"If-None-Match": f'"x", {etag}'}).status == 304
    assert service.ask(path, headers={"If-None-Match": "*"}).status == 304


def test_a_file_of_data_arrives_whole(service: Served, content: tuple[str, bytes]) -> None:
    path, raw = content
    answer = service.ask(path)
    assert (answer.status, answer.body) == (200, raw)
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in answer.headers


def test_a_range_is_that_part_of_the_whole(service: Served, content: tuple[str, bytes]) -> None:
    path, raw = content
    size = len(raw)
    parts = {
        "bytes=0-0": (0, 1), "bytes=0-9": (0, 10), f"bytes={size - 1}-": (size - 1, size),
        "bytes=-8": (size - 8, size), f"bytes=5-{size * 2}": (5, size), "bytes=7-": (7, size),
        f"bytes=-{size * 3}": (0, size),
    }  # fmt: skip
    for given, (start, end) in parts.items():
        answer = service.ask(path, headers={"Range": given})
        assert (answer.status, answer.body) == (206, raw[start:end]), given
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}", given
        assert answer.headers["content-length"] == str(end - start), given


@pytest.mark.parametrize(
    "given",
    [
        "bytes=9-1",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "bytes=--1",
        "bytes=1-2-3",
        "",
        "bytes=",
        f"bytes={10**30}-",
    ],
)
def test_a_range_that_is_none_is_the_whole_or_refused(
    service: Served, content: tuple[str, bytes], given: str
) -> None:
    path, raw = content
    answer = service.ask(path, headers={"Range": given})
    assert answer.status in (200, 400, 416)
    assert answer.status != 200 or answer.body == raw


def test_beyond_the_end_there_is_nothing(service: Served, content: tuple[str, bytes]) -> None:
    path, raw = content
    for given in (f"bytes={len(raw)}-", f"bytes={len(raw) + 5}-{len(raw) + 9}", f"bytes={10**12}-"):
        answer = service.ask(path, headers={"Range": given})
        assert answer.status == 416, given
        assert answer.headers["content-range"] == f"bytes */{len(raw)}"


def test_many_ranges_cost_no_more_than_the_file(
    service: Served, content: tuple[str, bytes]
) -> None:
    path, raw = content
    given = "bytes=" + ",".join(["0-"] * 1000)
    answer = service.ask(path, headers={"Range": given})
    assert answer.status in (200, 206, 400, 416)
    assert len(answer.body) <= 2 * len(raw)


def test_a_range_of_another_version_is_the_whole(
    service: Served, content: tuple[str, bytes]
) -> None:
    path, raw = content
    etag = service.ask(path).headers["etag"]
    same = service.ask(path, headers={"Range": "bytes=0-3", "If-Range": etag})
    other = service.ask(path, headers={"Range": "bytes=0-3", "If-Range": '"other"'})
    assert (same.status, same.body) == (206, raw[:4])
    assert (other.status, other.body) == (200, raw)
