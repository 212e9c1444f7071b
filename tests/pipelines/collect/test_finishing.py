"""A batch that goes to the disk behind the model: what it raises is raised, claims go last."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.collect.finishing import Finishing
from taqstore.pipelines.collect.rounds import Job
from taqstore.pipelines.models.load import LoadedModel

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY
from support.live_store import make_live_store
from support.same_stores import assert_same_stores
from taqstore import open_store
from taqstore.layout.item_records import Item
from taqstore.run.mode import Mode
from taqstore.store.group_writer import GroupWriter
from taqstore.upkeep.verify import verify_store

IMAGES, STEPS = 3, 2
SITES = ("mlp.fc2", "attn.qkv")


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_held_is_let_go_of_after_the_batch_is_written() -> None:
    order, go, finishing = list[str](), Event(), Finishing()

    def finish() -> None:
        go.wait(10)
        order.append("flagged")

    with ThreadPoolExecutor(1) as pool:
        held = ExitStack()
        held.callback(order.append, "let go")
        finishing.begin(finish, pool.submit, held)
        assert order == []
        go.set()
        finishing.settle()
    assert order == ["flagged", "let go"]


def test_a_batch_that_fails_ends_the_next_and_both_are_let_go_of() -> None:
    order, finishing = list[str](), Finishing()
    with ThreadPoolExecutor(1) as pool:
        for name, finish in (("first", full), ("second", lambda: order.append("written"))):
            held = ExitStack()
            held.callback(order.append, name)
            if name == "first":
                finishing.begin(finish, pool.submit, held)
                continue
            with pytest.raises(OSError, match="No space"):
                finishing.begin(finish, pool.submit, held)
        finishing.settle()
    assert order == ["first", "second"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_what_ends_the_work_is_raised_once_the_batch_is_whole(stop: type[BaseException]) -> None:
    order, go, finishing = list[str](), Event(), Finishing()

    def work() -> None:
        with ThreadPoolExecutor(1) as pool, finishing.settled():
            finishing.begin(lambda: order.append(str(go.wait(10))), pool.submit, ExitStack())
            go.set()
            raise stop

    with pytest.raises(stop):
        work()
    assert order == ["True"]


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_live_store(tmp_path_factory.mktemp("finish"), TINY, images=IMAGES, steps=STEPS)


@pytest.fixture(scope="module")
def whole(latents: Path) -> Path:
    store = Path(shutil.copytree(latents, latents.with_name("whole.zarr")))
    fill(store, latents)
    return store


def fill(store: Path, latents: Path, mode: Mode | None = None) -> Any:
    weights = latents.with_name("w.safetensors")
    return collect(store, stride=1, sites=SITES, local_ckpt=weights, mode=mode)


def words(store: Path, latents: Path) -> list[str]:
    return ["collect", str(store), "--stride", "1", "--sites", ",".join(SITES), "--local-ckpt",
            str(latents.with_name("w.safetensors"))]  # fmt: skip


def flagged(store: Path) -> list[list[bool]]:
    return [open_store(store).mask(f"activations/{site}").tolist() for site in SITES]


def no_claims(store: Path) -> bool:
    return not (store.parent / f".{store.name}.locks").exists()


def in_commit(patch: pytest.MonkeyPatch, batch: int, do: Callable[..., None]) -> None:
    """Do something before this batch is flagged."""
    commit_all = GroupWriter.commit_all

    def committing(items: Mapping[GroupWriter, Iterable[Item]]) -> None:
        every = {group: list(some) for group, some in items.items()}
        if [(batch,)] in every.values():
            do()
        commit_all(every)

    patch.setattr(GroupWriter, "commit_all", staticmethod(committing))


@needs_models
@pytest.mark.parametrize("batch", range(IMAGES))
def test_a_full_disk_behind_the_model_is_one_line_and_resume_finishes(
    latents: Path, whole: Path, tmp_path: Path, taq: Runner, batch: int
) -> None:
    """Also of the last batch, after which no image is run."""
    store = Path(shutil.copytree(latents, tmp_path / "s.zarr"))
    with pytest.MonkeyPatch.context() as patch:
        from taqstore.place.disk import disk_errors
        from taqstore.place.location import Location

        def refuse() -> None:
            with disk_errors(Location.parse(store)):
                full()

        in_commit(patch, batch, refuse)
        failed = taq(*words(store, latents))
    assert failed.code == 1, failed.err
    assert "the disk is full" in failed.err.splitlines()[-1]
    assert "Traceback" not in failed.err
    assert flagged(store)[0] == [n < batch for n in range(IMAGES)]
    assert no_claims(store)
    assert verify_store(store).damage == ()
    fill(store, latents, Mode(resume=True))
    assert_same_stores(store, whole, attributes=False)


@needs_models
@pytest.mark.parametrize("disk_full", [False, True])
def test_ctrl_c_while_a_batch_is_under_way_leaves_it_whole(
    latents: Path, whole: Path, tmp_path: Path, taq: Runner, disk_full: bool
) -> None:
    store = Path(shutil.copytree(latents, tmp_path / "s.zarr"))
    stopped, forward = Event(), LoadedModel.denoise
    forwards = iter(range(IMAGES * STEPS))

    def denoise(self: LoadedModel, *given: Any) -> Any:
        if next(forwards) == STEPS:
            stopped.set()
            raise KeyboardInterrupt
        return forward(self, *given)

    def wait() -> None:
        assert stopped.wait(20)
        if disk_full:
            from taqstore.errors import StoreError

            raise StoreError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        in_commit(patch, 0, wait)
        patch.setattr(LoadedModel, "denoise", denoise)
        shown = taq(*words(store, latents))
    assert shown.code == 130, shown.err
    assert shown.err.splitlines()[-1].split()[:2] == ["taqstore", "collect"]
    assert flagged(store)[0] == [not disk_full, False, False]
    assert no_claims(store)
    assert verify_store(store).damage == ()
    fill(store, latents, Mode(resume=True))
    assert_same_stores(store, whole, attributes=False)


@needs_models
def test_nothing_is_under_way_while_other_processes_are_waited_for(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taqstore.pipelines.tasks import units

    store, seen = Path(shutil.copytree(latents, tmp_path / "s.zarr")), list[bool]()
    run, finishings = Job.run, list[Finishing]()

    def running(self: Job, one: Any) -> int | None:
        finishings.append(self.finishing)
        return run(self, one)

    def waited(attempt: Any, left: list[int], seconds: float) -> list[int]:
        seen.append(finishings[-1]._under_way is None)
        return left

    monkeypatch.setattr(Job, "run", running)
    monkeypatch.setattr(units, "waited", waited)
    fill(store, latents)
    assert seen == [True]
