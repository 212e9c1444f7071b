"""Objects put by conditions, also where answers are lost, and large ones as a stream of parts."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from support.s3_server import S3Server
from taqstore.errors import StoreError
from taqstore.place.location import Location
from taqstore.place.object_backend import ObjectBackend
from taqstore.place.remote.objects import PART, Objects


@pytest.fixture
def backend(bucket: str) -> ObjectBackend:
    found = Location.parse(f"{bucket}/some/run.zarr").backend(read_only=False)
    assert isinstance(found, ObjectBackend)
    return found


@pytest.fixture
def objects(backend: ObjectBackend) -> Objects:
    return backend.objects


def test_what_is_there_is_not_created_again(objects: Objects) -> None:
    tag = objects.create("a/b", b"one")
    assert tag
    assert objects.create("a/b", b"two") is None
    assert objects.get("a/b") == (b"one", tag)
    assert objects.create("a/b", b"one") == tag  # as if the answer to the first had been lost


def test_only_what_is_unchanged_is_replaced(objects: Objects) -> None:
    first = objects.create("a", b"one")
    assert first
    second = objects.replace("a", b"two", first)
    assert second
    assert second != first
    assert objects.replace("a", b"three", first) is None
    assert objects.get("a") == (b"two", second)
    objects.delete(["a"])
    assert objects.replace("a", b"four", second) is None
    assert objects.get("a") is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "status"])
def test_a_lost_answer_is_found_out(s3: S3Server, objects: Objects, kind: str, when: str) -> None:
    with s3.fault(kind, status=500, when=when, what="PUT", times=1):
        tag = objects.create("a", b"one")
    assert tag
    with s3.fault(kind, status=503, when=when, what="PUT", times=1):
        tag = objects.replace("a", b"two", tag)
    assert tag
    assert objects.get("a") == (b"two", tag)


def test_one_of_many_creates(objects: Objects) -> None:
    won = list(objects.each(lambda n: objects.create("a", b"%d" % n), range(12)))
    (winner,) = [n for n, tag in enumerate(won) if tag]
    found = objects.get("a")
    assert found is not None
    assert found[0] == b"%d" % winner


def test_counting_together_loses_nothing(objects: Objects) -> None:
    objects.create("n", b"0 by nobody")

    def one(number: int) -> None:
        while True:
            found = objects.get("n")
            assert found is not None
            count = int(found[0].split()[0]) + 1
            if objects.replace("n", b"%d by %d" % (count, number), found[1]):
                return

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = objects.get("n")
    assert found is not None
    assert found[0].startswith(b"8 by")


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 17])
def test_pieces_become_one_object(s3: S3Server, backend: ObjectBackend, size: int) -> None:
    content = bytes(itertools.islice(itertools.cycle(range(251)), size))

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 1_000_003):
            yield content[start : start + 1_000_003]

    with s3.counted() as count:
        assert backend.write("x/c/0", pieces()) == size
    assert backend.read("x/c/0") == content
    assert backend.size("x/c/0") == size
    if size > 5:
        assert backend.read_range("x/c/0", 5, PART) == content[5 : 5 + PART]
    assert count["PART"] == (-(-size // PART) if size > PART else 0)


def test_what_makes_pieces_may_ask_the_store(backend: ObjectBackend) -> None:
    backend.objects.put("from", bytes(100))

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            assert backend.read("from") == bytes(100)
            yield bytes(PART)

    with backend.claimed("g", (0,), "g/items/commit/c.0.0", 40) as held:
        assert held
        assert backend.write("x/c/0", pieces()) == 3 * PART


@pytest.mark.parametrize("what", ["CREATE", "PART", "COMPLETE"])
def test_an_upload_that_is_refused_is_told(s3: S3Server, backend: ObjectBackend, what: str) -> None:
    pieces = (bytes(PART) for _ in range(20))
    refused = s3.fault(status=403, code="AccessDenied", what=what)
    with refused, pytest.raises(StoreError, match=r"run\.zarr"):
        backend.write("x/c/0", pieces)
    assert backend.size("x/c/0") is None


def test_what_breaks_midway_leaves_nothing(s3: S3Server, backend: ObjectBackend) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(PART)
        yield bytes(PART)
        raise ValueError("no more")

    with s3.counted() as count, pytest.raises(ValueError, match="no more"):
        backend.write("x/c/0", pieces())
    assert count["COMPLETE"] == 0
    assert count["ABORT"] == count["CREATE"]
    assert backend.size("x/c/0") is None


_LARGE = """
import resource, sys
from taqstore.place.location import Location
backend = Location.parse(sys.argv[1]).backend(read_only=False)
backend.write("small", [bytes(100)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = (bytes([n % 256]) * (16 << 20) for n in range(16))
assert backend.write("large", made) == 256 << 20
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux alone")
def test_memory_stays_at_a_few_parts(bucket: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, f"{bucket}/run.zarr"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert int(done.stdout) <= 64 << 10


def test_names_and_sizes_below_a_prefix(backend: ObjectBackend) -> None:
    files = {"g/x": b"12", "g/y/z": b"345", "g/.hidden": b"", "other": b"", "g-not": b""}
    with backend.locked():
        backend.write_all(files)
    assert backend.names("g") == ["x", "y"]
    assert backend.sizes("g") == {"x": 2}
    assert backend.names("") == ["g", "g-not", "other"]
    assert backend.names("none") == []
    assert backend.read_many(["g/x", "g/none"]) == {"g/x": b"12", "g/none": None}
    backend.delete("g")
    assert backend.names("") == ["g-not", "other"]
    backend.delete_all(["g-not", "other", "never"])
    assert backend.names("") == []


def test_a_refusal_is_one_line(s3: S3Server, objects: Objects) -> None:
    with s3.fault(status=403, code="AccessDenied"), pytest.raises(StoreError) as refused:
        objects.get("a")
    assert "\n" not in str(refused.value)
    assert "some/run.zarr" in str(refused.value)
