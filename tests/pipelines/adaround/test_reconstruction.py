"""Errors of blocks: each rounding with the same inputs, and the time of all sessions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.adaround import adaround as pipeline
from taqstore.pipelines.adaround import job, one_block
from taqstore.pipelines.adaround.activation_inputs import ActivationPlan
from taqstore.pipelines.adaround.adaround import adaround, block_errors
from taqstore.pipelines.adaround.result_groups import rounding_templates
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel, to_numpy
from taqstore.pipelines.models.quantized.linear import installed
from taqstore.pipelines.models.quantized.quantized_model import LinearPlan, quantize
from taqstore.pipelines.models.rounding import Optimiser, Settings

from support.hostile import Hostile
from support.live_capture import needs_models
from support.live_models import TINY, load_tiny
from support.rounding_store import IMAGES, STEPS, block_run, make_rounding_store, minibatch
from taqstore import open_store
from taqstore.errors import TaqError
from taqstore.kinds.block_samples import open_block
from taqstore.kinds.quantized_linears import InputQuantizer, quantized_linears
from taqstore.kinds.weight_sets import weight_sets
from taqstore.names import SITES, WEIGHTS, LayerName
from taqstore.quantization.weight_grid import dequantized, round_to_nearest, weight_steps
from taqstore.query.activation_start import activation_start
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of

pytestmark = needs_models
QUICK = Settings(bits=3, activation_bits=4, iterations=8, batch_size=4, learning_rate=0.05,
                 step_rate=0.05)  # fmt: skip
BLOCK = "mm1"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("reconstruction"), TINY)


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "run.zarr"))


def run(store: Path, filled: Path, settings: Settings = QUICK, **options: Any) -> None:
    adaround(store, settings=settings, local_ckpt=filled.with_name("w.safetensors"), **options)


def first_inputs(store: Path, bits: int) -> dict[str, Any]:
    groups = open_store(store)
    return {
        site: activation_start(
            groups[f"activations/{site}"], bits=bits, groups=2, shifted=site == "mlp.fc2"
        ).compute()
        for site in ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2")
    }


def inputs_of(store: Path, kind: str) -> Mapping[LayerName, InputQuantizer]:
    """Input quantizers out of the store: what was learned, or what it began with."""
    linears = {x.name: x.input for x in quantized_linears(open_store(store), BLOCK)}
    if kind == "learned":
        return linears
    first = first_inputs(store, 4)
    return {
        name: replace(one, step=first[name.site]["step_size"].sel(layer=name.layer).values)
        for name, one in linears.items()
    }


def weights_of(store: Path, model: LoadedModel, method: str) -> dict[LayerName, np.ndarray]:
    if method == "adaround":
        return {x.name: x.dequantized() for x in quantized_linears(open_store(store), BLOCK)}
    found = {}
    for name, module in block_run(model, BLOCK).linears:
        own = np.asarray(to_numpy(module.weight), np.float32)
        steps = weight_steps(own, bits=3, clip="absmax" if method == "rtn" else "mse")
        found[name] = dequantized(round_to_nearest(own, steps, bits=3), steps)
    return found


def measured(store: Path, model: LoadedModel, method: str, kind: str) -> dict[str, float]:
    """Mean squared errors of the block run sample by sample, as `evaluate` runs it quantized."""
    mx, quantizers = backend().mx, {} if kind == "float" else inputs_of(store, kind)
    plans = {
        name: LinearPlan(weight, quantizers.get(name))
        for name, weight in weights_of(store, model, method).items()
    }
    made = quantize(model, plans)
    run, sigma = block_run(model, BLOCK), open_block(store, BLOCK).read(range(6)).sigma
    assert sigma is not None
    squares: dict[str, list[np.ndarray]] = {}
    for slot, plan in zip(made.slots, plans.values(), strict=True):
        slot.weight = mx.array(plan.weight)  # float32, as blocks are rounded
    for number in range(IMAGES * STEPS):
        for slot in made.slots:
            slot.at(float(sigma[number]))
        batch = minibatch(store, model, BLOCK, [number])
        modulation = [m.astype(mx.float32) for m in run.modulation(batch.pooled, batch.timestep)]
        with installed(made.slots):
            given = {n: x.astype(mx.float32) for n, x in batch.inputs.items()}
            outputs = run.outputs(given, modulation)
            mx.eval(outputs)
        for stream, values in outputs.items():
            wide = np.array(values, np.float64) - np.array(batch.targets[stream], np.float64)
            squares.setdefault(stream, []).append(wide**2)
    return {stream: float(np.mean(parts)) for stream, parts in squares.items()}


def test_each_rounding_is_measured_with_the_same_inputs(store: Path, filled: Path) -> None:
    run(store, filled, plan=ActivationPlan("timed", 2), chosen=[BLOCK])
    model = load_tiny(filled.parent, TINY)
    found = open_store(store)["reconstruction"].sel(block=BLOCK).load()
    assert found["inputs"].values.tolist() == ["float", "first", "learned"]
    for method in ("adaround", "rtn", "clipped"):
        for kind in ("float", "first", "learned"):
            one = found["method_error"].sel(rounding_method=method, inputs=kind)
            for stream, expected in measured(store, model, method, kind).items():
                # float32 forwards; a level that lies on the edge may fall to either side.
                np.testing.assert_allclose(
                    float(one.sel(stream=stream)), expected, rtol=2e-3, err_msg=f"{method} {kind}"
                )
    error, given = found["method_error"], found["output_error"]
    for method, kind in (("adaround", "learned"), ("rtn", "first"), ("clipped", "first")):
        same = error.sel(rounding_method=method, inputs=kind)
        np.testing.assert_array_equal(given.sel(rounding_method=method), same)
    # Learning moved the inputs of the others too: what is compared is not what it was.
    rtn = error.sel(rounding_method="rtn")
    assert (rtn.sel(inputs="first") != rtn.sel(inputs="learned")).all()


def test_the_table_changes_one_thing_at_a_time(store: Path, filled: Path) -> None:
    run(store, filled, chosen=[BLOCK])
    found = open_store(store)["reconstruction"].sel(block=BLOCK).load()
    rows = block_errors(store)
    assert [(r["stream"], r["inputs"]) for r in rows] == [
        (stream, inputs) for stream in ("img", "txt") for inputs in ("float", "first", "learned")
    ]
    for row in rows:
        power = float(found["output_power"].sel(stream=row["stream"]))
        one = found["method_error"].sel(stream=row["stream"], inputs=row["inputs"])
        error = {m: float(one.sel(rounding_method=m)) for m in ("adaround", "rtn", "clipped")}
        assert {m: row[m] for m in error} == {m: e / power for m, e in error.items()}
        for other in ("rtn", "clipped"):
            assert row[f"adaround/{other}"] == error["adaround"] / error[other]


def test_weights_alone_have_one_row(store: Path, filled: Path) -> None:
    run(store, filled, replace(QUICK, activation_bits=0), chosen=["mm2"])
    found = open_store(store)["reconstruction"].load()
    assert np.isnan(found["method_error"].sel(inputs=["first", "learned"])).all()
    rows = block_errors(store)
    assert [(r["block"], r["stream"], r["inputs"]) for r in rows] == [("mm2", "img", "float")]
    plain = found["method_error"].sel(inputs="float", drop=True)
    np.testing.assert_array_equal(found["output_error"], plain)


def test_a_store_that_an_older_version_began_is_gone_on_with(
    store: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights lie in the old place, without bits, and its errors are of mixed inputs."""

    def older(model: Any, settings: Any, inputs: Any, run: Any, **_: Any) -> Any:
        told = {key: value for key, value in run.items() if key not in ("method", "grid")}
        return rounding_templates(model, settings, inputs, told, compared=False, folder=WEIGHTS)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "rounding_templates", older)
        run(store, filled, chosen=["mm0"])
    run(store, filled, chosen=["mm0", "mm1"], mode=Mode(resume=True))
    found = open_store(store)["reconstruction"]
    assert "method_error" not in found
    assert found["block"].values.tolist() == ["mm0", "mm1"]
    assert {row["inputs"] for row in block_errors(store)} == {"mixed"}
    assert {p for p in open_store(store) if p.startswith(WEIGHTS)} == {
        f"{WEIGHTS}/{site}" for site in SITES
    }
    assert weight_sets(open_store(store)) == ("adaround",)


def test_seconds_are_those_of_all_sessions(
    store: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which an iteration takes 100 seconds, and nothing else any time."""
    learn, now, stop = Optimiser.learn, [1000.0], [3]

    def timed(self: Optimiser, batch: Any) -> float:
        if self.iteration in stop:
            stop.remove(self.iteration)
            raise KeyboardInterrupt
        now[0] += 100
        return learn(self, batch)

    monkeypatch.setattr(Optimiser, "learn", timed)
    for module in (job, one_block):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt):
        run(store, filled, chosen=[BLOCK], checkpoint_seconds=0.0)
    now[0] += 1e6  # the night between
    stop.append(6)
    with pytest.raises(KeyboardInterrupt):
        run(store, filled, chosen=[BLOCK], checkpoint_seconds=0.0, mode=Mode(resume=True))
    run(store, filled, chosen=[BLOCK], mode=Mode(resume=True))
    assert float(open_store(store)["reconstruction"]["seconds"].sel(block=BLOCK)) == 800.0


def test_streams_of_ingested_blocks_are_gone_on_with(store: Path, filled: Path) -> None:
    """They say no run; that of the quantized streams beside them is not theirs."""
    hostile = Hostile(store)
    for path in ("blocks/img", "blocks/txt"):
        hostile.group(path, lambda document: document["attributes"].pop("run"))
    brief = replace(QUICK, iterations=1)
    for mode in (Mode(), Mode(resume=True)):
        chosen = ["mm0"] if not mode.resume else ["mm0", "mm1"]
        run(store, filled, brief, chosen=chosen, prefix=True, model=TINY.name, mode=mode)
    found = open_store(store)
    assert found["reconstruction"]["block"].values.tolist() == ["mm0", "mm1"]
    assert attribute_of(found["reconstruction"], "run")["blocks"] == {}


def test_streams_of_two_runs_are_refused(store: Path, filled: Path) -> None:
    def other(document: dict[str, Any]) -> None:
        document["attributes"]["run"]["dtype"] = "float64"

    Hostile(store).group("blocks/txt", other)
    with pytest.raises(TaqError, match="blocks/img and blocks/txt were not made by one run"):
        run(store, filled, chosen=[BLOCK])


def test_streams_of_two_schedules_are_refused(store: Path, filled: Path) -> None:
    sigma = open_store(store)["blocks/txt"]["sigma"].values.copy()
    sigma[1] = 0.125
    Hostile(store).coordinate("blocks/txt", "sigma", sigma)
    with pytest.raises(TaqError, match=r"sigma of step 1 is not the same in all streams .found"):
        run(store, filled, chosen=[BLOCK])
