"""Collected second moments are those of the raw tensors, however they are put together."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.collect.second_moments import MomentSpace, SecondMoments, Sums
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.table import ModelRow

from support.live_capture import full_names, model_names, needs_models, raw_inputs
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny, write_checkpoint
from support.same_stores import assert_same_stores
from support.thinned import EXPLORE
from taqstore import TaqError, open_store
from taqstore.errors import MisuseError, StoreError
from taqstore.kinds.second_moments import Moments2, moments_of, tensors
from taqstore.names import SITES, parse_layer
from taqstore.run.mode import Mode
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
IMAGES, STEPS = 3, 4
PROMPTS = ("a cat", "ein Hund, groß", "seven")
TIGHT = 1 << 10
PAIRS = SecondMoments(16, step_groups=2, images=2)


class Counting:
    """Progress that counts forwards."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, total: int) -> None:
        self.total = total

    def advance(self, label: str, amount: int = 1) -> None:
        self.done += amount


Make = Callable[[Path, ModelRow], Path]


@pytest.fixture(scope="module")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a store with latents of `IMAGES` images by a tiny random model."""

    @functools.cache
    def sampled(row: ModelRow) -> Path:
        folder = tmp_path_factory.mktemp(row.name)
        prompts = folder / "prompts.txt"
        prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
        flux = row.pipeline == "FluxPipeline"
        checkpoint = write_checkpoint(folder / "w.safetensors", flux=flux)
        asked = Request(row.name, prompts, IMAGES, steps=STEPS, local_ckpt=checkpoint)
        generate(folder / "run.zarr", asked)
        return folder

    def made(folder: Path, row: ModelRow) -> Path:
        return Path(shutil.copytree(sampled(row), folder, dirs_exist_ok=True)) / "run.zarr"

    return made


@pytest.fixture(scope="module")
def bare_and_whole(make_store: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with latents, and a copy that was collected at once; to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    bare, whole = (make_store(folder / name, TINY) for name in "ab")
    run(whole, PAIRS)
    return bare, whole


def run(store: Path, asked: SecondMoments | None, **more: object) -> Counting:
    """Collect at every step; returns what progress was told."""
    mode = Mode(**{"progress": Counting(), **more})  # type: ignore[arg-type]
    checkpoint = store.with_name("w.safetensors")
    collect(store, stride=1, local_ckpt=checkpoint, second_moments=asked, mode=mode)
    assert isinstance(mode.progress, Counting)
    return mode.progress


def every_name(mmdit: Any) -> dict[int, str]:
    return full_names(mmdit) | model_names(mmdit)


def patches(x: np.ndarray) -> np.ndarray:
    """A latent (row, height, width, channel) as 2 x 2 patches (row, channel), if it is none yet."""
    if x.shape[-1] > 16:
        return x.reshape(-1, x.shape[-1])
    tiles = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return np.concatenate(tiles, axis=-1).reshape(-1, 4 * x.shape[-1])


def captured(store: Path, model: LoadedModel, patch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """float64 X^T X (step, channel, channel) of every linear, by DiffusionKit's own calls."""
    latents, found = open_store(store)["latents"], dict[str, np.ndarray]()
    for image in range(IMAGES):
        for step in range(STEPS):
            one = latents.sel(image=image, step=step)
            seen = raw_inputs(
                model, patch, one["x"].values, prompt=str(one["prompt"].values),
                cfg=float(one["cfg_weight"]), timestep=one["timestep"].values[()],
                sigma=one["sigma"].values[()], named=every_name,
            )  # fmt: skip
            for name, x in seen.items():
                wide = (patches(x) if x.ndim == 4 else x).astype(np.float64)
                shape = (STEPS, wide.shape[1], wide.shape[1])
                found.setdefault(name, np.zeros(shape))[step] += wide.T @ wide
    return found


def check(found: Moments2 | None, expected: np.ndarray) -> None:
    """Blocks to 1e-6 of the root of both diagonals, and symmetric."""
    assert found is not None
    blocks = np.arange(len(expected)) // found.block_size
    root = np.sqrt(np.diagonal(expected))
    error = np.abs(found.full() - np.where(blocks[:, None] == blocks, expected, 0))
    assert (error <= 1e-6 * np.outer(root, root)).all()
    assert (found.full() == found.full().T).all()


@pytest.mark.parametrize(
    ("row", "block_size"),
    [(TINY, 7), (TINY, None), (TINY32, None), (TINY_FLUX, 7)],
    ids=lambda one: getattr(one, "name", one),
)
def test_they_equal_float64_of_captured_tensors(
    row: ModelRow,
    block_size: int | None,
    make_store: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = make_store(tmp_path, row)
    run(store, SecondMoments(block_size, step_groups=2))
    opened = open_store(store)
    expected = captured(store, load_tiny(tmp_path, row), monkeypatch)
    names = {name: parse_layer(name).input for name in expected}
    assert {(at.layer, at.site) for at in names.values()} == set(tensors(opened))
    for name, products in expected.items():
        at = names[name]
        check(moments_of(opened, at.layer, at.site), products.sum(axis=0))
        late = moments_of(opened, at.layer, at.site, weights=[0, 2])
        check(late, 2 * products[STEPS // 2 :].sum(axis=0))
    assert verify_store(store).damage == ()


def test_sums_and_counts_are_those_of_the_statistics(make_store: Make, tmp_path: Path) -> None:
    store = make_store(tmp_path, TINY)
    run(store, SecondMoments(16))
    opened = open_store(store)
    for site in SITES:
        found, seen = opened[f"second_moments/{site}"].load(), opened[f"activations/{site}"].load()
        assert found.sizes["step_group"] == STEPS
        assert found["image"].values.tolist() == [[0, 1, 2, *[-1] * 5]]
        counts = seen["count"].sum("batch").transpose("step", "layer")
        assert found["count"].values[0].tolist() == counts.values.tolist()
        sums = (seen["mean"].astype("f8") * seen["count"]).sum("batch").transpose("step", ...)
        scale = float(np.abs(sums).max())
        np.testing.assert_allclose(found["channel_sum"].values[0], sums, atol=1e-5 * scale)
        assert not found["left_out"].any()


def test_a_pass_of_its_own_gives_the_same_and_leaves_statistics_alone(
    make_store: Make, tmp_path: Path
) -> None:
    together, after = (make_store(tmp_path / name, TINY) for name in "ab")
    asked = SecondMoments(16, step_groups=2, images=2)
    assert run(together, asked).done == IMAGES * STEPS
    run(after, None)
    before = (after / "activations/mlp.fc2/mean/c").rglob("*")
    times = {path: path.stat().st_mtime_ns for path in before if path.is_file()}
    assert run(after, asked, resume=True).done == IMAGES * STEPS
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert_same_stores(after, together)
    assert run(after, asked, resume=True).total == 0


def test_a_pass_of_its_own_takes_the_steps_of_the_statistics(
    make_store: Make, tmp_path: Path
) -> None:
    """Not the default of a fresh run: nobody has to say `--stride 1` again."""
    store = make_store(tmp_path, TINY)
    checkpoint = store.with_name("w.safetensors")
    collect(store, stride=1, sites=["mlp.fc1"], local_ckpt=checkpoint)
    resumed = Mode(resume=True)
    collect(store, local_ckpt=checkpoint, second_moments=SecondMoments(16), mode=resumed)
    opened = open_store(store)
    assert opened["second_moments/mlp.fc1"]["step"].values.tolist() == list(range(STEPS))
    record = opened.provenance[-1]
    assert record["parameters"]["stride"] == 1


def test_what_does_not_fit_is_refused_before_anything_is_written(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, TINY)
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match=r"bytes of second moments will not fit .*1 bytes free"):
        run(store, SecondMoments(16))
    monkeypatch.undo()
    assert not any(open_store(store, incomplete=True).mask("second_moments/mlp.fc1").ravel())


def test_without_resume_what_is_there_is_not_touched(make_store: Make, tmp_path: Path) -> None:
    store = make_store(tmp_path, TINY)
    run(store, None)
    with pytest.raises(StoreError, match="--resume keeps them"):
        run(store, SecondMoments(16))


# Before the last write of the first group of steps, and after it: that is where more is kept.
@pytest.mark.parametrize("failing", range(4) if EXPLORE else (1, 2))
def test_stopped_anywhere_a_resumed_run_does_the_rest(
    failing: int, bare_and_whole: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bare, whole = bare_and_whole
    stopped, asked = Path(shutil.copytree(bare.parent, tmp_path / "b")) / "run.zarr", PAIRS
    written, write = [0], Sums.write

    def failing_write(self: Sums, batch: int, step_group: int) -> object:
        written[0] += 1
        if written[0] > failing:
            raise KeyboardInterrupt
        return write(self, batch, step_group)

    with monkeypatch.context() as patch:
        patch.setattr(Sums, "write", failing_write)
        with pytest.raises(KeyboardInterrupt):
            run(stopped, asked)
    again = run(stopped, asked, resume=True)
    assert again.total == again.done
    # Groups of steps that were complete are summed no more; their images only for statistics.
    assert again.done == [12, 12, 4, 4][failing]
    assert_same_stores(stopped, whole)


def test_sums_that_do_not_fit_take_several_runs_of_the_steps(
    make_store: Make, tmp_path: Path
) -> None:
    whole, parts = (make_store(tmp_path / name, TINY) for name in "ab")
    told: list[MomentSpace] = []
    run(whole, SecondMoments(None))
    asked = SecondMoments(None, memory=TIGHT)
    collect(parts, stride=1, local_ckpt=parts.with_name("w.safetensors"), second_moments=asked,
            on_space=told.append)  # fmt: skip
    assert_same_stores(parts, whole)
    [space] = told
    assert space.passes == len(list((parts / "second_moments").glob("*.*/zarr.json"))) == 12
    shards = [
        path
        for name in ("second_moment", "channel_sum", "count", "left_out")
        for path in parts.glob(f"second_moments/*/{name}/c/**/*")
        if path.is_file()
    ]
    stored = sum(path.stat().st_size for path in shards)
    assert space.needed <= stored <= space.needed * 1.05


def test_positions_that_are_not_finite_are_left_out_and_told(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, TINY32)
    take = Sums.take

    def broken(self: Sums, inputs: list[tuple[object, object]]) -> None:
        from taqstore.pipelines.models.backend import backend

        mx = backend().mx
        bad = []
        for linear, tensor in inputs:
            values = np.array(tensor)
            values[0, 0, 0, 3] = np.nan
            bad.append((linear, mx.array(values)))
        take(self, bad)  # type: ignore[arg-type]

    monkeypatch.setattr(Sums, "take", broken)
    outcome = collect(store, stride=1, local_ckpt=store.with_name("w.safetensors"),
                      second_moments=SecondMoments(16), sites=["mlp.fc2"])  # fmt: skip
    found = open_store(store)["second_moments/mlp.fc2"].load()
    assert (found["left_out"].values == IMAGES).all()
    assert np.isfinite(found["second_moment"].values).all()
    assert any("positions with non-finite values are left out" in note for note in outcome.notes)


def test_what_cannot_be_asked_is_said(make_store: Make, tmp_path: Path) -> None:
    store = make_store(tmp_path, TINY)
    with pytest.raises(TaqError, match="5 groups of steps are asked for, of 4 steps"):
        run(store, SecondMoments(16, step_groups=5))
    with pytest.raises(MisuseError, match="no whole batches of statistics"):
        collect(store, local_ckpt=store.with_name("w.safetensors"), images_per_batch=3,
                second_moments=SecondMoments(16))  # fmt: skip
    run(store, SecondMoments(16, step_groups=2))
    with pytest.raises(StoreError, match="channel_block"):
        run(store, SecondMoments(8, step_groups=2), resume=True)
