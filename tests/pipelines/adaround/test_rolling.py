"""`adaround --rolling`: the bits of the whole cache, two boundaries of a stream on disk at most."""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.adaround.adaround import RollingInputs, adaround
from taqstore.pipelines.models.rounding import Settings

from support.live_capture import needs_models
from support.live_models import TINY, TINY32, TINY_FLUX
from support.rounding_store import make_rounding_store, without
from support.same_stores import assert_same_bits
from support.thinned import EXPLORE
from taqstore import open_store
from taqstore.errors import TaqError
from taqstore.names.boundaries import Boundary
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
QUICK = Settings(bits=3, iterations=6, batch_size=4, learning_rate=0.05)
EVERY_STEP = RollingInputs(stride=1)
# Units told before a run is ended, run after run; the last is none's end.
EVERYWHERE = (0, 3, 7, 11, 14, 2, 13, 17, 5, 12, 40, 200)
SOMEWHERE = (3, 11, 5, 13, 200)
# float16, a dtype wider than a cache keeps, and unified blocks after those of two streams.
ROWS = {row.name: row for row in (TINY, TINY32, TINY_FLUX)}
# What is kept, refused and counted knows blocks, not their dtype: one model says it for the dtypes.
of_one_model = pytest.mark.parametrize(
    "cached", list(ROWS) if EXPLORE else [TINY.name], indirect=True
)
of_each_kind_of_blocks = pytest.mark.parametrize(
    "cached", list(ROWS) if EXPLORE else [TINY.name, TINY_FLUX.name], indirect=True
)


@pytest.fixture(scope="module", params=list(ROWS))
def cached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all blocks cached, of each model."""
    return make_rounding_store(tmp_path_factory.mktemp(request.param), ROWS[request.param])


@pytest.fixture(scope="module")
def wholes(cached: Path) -> Callable[[bool], Path]:
    """Stores with all blocks cached that AdaRound has run in, each made once; to be read only."""

    @functools.cache
    def made(prefix: bool) -> Path:
        whole = Path(shutil.copytree(cached, cached.with_name(f"whole {prefix}.zarr")))
        run(whole, cached, prefix=prefix)
        return whole

    return made


def bare(cached: Path, folder: Path) -> Path:
    """A copy of the store before its blocks were cached."""
    store = Path(shutil.copytree(cached, folder / "bare.zarr"))
    for path in (p for p in open_store(cached) if p.startswith("blocks/")):
        without(store, path)
    return store


def run(store: Path, cached: Path, **options: Any) -> Any:
    chosen: dict[str, Any] = {"settings": QUICK, **options}
    return adaround(store, local_ckpt=cached.with_name("w.safetensors"), **chosen)


def assert_same_results(ours: Path, theirs: Path) -> None:
    found, expected = open_store(ours), open_store(theirs)
    paths = [p for p in expected if p.startswith(("weights", "reconstruction"))]
    assert paths == [p for p in found if p.startswith(("weights", "reconstruction"))]
    for path in paths:
        assert attribute_of(found[path], "run") == attribute_of(expected[path], "run")
        for name, values in expected[path].data_vars.items():
            if name != "seconds":
                assert_same_bits(found[path][name].values, values.values, f"{path} {name}")


class Looking:
    """A progress that looks at the store whenever it is told something, and may end the run."""

    def __init__(self, store: Path, look: Callable[[Path], None], last: int = 1 << 30) -> None:
        self.store, self.look, self.left = store, look, last
        self.names: list[str] | None = None

    def start(self, total: int) -> None:
        """The run begins."""

    def advance(self, label: str, count: int = 1) -> None:
        """Some of it is done."""
        names = sorted(_names(self.store))
        if names != self.names:
            self.look(self.store)
        self.names, self.left = names, self.left - 1
        if self.left < 0:
            raise KeyboardInterrupt


def two_at_most(store: Path) -> None:
    kept = [b for b in map(Boundary.parse, _names(store)) if b is not None]
    assert max(Counter(b.stream for b in kept).values(), default=0) <= 2
    assert sum("quantized" in name for name in _names(store)) <= 4  # of two streams
    assert verify_store(store).damage == ()


def _names(store: Path) -> list[str]:
    folder = store / "blocks"
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


@pytest.mark.parametrize(
    ("cached", "prefix"),
    list(product(ROWS, (False, True)))
    if EXPLORE
    else [(TINY.name, False), (TINY.name, True), (TINY32.name, False), (TINY_FLUX.name, True)],
    indirect=["cached"],
)
def test_the_result_is_that_of_the_whole_cache(
    cached: Path, wholes: Callable[[bool], Path], tmp_path: Path, *, prefix: bool
) -> None:
    whole, store = wholes(prefix), bare(cached, tmp_path)
    looking = Looking(store, two_at_most)
    run(store, cached, prefix=prefix, rolling=EVERY_STEP, mode=Mode(progress=looking))
    assert looking.left < 1 << 30
    assert_same_results(store, whole)
    assert [p for p in open_store(store) if p.startswith("blocks")] == []
    assert _names(store) in ([], ["zarr.json"])
    assert open_store(store).provenance[-1]["parameters"]["rolling"]["stride"] == 1


@of_each_kind_of_blocks
def test_killed_anywhere_it_goes_on_to_the_same_bits(
    cached: Path,
    wholes: Callable[[bool], Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    whole, store, ended = wholes(True), bare(cached, tmp_path), 0
    # One model is ended at every kind of place, the others at some of them.
    first = request.node.callspec.params["cached"] == TINY.name
    for steps in EVERYWHERE if first or EXPLORE else SOMEWHERE:
        looking = Looking(store, two_at_most, steps)
        try:
            run(
                store,
                cached,
                prefix=True,
                rolling=EVERY_STEP,
                mode=Mode(resume=True, progress=looking),
            )
        except KeyboardInterrupt:
            ended += 1
            two_at_most(store)
    assert ended >= 3
    assert_same_results(store, whole)
    assert [p for p in open_store(store) if p.startswith("blocks")] == []


@of_each_kind_of_blocks
def test_chosen_blocks_need_no_others_to_be_kept(cached: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(cached, tmp_path / "whole.zarr"))
    store, seen = bare(cached, tmp_path), set[str]()
    last = str(open_store(cached)["blocks/img"]["boundary"].values[-1] - 1)
    chosen = ["mm0", f"mm{last}"]
    run(whole, cached, chosen=chosen)
    looking = Looking(store, lambda store: seen.update(_names(store)))
    run(store, cached, chosen=chosen, rolling=EVERY_STEP, mode=Mode(progress=looking))
    assert_same_results(store, whole)
    indices = {b.index for b in map(Boundary.parse, seen) if b is not None}
    assert indices == {0, 1, int(last), int(last) + 1}


@of_one_model
def test_boundaries_of_other_images_make_way(
    cached: Path, wholes: Callable[[bool], Path], tmp_path: Path
) -> None:
    store, whole = bare(cached, tmp_path), wholes(False)
    few = RollingInputs(images=(1,), stride=1)
    mode = Mode(progress=Looking(store, two_at_most, 4))
    with pytest.raises(KeyboardInterrupt):
        run(store, cached, rolling=few, settings=Settings(iterations=6, batch_size=3), mode=mode)
    run(store, cached, rolling=EVERY_STEP)
    assert_same_results(store, whole)


@of_one_model
def test_what_is_cached_is_not_computed_again(cached: Path) -> None:
    with pytest.raises(TaqError, match=r"cached already.*blocks/img.*leave --rolling out"):
        run(cached, cached, rolling=EVERY_STEP)


@of_one_model
def test_a_batch_beyond_the_samples_is_refused_first(cached: Path, tmp_path: Path) -> None:
    store = bare(cached, tmp_path)
    before = sorted(store.rglob("*"))
    with pytest.raises(TaqError, match="a batch of 7 is more than the samples of mm0"):
        run(store, cached, rolling=EVERY_STEP, settings=Settings(iterations=6, batch_size=7))
    assert sorted(store.rglob("*")) == before


@of_one_model
def test_a_dry_run_tells_what_is_kept_at_once(cached: Path, tmp_path: Path) -> None:
    store = bare(cached, tmp_path)
    plan = run(store, cached, rolling=EVERY_STEP, mode=Mode(dry_run=True)).plan
    told = {p: g.bytes for p, g in plan.groups.items() if p.startswith("blocks")}
    assert set(Counter(Boundary.parse(p[7:]).stream for p in told).values()) <= {1, 2}  # type: ignore[union-attr]
    assert min(told.values()) > 0
    assert [p for p in open_store(store) if p.startswith("blocks")] == []
