"""`taqstore adaround`: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.adaround.activation_inputs import ActivationPlan
from taqstore.pipelines.adaround.adaround import adaround, block_errors
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.layers import blocks
from taqstore.pipelines.models.rounding import Optimiser, Settings
from taqstore.pipelines.models.table import ModelRow

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY, TINY_FLUX, load_tiny
from support.rounding_store import (
    IMAGES,
    STEPS,
    block_run,
    make_rounding_store,
    minibatch,
    without,
)
from support.same_stores import assert_same_bits
from taqstore import open_store
from taqstore.errors import LayoutError, MissingError, MisuseError, StoreError, TaqError
from taqstore.kinds.quantized_linears import quantized_linears
from taqstore.names import SITES
from taqstore.place.disk import try_lock
from taqstore.place.location import Location
from taqstore.quantization.weight_grid import weight_steps
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
QUICK = Settings(bits=3, iterations=12, batch_size=4, learning_rate=0.05)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("adaround"), TINY)


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "run.zarr"))


@pytest.fixture
def run(filled: Path) -> Callable[..., Any]:
    def call(store: Path, settings: Settings = QUICK, **options: Any) -> Any:
        return adaround(
            store, settings=settings, local_ckpt=filled.with_name("w.safetensors"), **options
        )

    return call


def groups_of(store: Path) -> dict[str, Any]:
    opened = open_store(store)
    return {p: opened[p].load() for p in opened if p.startswith(("weights", "reconstruction"))}


def assert_same_results(ours: Path, theirs: Path) -> None:
    found, expected = groups_of(ours), groups_of(theirs)
    assert set(found) == set(expected)
    for path, dataset in expected.items():
        for name, values in dataset.data_vars.items():
            if name != "seconds":
                assert_same_bits(found[path][name].values, values.values, f"{path} {name}")


def test_every_layer_of_every_block_is_written(store: Path, run: Callable[..., Any]) -> None:
    outcome = run(store)
    assert verify_store(store).damage == ()
    model = load_tiny(store.parent, TINY)
    found = groups_of(store)
    layers = [f"mm{i}.{s}" for i in range(3) for s in ("img", "txt")]
    for site in SITES:
        group = found[f"weights/adaround/{site}"]
        expected = layers if site == "attn.qkv" else layers[:-1]
        assert group["layer"].values.tolist() == expected
        assert np.abs(group["weight"].values + 0.5).max() <= 4
        assert (group["activation_bits"] == 8).all()
        assert np.isfinite(group["activation_step"]).all()
        assert ("activation_shift" in group) == (site == "mlp.fc2")
        told = attribute_of(group, "run")
        assert told["bits"] == 3
        assert told["blocks"] == attribute_of(open_store(store)["blocks/img"], "run")
    half = model.mmdit.multimodal_transformer_blocks[1].text_transformer_block
    weight = np.array(half.attn.k_proj.weight).astype(np.float32)
    k = found["weights/adaround/attn.qkv"].sel(layer="mm1.txt", projection="k_proj")
    np.testing.assert_array_equal(k["step_size"], weight_steps(weight, bits=3, clip="absmax"))
    up = np.floor(weight / k["step_size"].values) + (k["rounding"].values >= 0)
    np.testing.assert_array_equal(k["weight"], np.clip(up, -4, 3))
    errors = found["reconstruction"]
    assert np.isnan(errors["output_error"].sel(block="mm2", stream="txt")).all()
    assert (errors["output_error"].sel(stream="img") > 0).all()
    assert errors["iterations"].values.tolist() == [12] * 3
    assert np.isfinite(errors["loss"]).all()
    assert errors["rounding_loss"].values[0, :3].tolist() == [0.0] * 3
    assert outcome.groups["reconstruction"].written == 3
    assert open_store(store).provenance[-1]["command"] == "adaround"
    assert not list(store.parent.glob(".run.zarr.adaround*"))


def test_first_steps_are_those_of_the_observations(store: Path, run: Callable[..., Any]) -> None:
    run(store, replace(QUICK, iterations=1, step_rate=0.0), chosen=["mm1"],
        plan=ActivationPlan("timed", 2))  # fmt: skip
    observed = open_store(store)["activations/mlp.fc1"].sel(layer="mm1.img").load()
    group = groups_of(store)["weights/adaround/mlp.fc1"].sel(layer="mm1.img")
    sigma = observed["sigma"].values
    lower = group["sigma_lower"].values
    assert lower[0] in sigma
    assert lower[1] == 0
    ends = np.abs([observed["tensor_min"], observed["tensor_max"]]).astype(np.float64)
    for number, member in enumerate((sigma >= lower[0], sigma < lower[0])):
        step = group["activation_step"].values[number]
        # Only the rounding of exp(log(step)) is between.
        np.testing.assert_allclose(step, ends.max(axis=(0, 1))[member].max() / 127, rtol=1e-6)


def test_it_goes_on_inside_a_block_bit_for_bit(
    store: Path, filled: Path, run: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Stopped at the 9th iteration, in the second block, against a run that was not."""
    other = Path(shutil.copytree(filled, tmp_path / "other.zarr"))
    settings = replace(QUICK, iterations=6, qdrop=0.3, sigma_power=0.5)
    timed = {"plan": ActivationPlan("timed", 2), "chosen": ["mm0", "mm1"]}
    run(other, settings, **timed)
    learn, calls = Optimiser.learn, []

    def stopping(self: Optimiser, batch: Any) -> float:
        calls.append(self.iteration)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return learn(self, batch)

    def counting(self: Optimiser, batch: Any) -> float:
        calls.append(self.iteration)
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Optimiser, "learn", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(store, settings, **timed, checkpoint_seconds=0.0)
    assert [p.name for p in store.parent.glob(".run.zarr.adaround/*")] == ["mm1.safetensors"]
    assert groups_of(store)["reconstruction"]["block"].values.tolist() == ["mm0"]
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Optimiser, "learn", counting)
        run(store, settings, **timed, mode=Mode(resume=True))
    assert calls == [2, 3, 4, 5]
    assert_same_results(store, other)
    assert not list(store.parent.glob(".run.zarr.adaround*"))


def test_a_state_of_other_settings_or_a_damaged_one_is_not_gone_on_from(
    store: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, chosen=["mm0"])
    expected = groups_of(store)
    folder = store.with_name(".run.zarr.adaround")
    folder.mkdir()
    (folder / "mm0.safetensors").write_bytes(b"\x10" + b"\0" * 30)
    run(store, chosen=["mm0"], mode=Mode(force=True))
    for path, dataset in groups_of(store).items():
        for name, values in dataset.data_vars.items():
            if name != "seconds":
                assert_same_bits(values.values, expected[path][name].values)


def test_blocks_that_another_process_works_on_are_left_to_it(
    store: Path, run: Callable[..., Any]
) -> None:
    run(store, chosen=["mm2"])
    location = Location.parse(store)
    name = location.item_lock_name("reconstruction", (0,))
    with try_lock(location.beside("locks") / name, location) as held:
        assert held
        outcome = run(store, mode=Mode(resume=True))
    assert outcome.notes == ["mm0: left to another process that is working on it"]
    assert groups_of(store)["reconstruction"]["block"].values.tolist() == ["mm1", "mm2"]
    assert outcome.groups["reconstruction"].skipped == 1


def test_weights_alone(store: Path, run: Callable[..., Any]) -> None:
    run(store, replace(QUICK, activation_bits=0, group_size=8, clip="mse"), chosen=["mm0"])
    group = groups_of(store)["weights/adaround/mlp.fc2"]
    assert group.sizes["group"] == 16
    assert np.isnan(group["activation_step"]).all()
    assert (group["activation_bits"] == 0).all()


@pytest.mark.parametrize("row", [TINY, TINY_FLUX], ids=lambda row: row.name)
def test_prefix_feeds_each_block_what_the_quantized_one_before_put_out(
    row: ModelRow, tmp_path: Path
) -> None:
    """Against the model's own block run with the stored weights put into it."""
    store, name = make_rounding_store(tmp_path, row), f"{row.name}.0.safetensors"
    (tmp_path / "w.safetensors").rename(tmp_path / name)
    settings = replace(QUICK, iterations=2, activation_bits=0)
    plan = ActivationPlan(shifted=())
    adaround(store, settings=settings, plan=plan, prefix=True, local_ckpt=tmp_path / name)
    assert verify_store(store).damage == ()
    model, opened, mx = load_tiny(tmp_path, row), open_store(store), backend().mx
    every = blocks(model.mmdit)
    assert groups_of(store)["reconstruction"].sizes["block"] == len(every)
    for block, following in pairwise(every):
        run = block_run(model, block.name)
        for linear in quantized_linears(opened, block.name):
            module = dict(run.linears)[linear.name]
            module.weight = mx.array(linear.dequantized())
        given = {n: opened[f"blocks/{n}"]["x"].sel(image=1, step=2) for n in block.streams}
        if block is not every[0]:
            for n in block.streams:
                given[n] = opened[f"blocks/{n}.quantized-{block.index}"]["x"].sel(image=1, step=2)
        inputs = {n: mx.array(x.sel(boundary=block.index).values.astype(np.float32))[None]
                  for n, x in given.items()}  # fmt: skip
        batch = minibatch(store, model, block.name, [STEPS + 2])
        modulation = [m.astype(mx.float32) for m in run.modulation(batch.pooled, batch.timestep)]
        outputs = run.outputs(inputs, modulation)
        found = {n: np.array(x)[0].astype(np.float16) for n, x in outputs.items()}
        if following.unified and not block.unified:
            found = {"uni": np.concatenate([found["txt"], found["img"]], axis=1)}
        for n, values in found.items():
            kept = opened[f"blocks/{n}.quantized-{following.index}"]["x"].sel(image=1, step=2)
            np.testing.assert_allclose(kept.values[0], values, rtol=2e-3, atol=2e-3, err_msg=n)


def test_prefix_goes_in_order(store: Path, run: Callable[..., Any]) -> None:
    brief = replace(QUICK, iterations=1)
    outcome = run(store, brief, chosen=["mm0", "mm2"], prefix=True)
    assert outcome.notes == ["mm2: the block before it is not complete"]
    run(store, brief, prefix=True, mode=Mode(resume=True))
    assert groups_of(store)["reconstruction"].sizes["block"] == 3


def test_an_early_end_is_recorded(
    store: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Optimiser, "done", property(lambda self: self.iteration == 7))
    run(store, chosen=["mm0"])
    found = groups_of(store)["reconstruction"].isel(block=0)
    assert int(found["iterations"]) == 7
    ran = np.arange(12) < 7
    np.testing.assert_array_equal(np.isfinite(found["loss"]), ran)
    np.testing.assert_array_equal(np.isfinite(found["rounding_loss"]), ran)


def test_a_batch_is_by_default_no_more_than_there_is(
    store: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    told = Path(shutil.copytree(store, tmp_path / "told.zarr"))
    outcome = run(store, replace(QUICK, batch_size=None), chosen=["mm0"])
    (note,) = (note for note in outcome.notes if "batch" in note)
    assert (
        note == f"a batch is {IMAGES * STEPS} samples, all that mm0 has; --batch-size takes fewer"
    )
    outcome = run(told, replace(QUICK, batch_size=IMAGES * STEPS), chosen=["mm0"])
    assert not any("batch" in note for note in outcome.notes)
    assert_same_results(store, told)


def test_groups_of_steps_are_by_default_no_more_than_the_steps(
    store: Path, filled: Path, taq: Runner
) -> None:
    words = (
        "--iterations",
        1,
        "--blocks",
        "mm0",
        "--local-ckpt",
        filled.with_name("w.safetensors"),
    )
    done = taq("adaround", store, "--rule", "timed", *words)
    assert done.code == 0, done.err
    assert f"note: {STEPS} groups of steps, one for each that was collected" in done.err
    (path,) = (path for path in open_store(store) if path.startswith("reconstruction"))
    assert attribute_of(open_store(store)[path], "run")["time_groups"] == STEPS


def test_what_cannot_be_is_refused(store: Path, run: Callable[..., Any]) -> None:
    with pytest.raises(MissingError, match="no block mm9 in tiny"):
        run(store, chosen=["mm9"])
    with pytest.raises(TaqError, match="do not divide"):
        run(store, replace(QUICK, group_size=5))
    with pytest.raises(TaqError, match=f"samples of mm0 .found {IMAGES * STEPS}"):
        run(store, replace(QUICK, batch_size=7))
    run(store, chosen=["mm0"])
    with pytest.raises(StoreError, match="already holds 2 of the 6 items"):
        run(store)
    with pytest.raises(LayoutError, match=r"seed \(store 0, asked 3\)"):
        run(store, replace(QUICK, seed=3), mode=Mode(resume=True))
    without(store, "activations/mlp.fc1")
    with pytest.raises(MissingError, match="taqstore collect observes them; --activation-bits 0"):
        run(store, mode=Mode(resume=True))
    without(store, "blocks/pooled")
    with pytest.raises(MissingError, match="need pooled conditioning"):
        run(store, replace(QUICK, activation_bits=0), mode=Mode(force=True))
    without(store, "blocks")
    with pytest.raises(MissingError, match="taqstore cache keeps them"):
        run(store)


@pytest.mark.parametrize("wrong", [("baseline", 2), ("timed", 1)])
def test_rule_and_groups_go_together(wrong: tuple[Any, int]) -> None:
    with pytest.raises(TaqError, match="baseline has 1 group, timed at least 2"):
        ActivationPlan(*wrong)
    with pytest.raises(TaqError, match=r"site 'mlp\.fc3' is not known"):
        ActivationPlan(shifted=("mlp.fc3",))


@pytest.mark.parametrize(
    "wrong",
    [{"rule": "none"}, {"groups": 0}, {"rule": "timed", "groups": 2.5}, {"clip": "none"},
     {"shifted": "mlp.fc2"}],
)  # fmt: skip
def test_a_plan_is_checked_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match=next(iter(reversed(wrong)))):
        ActivationPlan(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 1}, {"bits": 4.0}, {"bits": 9}, {"activation_bits": 1}, {"activation_bits": 17},
     {"activation_bits": 8.5}, {"group_size": 0}, {"clip": "ema"}, {"seed": 1 << 32},
     {"batch_size": 0}, {"learning_rate": float("nan")}, {"qdrop": 1.0}],
)  # fmt: skip
def test_settings_are_checked_when_they_are_made(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(MisuseError, match=name.split("_")[-1]):
        Settings(**wrong)


def test_the_command(store: Path, filled: Path, taq: Runner) -> None:
    words = ["adaround", store, "--local-ckpt", filled.with_name("w.safetensors"), "--bits", "3",
             "--iterations", "5", "--batch-size", "4", "--blocks", "mm1,mm2"]  # fmt: skip
    result = taq(
        *words, "--rule", "timed", "--groups", "2", "--shift", "", "--activation-bits", "4"
    )
    assert result.code == 0, result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0][:6] == ["block", "stream", "inputs", "adaround", "rtn", "clipped"]
    assert lines[0][6:8] == ["adaround/rtn", "adaround/clipped"]
    streams = [["mm1", "img"], ["mm1", "txt"], ["mm2", "img"]]
    expected = [[*s, inputs] for s in streams for inputs in ("float", "first", "learned")]
    assert [line[:3] for line in lines[1:]] == expected
    assert "activation_shift" not in groups_of(store)["weights/adaround/mlp.fc2"]
    for row in block_errors(store):
        where = f"{row['block']} {row['stream']}, {row['inputs']} inputs"
        assert (f"{where}: AdaRound lost to rtn" in result.err) == (row["adaround/rtn"] >= 1)
    again = taq(*words, "--rule", "timed", "--groups", "2", "--shift", "", "--activation-bits", "4",
                "--resume", "--json")  # fmt: skip
    document = json.loads(again.out)
    assert document["groups"]["reconstruction"] == {"written": 0, "skipped": 2, "bytes_out": 0}
    assert len(document["blocks"]) == 9
    assert taq(*words, "--bits", "9").code == 2
    assert taq(*words, "--activation-clip", "p1").code == 2


def test_the_store_is_opened_once_to_read_and_once_to_write(
    store: Path, filled: Path, taq: Runner, openings: list[str]
) -> None:
    """Whatever the number of blocks and streams, and with the table of errors at the end."""
    words = ["--local-ckpt", filled.with_name("w.safetensors"), "--iterations", "2"]
    shown = taq("adaround", store, *words, "--batch-size", "2", "--prefix")
    assert shown.code == 0, shown.err
    assert len(shown.out.splitlines()) == 1 + 5 * 3
    assert sorted(openings) == ["a", "r"]
