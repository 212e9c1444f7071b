"""`cache` and `collect` write behind the model: flags after data, claims last, errors told.

Slow, failing and interrupted writing of both, seen as events of any thread; the store is compared
with one that was written in turn.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect import buffers
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.models.load import LoadedModel

from support import commit_events
from support.cli_runner import Runner
from support.commit_events import Event, Events, recorded
from support.live_capture import needs_models
from support.live_models import TINY
from support.live_store import make_live_store
from support.same_stores import assert_same_stores
from taqstore import open_store
from taqstore.errors import StoreError, SupersededError, TaqError
from taqstore.pipelines import cache as cache_pipeline
from taqstore.place.local_backend import LocalBackend
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
IMAGES, STEPS = 3, 4
MANY_STEPS = 8  # of an image, after which all is awaited: more than may be under way
SITES = ("mlp.fc2", "attn.qkv")
COMMANDS = ("cache", "collect")
# Of puts of a whole run: first, last, and some between of either command.
SOME = (1, 7, -1)


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """A batch of `collect` is written in several runs of steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[collect.__module__], "SHARD_BYTES", 1 << 16)
        yield


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_live_store(tmp_path_factory.mktemp("behind"), TINY, images=IMAGES, steps=STEPS)


@pytest.fixture(params=[("cache", 0.0), ("cache", 60.0), ("collect", 60.0)], ids=str)
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either command; `cache` flags each step alone, or all of an image together."""
    name, seconds = request.param
    monkeypatch.setattr(cache_pipeline, "FLAG_SECONDS", seconds)
    return str(name)


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    before = set(threading.enumerate())  # those of dask stay, once they were needed
    yield
    begun = set(threading.enumerate()) - before
    assert not [t for t in begun if t.name.startswith("ThreadPoolExecutor")]


def copy_of(store: Path, folder: Path) -> Path:
    return Path(shutil.copytree(store, folder / "s.zarr"))


def fill(command: str, store: Path, latents: Path, mode: Mode | None = None) -> Outcome:
    weights = latents.with_name("w.safetensors")
    if command == "cache":
        return cache(store, stride=1, local_ckpt=weights, mode=mode)
    return collect(store, stride=1, sites=SITES, local_ckpt=weights, mode=mode)


def words(command: str, store: Path, latents: Path) -> list[str]:
    weights = str(latents.with_name("w.safetensors"))
    given = [command, str(store), "--stride", "1", "--local-ckpt", weights]
    return given if command == "cache" else [*given, "--sites", ",".join(SITES)]


@pytest.fixture(scope="module")
def whole(latents: Path) -> dict[str, tuple[Path, int, int]]:
    """By command a store that was filled, and how many shards were put and items flagged."""
    found = {}
    for command in COMMANDS:
        store = Path(shutil.copytree(latents, latents.with_name(f"{command}.zarr")))
        with recorded(Events()) as events:
            fill(command, store, latents)
        names = [event.what for event in events]
        found[command] = store, names.count("put"), names.count("flagged")
    return found


def check_left(command: str, store: Path, latents: Path, events: Events, whole: Path) -> None:
    """What a run that ended early leaves is whole, and the next one completes it."""
    events.check()
    assert not (store.parent / f".{store.name}.locks").exists()
    assert verify_store(store).damage == ()
    opened = open_store(store)
    masks = {path: opened.mask(path) for path in opened.paths if not path.startswith("latents")}
    there = {
        (p, tuple(map(int, i)))
        for p, mask in masks.items()
        for i in zip(*mask.nonzero(), strict=True)
    }
    assert there == events.flagged()
    with recorded(Events()) as after:
        done = fill(command, store, latents, Mode(resume=True))
    after.check()
    assert (
        not {event[1:] for event in after if event.what in commit_events.WRITING} & events.flagged()
    ), "written where it was flagged"
    assert_same_stores(store, whole, attributes=False)
    assert done.written == len(after.flagged())


def after_the_model(seen: Callable[[], int], last: int) -> Callable[[Event, int], None]:
    """Writing is slower than the model: a put takes as long as many forwards, or until the last."""

    def wait(event: Event, number: int) -> None:
        if event.what == commit_events.PUTTING:
            until = time.monotonic() + 0.1
            while seen() < last and time.monotonic() < until:
                time.sleep(0.002)

    return wait


def test_slow_writing_follows_the_commit_rule(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of MLX nothing is asked by the threads that write: those of forwards have other names."""
    latents = make_live_store(tmp_path, TINY, images=2, steps=MANY_STEPS)
    store, forwards, askers = copy_of(latents, tmp_path), list[None](), set[threading.Thread]()
    expected = fill(command, latents, latents)
    denoise, to_numpy = LoadedModel.denoise, cache_pipeline.to_numpy

    def counted(self: LoadedModel, *given: Any) -> Any:
        if command == "cache":  # the first forward of all tells shapes
            put = sum(event[:2] == (commit_events.PUT, "blocks/img") for event in list(events))
            # Two are written, one waits for them, and two are under way.
            assert len(forwards) - 1 - put <= 4, "more than that is held"
        forwards.append(None)
        askers.add(threading.current_thread())
        return denoise(self, *given)

    def asked(tensor: Any) -> Any:
        askers.add(threading.current_thread())
        return to_numpy(tensor)

    monkeypatch.setattr(LoadedModel, "denoise", counted)
    for module in (cache_pipeline, buffers):
        monkeypatch.setattr(module, "to_numpy", asked)
    events = Events(after_the_model(lambda: len(forwards), 2 * MANY_STEPS))
    with recorded(events):
        done = fill(command, store, latents)
    events.check()
    assert_same_stores(store, latents)
    assert len(events.flagged()) == expected.written == done.written
    names = {thread.name.rpartition("_")[0] for thread in askers - {threading.main_thread()}}
    assert names <= {"taqstore-forward"}


@pytest.mark.parametrize("what", [commit_events.PUTTING, commit_events.FLAGGING])
@pytest.mark.parametrize("at", SOME)
def test_what_fails_behind_the_model_is_one_line_and_flags_nothing(
    command: str, at: int, what: str, latents: Path, whole: Any, tmp_path: Path, taq: Runner,
) -> None:  # fmt: skip
    store, (filled, puts, flags) = copy_of(latents, tmp_path), whole[command]
    chosen = at % (puts if what == commit_events.PUTTING else flags)

    def fail(event: Event, number: int) -> None:
        if event.what == what and number == chosen:
            failing.append(event)
            raise StoreError("the disk is full")

    failing = list[Event]()
    with recorded(Events(fail)) as events:
        shown = taq(*words(command, store, latents))
    assert shown.code == 1, shown.err
    assert shown.err.splitlines()[-1] == "taqstore: the disk is full"
    assert "Traceback" not in shown.err
    ((_, group, item),) = failing
    assert (group, item) not in events.flagged()
    check_left(command, store, latents, events, filled)


def test_what_another_took_over_is_not_counted_as_written(
    command: str, latents: Path, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As told where writers share an object store: when what was written is to be flagged."""
    store = copy_of(latents, tmp_path)

    def taken_over(event: Event, number: int) -> None:
        if event.what == commit_events.FLAGGING and event.item[0] == 1:
            raise SupersededError("taken over")

    monkeypatch.setattr(LocalBackend, "remote", True)
    with recorded(Events(taken_over)) as events:
        done = fill(command, store, latents)
    monkeypatch.undo()
    events.check()
    assert done.left == [1]
    assert done.written == len(events.flagged())
    assert {item[0] for _, item in events.flagged()} == {0, 2}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("at", [1, IMAGES * STEPS - 1])
def test_what_ends_the_model_waits_for_what_is_written(
    command: str, at: int, stop: type[BaseException], latents: Path, whole: Any, tmp_path: Path,
    taq: Runner, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Writing is under way, begun before the forward that ends the run, and goes on after it."""
    store, stopped = copy_of(latents, tmp_path), threading.Event()
    denoise, forwards = LoadedModel.denoise, iter(range(-1 if command == "cache" else 0, 10_000))

    def ending(self: LoadedModel, *given: Any) -> Any:
        if next(forwards) == at:
            stopped.set()
            raise stop
        return denoise(self, *given)

    def wait(event: Event, number: int) -> None:
        if event.what == commit_events.PUT and event.group.endswith(("img", SITES[0])):
            stopped.wait(0.05)
            time.sleep(0.02)

    monkeypatch.setattr(LoadedModel, "denoise", ending)
    with recorded(Events(wait)) as events:
        if stop is KeyboardInterrupt:
            assert taq(*words(command, store, latents)).code == 130
        else:
            with pytest.raises(TaqError, match="ZeroDivisionError"):
                fill(command, store, latents)
    monkeypatch.setattr(LoadedModel, "denoise", denoise)
    check_left(command, store, latents, events, whole[command][0])
