"""Minibatches against naive indexing: content, order, memory, and threads that end."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.block_store import (
    IMAGES,
    SHAPES,
    SIGMAS,
    STEPS,
    TIMESTEPS,
    complete,
    pooled,
    value,
    write_blocks,
)
from taqstore import create_store, open_store
from taqstore.arrays import store_array as arrays
from taqstore.errors import MissingError, StoreError, TaqError
from taqstore.kinds import block_samples
from taqstore.kinds.block_samples import Batch, BlockSamples, open_block
from taqstore.kinds.minibatches import batch_order, iter_batches, memory_samples
from taqstore.layout.shards import MappedShard


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("blocks") / "s.zarr")


def assert_batch(batch: Batch, pairs: list[tuple[int, int]], block: int, *streams: str) -> None:
    assert list(zip(batch.image.tolist(), batch.step.tolist(), strict=True)) == pairs
    assert batch.inputs.keys() == set(streams)
    for stream, values in batch.inputs.items():
        naive = np.stack([value(stream, i, s, block) for i, s in pairs])
        assert values.dtype == np.float16
        assert values.tobytes() == naive.tobytes()
    for stream, values in batch.targets.items():
        naive = np.stack([value(stream, i, s, block + 1) for i, s in pairs])
        assert values.tobytes() == naive.tobytes()
    at = [STEPS.index(step) for _, step in pairs]
    np.testing.assert_array_equal(batch.sigma, SIGMAS[at])
    np.testing.assert_array_equal(batch.timestep, TIMESTEPS[at])
    assert batch.timestep.dtype == np.float16
    np.testing.assert_array_equal(batch.pooled, np.stack([pooled(i) for i, _ in pairs]))


@pytest.mark.parametrize("block", ["mm0", "mm1"])
def test_samples_held_in_memory_are_those_of_the_store(store: Path, block: str) -> None:
    read = open_block(store, block)
    size = read.nbytes * len(read)
    held = read.held(size)
    assert held.in_memory
    assert held.nbytes == read.nbytes
    assert not read.held(size - 1).in_memory
    rng = np.random.default_rng(4)
    for _ in range(5):
        numbers = rng.integers(0, len(read), 3)
        one, other = held.read(numbers), read.read(numbers)
        pairs = list(zip(other.image.tolist(), other.step.tolist(), strict=True))
        assert_batch(one, pairs, int(block[2:]), *other.inputs)
        assert one.targets.keys() == other.targets.keys()
        one.inputs["img"][...] = 0  # a batch is new memory
        np.testing.assert_array_equal(held.read(numbers).inputs["img"], other.inputs["img"])


@pytest.mark.parametrize(
    ("block", "streams", "targets"),
    [
        ("mm0", ("img", "txt"), {"img", "txt"}),
        ("mm1", ("img", "txt"), {"img"}),
        ("uni0", ("uni",), {"uni"}),
    ],
)
def test_samples_are_those_of_naive_indexing(
    store: Path, block: str, streams: tuple[str, ...], targets: set[str]
) -> None:
    samples = open_block(store, block)
    pairs = complete(*streams)
    assert len(samples) == len(pairs)
    chosen = [3, 0, 0, len(pairs) - 1]
    batch = samples.read(chosen)
    assert_batch(batch, [pairs[n] for n in chosen], int(block[-1]), *streams)
    assert batch.targets.keys() == targets
    size = sum(v.nbytes for v in (*batch.inputs.values(), *batch.targets.values()))
    assert samples.nbytes * len(chosen) == size == batch.nbytes


def test_a_second_input_of_a_stream_has_no_target(store: Path) -> None:
    streams = ("img", "txt", "img.quantized")
    samples = open_block(store, "mm0", streams=streams)
    pairs = complete(*streams)
    batch = samples.read(range(len(pairs)))
    assert_batch(batch, pairs, 0, *streams)
    assert batch.targets.keys() == {"img", "txt"}


def test_outputs_kept_apart_are_the_targets(tmp_path: Path) -> None:
    """A run folder in which one block's output is not the next one's input."""
    from taqstore.pipelines.ingest import ingest

    from support.source_runs import block_cache, edit_npz

    block_cache(tmp_path / "c")
    file = tmp_path / "c" / "samples" / "0007_005.npz"
    own = np.random.default_rng(5).normal(size=(2, 6, 1, 4)).astype(np.float32)
    edit_npz(file, mm1__out0=own)
    ingest([tmp_path / "c"], tmp_path / "s.zarr")
    samples = open_block(tmp_path / "s.zarr", "mm1")
    batch = samples.read(range(len(samples)))
    assert batch.pooled is None
    assert batch.sigma is None
    for row, (image, step) in enumerate(zip(batch.image, batch.step, strict=True)):
        with np.load(tmp_path / "c" / "samples" / f"{image:04d}_{step:03d}.npz") as truth:
            np.testing.assert_array_equal(batch.inputs["img"][row], truth["mm1__arg0"][:, :, 0])
            np.testing.assert_array_equal(batch.targets["img"][row], truth["mm1__out0"][:, :, 0])
            np.testing.assert_array_equal(batch.targets["txt"][row], truth["mm1__out1"][:, :, 0])
            assert batch.timestep[row] == truth["mm1__arg2"][0]


OPTIONS: list[dict[str, Any]] = [
    {"shuffle": "global"},
    {"shuffle": "window", "window": 4, "cycles": 3},
    {"shuffle": "window", "window": 99, "cycles": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_batches_are_the_samples_of_the_order(store: Path, options: dict[str, Any]) -> None:
    pairs = complete("img", "txt")
    window = {"global": 0}.get(options["shuffle"], min(options.get("window", 0), len(pairs)))
    order = batch_order(
        len(pairs), batch_size=3, window=window, cycles=options.get("cycles", 1), seed=8
    )
    batches = iter_batches(store, "mm0", batch_size=3, seed=8, **options)
    for batch, numbers in islice(zip(batches, order, strict=False), 25):
        assert_batch(batch, [pairs[n] for n in numbers], 0, "img", "txt")


@pytest.mark.parametrize("options", OPTIONS)
def test_prefetch_and_start_change_nothing(store: Path, options: dict[str, Any]) -> None:
    def labels(count: int, **more: Any) -> list[list[int]]:
        batches = iter_batches(store, "uni0", batch_size=3, seed=3, **options, **more)
        return [(b.image * 100 + b.step).tolist() for b in islice(batches, count)]

    whole = labels(20, prefetch=0)
    assert labels(20, prefetch=1) == labels(20, prefetch=4) == whole
    assert labels(7, start=13) == whole[13:]
    other = iter_batches(store, "uni0", batch_size=3, seed=4, **options)
    assert [(b.image * 100 + b.step).tolist() for b in islice(other, 20)] != whole


def test_global_order_is_pass_after_pass() -> None:
    stream = np.concatenate(list(islice(batch_order(10, batch_size=4, seed=1), 15)))
    passes = stream.reshape(6, 10)
    assert all(sorted(p) == list(range(10)) for p in passes.tolist())
    assert len({tuple(p) for p in passes.tolist()}) == 6


def test_window_order_stays_in_a_window_for_its_cycles() -> None:
    order = batch_order(10, batch_size=5, window=4, cycles=3, seed=1)
    stream = np.concatenate(list(islice(order, 12))).tolist()
    for turn in (stream[:30], stream[30:]):
        windows = [turn[0:12], turn[12:24], turn[24:30]]
        seen = [Counter(window) for window in windows]
        assert all(set(counts.values()) == {3} for counts in seen)
        assert sorted(n for counts in seen for n in counts) == list(range(10))
        assert all(set(w[i : i + 4]) == set(w) for w in windows[:2] for i in (0, 4, 8))


def test_a_window_is_read_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = BlockSamples.read

    def counting(self: BlockSamples, numbers: Any) -> Batch:
        read.extend(np.asarray(numbers).tolist())
        return original(self, numbers)

    monkeypatch.setattr(BlockSamples, "read", counting)
    options: Any = {"shuffle": "window", "window": 5, "cycles": 4, "prefetch": 0}
    list(islice(iter_batches(store, "mm0", batch_size=2, **options), 20))  # 10 samples, 4 times
    assert sorted(read) == list(range(len(complete("img", "txt"))))


def test_memory_is_what_was_said(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes alive at once, with a caller that keeps its batch until it has the next."""
    alive, peak = 0, 0
    original = block_samples.StreamTensor.read

    def freed(size: int) -> None:
        nonlocal alive
        alive -= size

    def tracked(self: Any, numbers: Any) -> Any:
        nonlocal alive, peak
        values = original(self, numbers)
        weakref.finalize(values, freed, values.nbytes)
        alive += values.nbytes
        peak = max(peak, alive)
        return values

    monkeypatch.setattr(block_samples.StreamTensor, "read", tracked)
    size = open_block(store, "mm0").nbytes
    for prefetch in (0, 2):
        peak = 0
        for batch in islice(iter_batches(store, "mm0", batch_size=3, prefetch=prefetch), 30):
            assert len(batch) == 3
        del batch
        assert size * 3 < peak <= size * memory_samples(3, 0, prefetch)
        assert alive == 0


def test_the_budget_is_checked_by_the_call(store: Path) -> None:
    size = open_block(store, "mm0").nbytes
    needed = size * memory_samples(4, 0, 2)
    assert needed == size * 4 * 4
    iter_batches(store, "mm0", batch_size=4, memory_budget=needed)
    with pytest.raises(TaqError, match=rf"^batches of mm0 need {needed} bytes.*{needed - 1}"):
        iter_batches(store, "mm0", batch_size=4, memory_budget=needed - 1)
    windowed: Any = {"shuffle": "window", "window": 6, "prefetch": 0}
    needed = size * (2 * 4 + 6 + 4)
    with pytest.raises(TaqError, match=f"need {needed} bytes"):
        iter_batches(store, "mm0", batch_size=4, memory_budget=needed - 1, **windowed)


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("taqstore-batches")]


def test_closing_ends_the_thread(store: Path) -> None:
    batches = iter_batches(store, "mm0", batch_size=2, prefetch=3)
    next(batches)
    assert len(readers()) == 1
    batches.close()
    assert not readers()
    assert next(batches, None) is None


def test_a_caller_that_fails_leaves_no_thread(store: Path) -> None:
    def work() -> None:
        for batch in iter_batches(store, "mm0", batch_size=2):
            raise ZeroDivisionError(len(batch))

    with pytest.raises(ZeroDivisionError):
        work()
    assert not readers()


def test_damage_reaches_the_caller(tmp_path: Path) -> None:
    """Checksums are compared: a flipped byte is no training data."""
    store = write_blocks(tmp_path / "s.zarr")
    (file,) = store.glob("blocks/img/x/c/1/1/0/0/0/0")
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(bytes(content))
    for prefetch in (0, 2):
        with pytest.raises(StoreError, match="checksum of chunk 0 does not match"):
            list(islice(iter_batches(store, "mm0", batch_size=2, prefetch=prefetch), 9))
        assert not readers()


def test_a_chunk_is_compared_once_however_often_it_is_mapped(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More samples than maps are kept: a second pass maps them again."""
    compared: list[tuple[Path, int]] = []
    original = MappedShard.check_one

    def counting(self: MappedShard, number: int) -> None:
        compared.append((self.path, number))
        original(self, number)

    monkeypatch.setattr(arrays, "MAPS_KEPT", 2)
    monkeypatch.setattr(MappedShard, "check_one", counting)
    list(islice(iter_batches(store, "mm0", batch_size=5), 6))
    chunks = 4 * len(complete("img", "txt")) + len(IMAGES)  # the last: pooled conditioning
    assert len(compared) == len(set(compared)) == chunks


def test_refusals(store: Path, tmp_path: Path) -> None:
    def refused(block: str = "mm0", **options: Any) -> str:
        with pytest.raises(TaqError) as caught:
            iter_batches(store, block, **{"batch_size": 2, **options})
        return str(caught.value)

    assert "block 'mm' is not known" in refused("mm")
    assert "block '../mm0' is not known" in refused("../mm0")
    assert "input or output of mm2 was not kept (found boundaries 0, 1, 2)" in refused("mm2")
    assert "no residual stream blocks/img.other" in refused(streams=["img.other"])
    assert "a batch of 11 is more than the samples of mm0 (found 10)" in refused(batch_size=11)
    assert "shuffle 'sorted' is not known; there is global, window" in refused(shuffle="sorted")
    assert "a window must hold a batch of 2 (found 1)" in refused(shuffle="window", window=1)
    assert "must be at least 1" in refused(batch_size=0)
    assert SHAPES["uni"] == open_block(store, "uni0").read([0]).inputs["uni"].shape[1:]
    create_store(tmp_path / "empty.zarr").finish()
    with pytest.raises(MissingError, match="no residual stream blocks/img"):
        open_block(tmp_path / "empty.zarr", "mm0")


def test_a_store_that_is_open_is_handed_on(store: Path, openings: list[str]) -> None:
    opened = open_store(store)
    given, found = (iter_batches(s, "mm0", batch_size=3, seed=8) for s in (store, opened))
    assert openings == ["r", "r"]
    for ours, theirs in islice(zip(found, given, strict=False), 4):
        assert ours.inputs["img"].tobytes() == theirs.inputs["img"].tobytes()
    found.close()
    given.close()
