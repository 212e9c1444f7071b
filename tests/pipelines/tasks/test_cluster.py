"""Units as tasks of dask: the stores of one process, whatever becomes of a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.tasks import cluster
from taqstore.pipelines.tasks.cluster import Scheduler

from support.live_capture import needs_models
from support.shared_runs import FILLING, Workshop, assert_same, copy_of
from taqstore.errors import MisuseError, TaqError
from taqstore.run.dealing import NO_DASHBOARD
from taqstore.run.mode import Mode
from taqstore.store.reader import open_store
from taqstore.upkeep.verify import verify_store

pytestmark = [
    needs_models,
    # Its servers close sockets and threads in their own time.
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error:Port .* is already in use"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two processes that know the models of these tests."""
    distributed = pytest.importorskip("distributed", reason="extra `distributed` not installed")
    import dask

    with (
        dask.config.set({"distributed.worker.preload": ["support.live_models"]}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, **NO_DASHBOARD) as workers,
    ):
        yield workers.scheduler_address


@pytest.mark.parametrize("name", list(FILLING))
def test_tasks_write_what_one_process_does(
    name: str, workshop: Workshop, address: str, tmp_path: Path
) -> None:
    whole = workshop.whole(name)
    store = copy_of(workshop.ready(name), tmp_path / "s.zarr")
    before = len(open_store(store).provenance) if store.exists() else 0
    told = Told()
    done = workshop.fill(name, store, Mode(scheduler=address, progress=told))
    assert_same(store, whole, name)
    expected = workshop.outcomes[name].groups
    assert done.groups == expected if name != "ingest" else set(done.groups) == set(expected)
    assert told.total == told.done > 0
    records = len(open_store(whole).provenance) - before
    assert len(open_store(store).provenance) == before + records
    again = workshop.fill(name, store, Mode(resume=True, scheduler=address))
    assert again.written == 0


class Told:
    """Progress that is counted; `at` is called at the first that is told."""

    def __init__(self, at: Any = None) -> None:
        self.total, self.done, self._at = 0, 0, at

    def start(self, total: int) -> None:
        self.total, self.done = total, 0

    def advance(self, label: str, amount: int = 1) -> None:
        self.done += amount
        at, self._at = self._at, None
        if at is not None:
            at()


def request(folder: Path, images: int = 6) -> Request:
    prompts = folder / "prompts.txt"
    prompts.write_text("a handwritten seven\na handwritten two", encoding="utf-8")
    return Request("reference", prompts, images, steps=4)


def test_a_lost_worker_costs_its_item_only(tmp_path: Path) -> None:
    """One of two is killed after the first image; the other, and a new one, do the rest."""
    pytest.importorskip("distributed", reason="extra `distributed` not installed")
    asked, killed = request(tmp_path), list[int]()
    generate(tmp_path / "whole.zarr", asked)

    def kill() -> None:
        client = cluster.client_now()
        killed.append(next(iter(client.run(os.getpid).values())))
        os.kill(killed[0], signal.SIGKILL)

    store, told = tmp_path / "s.zarr", Told(at=kill)
    done = generate(store, asked, mode=Mode(scheduler="distributed:2", progress=told))
    assert killed
    assert done.groups["latents"].written >= 5  # what the lost one had told nobody is skipped
    assert open_store(store).mask("latents").all()
    assert_same(store, tmp_path / "whole.zarr", "generate")
    assert len(open_store(store).provenance) == 1


def test_local_processes(tmp_path: Path) -> None:
    asked = request(tmp_path, images=3)
    generate(tmp_path / "whole.zarr", asked)
    store = tmp_path / "s.zarr"
    done = generate(store, asked, mode=Mode(scheduler="processes:2"))
    assert done.groups["latents"].written == 3
    assert_same(store, tmp_path / "whole.zarr", "generate")


def test_what_a_task_is_refused_with_ends_the_run(workshop: Workshop, address: str) -> None:
    """The message is that of one process, and what was complete is kept."""
    store = workshop.folder / "refused.zarr"
    gone = workshop.folder / "gone.safetensors"
    gone.write_bytes(workshop.checkpoint.read_bytes())
    asked = Request("tiny", workshop.prompts, 3, steps=2, local_ckpt=gone)

    def lose() -> None:
        gone.write_bytes(b"no weights")

    class Lost(Told):
        def start(self, total: int) -> None:
            lose()

    with pytest.raises(TaqError, match=r"gone\.safetensors"):
        generate(store, asked, mode=Mode(scheduler=address, progress=Lost()))
    assert not verify_store(store).damage


def test_a_store_in_this_memory_is_not_reached(workshop: Workshop) -> None:
    with pytest.raises(TaqError, match="other processes cannot reach a store in this one's memory"):
        workshop.fill("generate", "memory://shared", Mode(scheduler="processes:2"))


def test_nothing_answers(
    workshop: Workshop, tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="extra `distributed` not installed")
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    where = closed_port.replace("http://", "tcp://")
    with pytest.raises(TaqError, match="no dask scheduler answers"):
        workshop.fill("generate", tmp_path / "s.zarr", Mode(scheduler=where))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("threads", None),
        ("synchronous", None),
        ("processes", Scheduler("processes")),
        ("distributed:3", Scheduler("distributed", 3)),
        ("tcp://h:1", Scheduler("tcp://h:1")),
    ],
)
def test_schedulers(text: str, found: Scheduler | None) -> None:
    assert Scheduler.parse(text) == found


@pytest.mark.parametrize("text", ["distribute", "processes:0", "processes:x", "h:8786", ""])
def test_no_scheduler(text: str) -> None:
    with pytest.raises(MisuseError, match="is not known"):
        Scheduler.parse(text)
