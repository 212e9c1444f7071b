"""Every command that fills a store, shared out: shards, plans, a queue; the store is the same."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.generate import Request
from taqstore.pipelines.run import groups

from support.live_capture import needs_models
from support.shared_runs import FILLING, IMAGES, STEPS, Workshop, assert_same, copy_of
from taqstore.errors import LayoutError, MisuseError
from taqstore.pipelines import generate as generate_pipeline
from taqstore.place.disk import try_lock
from taqstore.place.location import Location
from taqstore.run.mode import Mode
from taqstore.run.share import Shard
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import open_store
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module", params=list(FILLING))
def case(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[str, Path, Path]:
    """A command, a store that is ready for it, and one that a single process has filled."""
    name = request.param
    return name, workshop.ready(name), workshop.whole(name)


def shapes_of(store: Path) -> dict[str, tuple[bytes, int]]:
    """Documents of arrays, and when each was written: what no worker may change."""
    return {
        str(path.relative_to(store)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in store.rglob("zarr.json")
        if json.loads(path.read_bytes())["node_type"] == "array" and "provenance" not in str(path)
    }


def test_shards_are_a_whole(
    case: tuple[str, Path, Path], workshop: Workshop, tmp_path: Path
) -> None:
    """Three processes without a plan, the last one first, each twice."""
    name, ready, whole = case
    store = copy_of(ready, tmp_path / "s.zarr")
    outcomes = [workshop.fill(name, store, Mode(shard=Shard(k, 3))) for k in (2, 0, 1)]
    again = [workshop.fill(name, store, Mode(shard=Shard(k, 3))) for k in (2, 0, 1)]
    assert_same(store, whole, name)
    assert sum(one.written for one in outcomes) == workshop.outcomes[name].written
    assert [one.written for one in again] == [0, 0, 0]
    counted = "reconstruction" if name == "adaround" else None  # of weights none are counted
    counts = [item for one in again for item in one.groups.items()]
    skipped = sum(n.skipped for path, n in counts if counted in (None, path))
    every = workshop.outcomes[name].groups.items()
    assert skipped == sum(n.written for path, n in every if counted in (None, path))
    shards = {one["parameters"].get("shard") for one in open_store(store).provenance}
    assert {"0/3", "1/3", "2/3"} <= shards


def test_a_plan_is_filled_and_not_changed(
    case: tuple[str, Path, Path], workshop: Workshop, tmp_path: Path
) -> None:
    """All groups, coordinates and shapes are there before the first item; none is written again."""
    name, ready, whole = case
    store = copy_of(ready, tmp_path / "s.zarr")
    made = workshop.fill(name, store, Mode(resume=True, groups_only=True))
    assert made.plan is not None
    assert made.written == 0
    planned = made.plan.groups.items()
    # Of images to judge by, what is made is not counted.
    counted = sum(n.to_write for path, n in planned if not path.startswith("trajectories"))
    assert counted == workshop.outcomes[name].written
    before = shapes_of(store)
    assert not verify_store(store).damage
    for k in range(2):
        workshop.fill(name, store, Mode(shard=Shard(k, 2)))
    after = shapes_of(store)
    assert {path: after[path] for path in before} == before
    assert_same(store, whole, name)


def test_what_others_let_go_of_is_done(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process holds an item until it is killed: this one waits, then does it."""
    store = tmp_path / "s.zarr"
    workshop.fill("generate", store, Mode(resume=True, groups_only=True))
    held, free = threading.Event(), threading.Event()

    def other() -> None:
        location = Location.parse(store)
        name = location.item_lock_name("latents", (1,))
        with try_lock(location.beside("locks") / name, location) as taken:
            assert taken
            held.set()
            assert free.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(60)
    left = workshop.fill("generate", store, Mode(resume=True))
    assert left.left == [1]
    assert left.notes[-1] == "image 1: another process is writing it; left to that one"
    threading.Timer(0.5, free.set).start()
    done = workshop.fill("generate", store, Mode(resume=True, wait=60))
    thread.join()
    assert (done.left, done.groups["latents"].written) == ([], 1)
    assert open_store(store).mask("latents").all()
    assert "waiting for 1 unit that other processes are working on" in caplog.text


def test_waiting_is_bounded(workshop: Workshop, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    workshop.fill("generate", store, Mode(resume=True, groups_only=True))
    location = Location.parse(store)
    name = location.item_lock_name("latents", (0,))
    with try_lock(location.beside("locks") / name, location) as taken:
        assert taken
        done = workshop.fill("generate", store, Mode(resume=True, wait=0.3))
    assert done.left == [0]
    assert done.groups["latents"].written == IMAGES - 1


def test_two_that_begin_at_once_make_one_group(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no latents; the second takes those of the first, and their id."""
    store, begun = tmp_path / "s.zarr", []
    plain = generate_pipeline.open_groups

    def other_first(*given: Any, **named: Any) -> Any:
        if not begun:
            begun.append(True)
            workshop.fill("generate", store, Mode(shard=Shard(0, 2)))
        return plain(*given, **named)

    monkeypatch.setattr(generate_pipeline, "open_groups", other_first)
    workshop.fill("generate", store, Mode(shard=Shard(1, 2)))
    opened = open_store(store)
    assert opened.mask("latents").all()
    assert opened.mask("pictures").all()
    assert attribute_of(opened["pictures"], "run")["latents"] == opened["latents"].attrs["id"]


def test_two_that_begin_otherwise_do_not_mix(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second compared its settings with those of no group, and finds others under the lock."""
    store, begun = tmp_path / "s.zarr", []
    plain = groups.check_run

    def other_first(*given: Any) -> Any:
        plain(*given)
        if not begun:
            begun.append(True)
            workshop.fill("generate", store)

    monkeypatch.setattr(groups, "check_run", other_first)
    request = Request("tiny", workshop.prompts, IMAGES, steps=STEPS, cfg_weight=7.0,
                      local_ckpt=workshop.checkpoint)  # fmt: skip
    with pytest.raises(LayoutError, match="settings of the run"):
        generate_pipeline.generate(store, request, mode=Mode(resume=True))
    assert attribute_of(open_store(store)["latents"], "run")["cfg_weight"] == 7.5


def test_a_worker_with_other_settings_leaves_a_plan_alone(
    workshop: Workshop, tmp_path: Path
) -> None:
    """A run alone may correct what it has begun; of a plan others count on what was made."""
    store = tmp_path / "s.zarr"
    workshop.fill("generate", store, Mode(resume=True, groups_only=True))
    other = Request("tiny", workshop.prompts, IMAGES, steps=STEPS + 1,
                    local_ckpt=workshop.checkpoint)  # fmt: skip
    with pytest.raises(LayoutError, match="steps"):
        generate_pipeline.generate(store, other, mode=Mode(shard=Shard(0, 2)))
    assert workshop.fill("generate", store, Mode(shard=Shard(0, 2))).written


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2/2", "there is no shard 2 of 2; they count from 0 to 1"),
        ("0/0", "shards"),
        ("1", "'1' is no shard"),
        ("-1/2", "'-1/2' is no shard"),
        ("1/2/3", "is no shard"),
    ],
)
def test_no_such_shard(text: str, found: str) -> None:
    with pytest.raises(MisuseError, match=found):
        Shard.parse(text)


def test_what_excludes_a_shard() -> None:
    for other in ({"force": True}, {"scheduler": "processes"}, {"groups_only": True}):
        with pytest.raises(MisuseError, match=f"shard and {next(iter(other))}"):
            Mode(shard=Shard(0, 2), **other)
    assert Mode(shard=Shard(0, 2)).resume
