"""What a bucket's server does wrong in the middle of a command: tried again, or one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.ingest import ingest

from support.cli_runner import Runner
from support.s3_server import EXPIRED, S3Server
from support.thinned import crossed
from support.uploaded import in_a_bucket
from taqstore import open_store
from taqstore.place.remote import claims, store_lock
from taqstore.place.remote.options import storage
from taqstore.testing import RunShape, make_run_folder, make_store
from taqstore.upkeep import verify_store

SHAPE = RunShape(images=2, steps=3, blocks=1, hidden=4, image_tokens=4, text_tokens=2,
                 latent=(2, 2), channels=2, stats_stride=2, cache_stride=2)  # fmt: skip
READING = {
    "info": "info {s} --json",
    "verify": "verify {s} --json",
    "query": "query {s} activations/mlp.fc1 max --reduce channel=max --csv",
    "analyze": "analyze scales {s} --site mlp.fc2 --csv",
}
PASSING: dict[str, dict[str, Any]] = {
    "500": {"status": 500, "times": 1},
    "503 with Retry-After": {"status": 503, "retry_after": 1, "times": 2},
    "reset": {"kind": "reset", "times": 1},
    "reset after it was done": {"kind": "reset", "when": "after", "times": 1},
    "reset in the middle of an answer": {"kind": "reset", "when": "middle", "times": 1},
    "slow": {"kind": "slow", "seconds": 0.2, "times": 3},
}
EVERYWHERE = ("503 with Retry-After", "reset after it was done")
PLACES = {
    "the second": lambda total: 1,
    "half-way": lambda total: total // 2,
    "almost the last": lambda total: total - 3,
}
# What passes at once is passed over wherever it is met. Who is refused twice depends on the client
# at a lock; and of what was done it matters what is done twice.
WRITING = sorted({*crossed(PASSING, PLACES), *product(EVERYWHERE, PLACES)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("faults") / "s.zarr", shape=SHAPE)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(
        tmp_path_factory.mktemp("faults") / "run", shape=SHAPE, parts=["latents"]
    )


@pytest.fixture(scope="module")
def remote(s3: S3Server, store: Path) -> Iterator[str]:
    with in_a_bucket(s3, store) as address:
        yield address


@pytest.mark.usefixtures("bucket")  # its environment
@pytest.mark.parametrize(("fault", "name"), crossed(PASSING, READING))
def test_reading_is_tried_again(
    taq: Runner, remote: str, s3: S3Server, name: str, fault: str
) -> None:
    words = READING[name].format(s=remote).split()
    with s3.counted() as count:
        expected = taq(*words)
    assert expected.code == 0, expected.err
    for place in (0, count.total - 2):
        with s3.fault(**PASSING[fault], skip=place):
            done = taq(*words)
        assert (done.code, done.out) == (0, expected.out), f"at request {place}: {done.err}"


def whole(address: str) -> dict[str, bytes]:
    found = open_store(address)
    return {
        f"{path}/{name}": array.values.tobytes()
        for path in found
        for name, array in found[path].data_vars.items()
    }


@pytest.fixture
def bring(taq: Runner, source: Path) -> Callable[..., Any]:
    return lambda address, *words: taq("ingest", source, address, *words)


@pytest.fixture(scope="module")
def brought(source: Path, s3: S3Server) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Requests of a run that nothing goes wrong in, and what it writes."""
    name = s3.make_bucket()
    with storage(s3.options()), s3.counted() as count:
        assert ingest([source], f"s3://{name}/run").problems == []
        total = count.total
        expected = whole(f"s3://{name}/run")
    yield total, expected
    s3.drop_bucket(name)


@pytest.mark.parametrize(("fault", "where"), WRITING)
def test_writing_is_tried_again(
    bring: Callable[..., Any],
    brought: tuple[int, dict[str, bytes]],
    bucket: str,
    s3: S3Server,
    fault: str,
    where: str,
) -> None:
    total, expected = brought
    address = f"{bucket}/run"
    with s3.fault(**PASSING[fault], skip=PLACES[where](total)):
        done = bring(address)
    assert done.code == 0, done.err
    report = verify_store(address)
    assert not report.damage, report.damage[0]
    assert not [note for note in report.notes if "not written" in note.what]
    assert whole(address) == expected
    assert len(open_store(address).provenance) == 1


@pytest.mark.parametrize("what", ["PUT", None])
def test_credentials_that_expire_leave_nothing_half_flagged(
    bring: Callable[..., Any],
    bucket: str,
    s3: S3Server,
    what: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The process that could not give back what it held lives on: it is this one.
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 1.0)
    monkeypatch.setattr(store_lock, "LEASE_SECONDS", 1.0)
    with s3.counted() as count:
        assert bring(f"{bucket}/expected").code == 0
    expected = whole(f"{bucket}/expected")
    number = count[what] if what else count.total
    for place in range(2, number - 1, max(1, number // 3)):
        address = f"{bucket}/from-{place}"
        with s3.fault(**EXPIRED, what=what, skip=place):
            done = bring(address)
        assert done.code == 1
        assert done.err.strip().count("\n") <= 1, done.err
        assert "Traceback" not in done.err
        assert "expired" in done.err
        done = bring(address, "--resume")
        assert done.code == 0, f"after request {place}: {done.err}"
        report = verify_store(address)
        assert not report.damage, report.damage[0]
        assert whole(address) == expected
        assert len(open_store(address).provenance) <= 1  # never twice
