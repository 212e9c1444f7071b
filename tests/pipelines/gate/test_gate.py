"""The gate: passes, fails, keeps, goes on, and agrees with plain figures of its trajectories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.gate.gate import Bounds, Gate, gate, gate_costs, read_record
from taqstore.pipelines.judge.judged import judged
from taqstore.pipelines.models.quantized.quantized_model import quantize
from taqstore.pipelines.models.sampling import trajectory
from taqstore.pipelines.run.base_weights import base_weights

from support.judged_store import STEPS, forwards_counted, make_judged_store
from support.live_capture import needs_models
from support.stopped import killed_gate
from taqstore import open_store
from taqstore.errors import MisuseError, StoreError, TaqError
from taqstore.export import export
from taqstore.files.schema import load_schema
from taqstore.upkeep import verify_store

pytestmark = needs_models
GOOD, BAD = Variant.parse("whole/a8-static"), Variant.parse("float/a2-static")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_judged_store(tmp_path_factory.mktemp("gate") / "s.zarr")


@pytest.fixture(scope="module")
def found(made: Path) -> Gate:
    """A gate over the store that all share; its trajectories stay in it."""
    return gate(made, variants=[GOOD, BAD], count=2)


@pytest.fixture
def store(made: Path, found: Gate, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


def test_figures_are_those_of_trajectories_sampled_by_hand(made: Path, found: Gate) -> None:
    opened = open_store(made)
    with judged(made, count=2) as beside:
        planner = Planner(beside.model, opened, Options(), ("whole",))
        other = quantize(beside.model, planner.plans(GOOD))
        verdict = found.verdicts[0]
        for place, image in enumerate(beside.images):
            prompt, plain = beside.prepare(image), beside.at(place).x.astype(np.float64)
            seed = beside.seeds[place]
            steps = trajectory(other, prompt, beside.schedule, seed=seed, latent_size=(8, 8))
            for step, x in enumerate(np.array(x)[0].astype(np.float64) for x in steps):
                if not step:
                    assert np.array_equal(x, plain[0])
                    continue
                a, b = x.ravel(), plain[step].ravel()
                cosine = a @ b / np.sqrt((a @ a) * (b @ b))
                error = np.sqrt(((a - b) ** 2).sum() / (b**2).sum())
                assert verdict.figures.cosine[place, step - 1] == pytest.approx(cosine, rel=1e-12)
                assert verdict.figures.error[place, step - 1] == pytest.approx(error, rel=1e-12)
            peak = plain[-1].max() - plain[-1].min()
            psnr = 20 * np.log10(peak / np.sqrt(((a - b) ** 2).mean()))
            assert verdict.figures.psnr[place] == pytest.approx(psnr, rel=1e-12)


def test_one_passes_and_one_fails_with_its_worst_latent_named(found: Gate) -> None:
    good, bad = found.verdicts
    assert good.passes
    assert good.bifurcated == 0
    assert not bad.passes
    assert not found.passes
    worst = bad.worst
    assert bad.figures.cosine.min() == worst.cosine == bad.figures.cosine[worst.place].min()
    told = found.reason(bad)
    assert repr(found.prompts[worst.place]) in told
    assert f"seed {found.seeds[worst.place]}, step {worst.step}" in told


def test_nothing_runs_twice(store: Path, found: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    with forwards_counted(monkeypatch) as forwards:
        again = gate(store, variants=[GOOD, BAD], count=2)
        assert not forwards
        more = gate(store, variants=[GOOD], count=3)
        assert forwards == {"LoadedModel": STEPS, "QuantizedModel": STEPS}
    assert again.record["variants"] == found.record["variants"]
    assert np.array_equal(more.verdicts[0].figures.cosine[:2], found.verdicts[0].figures.cosine)
    assert not verify_store(store).damage
    records = [one["command"] for one in open_store(store).provenance]
    assert records.count("gate") == 2


def test_a_dry_run_counts_and_writes_nothing(
    store: Path, found: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    new = Variant.parse("rtn/a8-static")
    costs = gate_costs(store, variants=[GOOD, new], count=4)
    assert costs.amount == (2 + 2 + 4) * STEPS
    groups = list(costs.groups.values())
    assert [one.of for one in groups] == ["float", GOOD.name, new.name]
    assert [one.done for one in groups] == [2, 2, 0]
    assert before == {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    stored = open_store(store).stored_bytes(list(costs.groups)[1])
    assert stored is not None
    size = sum(stored.values()) // 2
    assert [one.bytes for one in groups] == [2 * size, 2 * size, 4 * size]
    with forwards_counted(monkeypatch) as forwards:
        gate(store, variants=[GOOD, new], count=4)
    assert sum(forwards.values()) == costs.amount


def test_what_runs_gives_the_name_not_what_it_is_called(store: Path, found: Gate) -> None:
    same = gate(store, variants=[Variant.parse("rtn"), Variant.parse("rtn-w4")], count=1)
    one, other = same.verdicts
    assert one.digest == other.digest != found.verdicts[0].digest
    plain = gate(store, variants=[Variant.parse("float")], count=1).verdicts[0]
    assert (plain.digest, plain.path) == ("", "trajectories/float")
    assert (plain.figures.error == 0).all()


def test_the_record_fits_its_schema_and_is_exact(found: Gate) -> None:
    import jsonschema

    text = json.dumps(found.record)
    jsonschema.Draft202012Validator(load_schema("gate-record")).validate(json.loads(text))
    kept = json.loads(text)["variants"][0]["images"][1]["cosine"]
    assert kept == found.verdicts[0].figures.cosine[1].tolist()
    for part in ("mlx", "diffusionkit", "numpy", "taqstore"):
        assert part in found.record["versions"]


def test_packed_weights_are_judged(store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    export("mlx", opened, tmp_path / "packed", base=base_weights(opened, "mlx"))
    packed = gate(store, packed=[tmp_path / "packed"], count=2)
    assert packed.verdicts[0].name == "packed:packed"
    assert packed.passes
    same = gate(store, variants=[Variant.parse("whole/a16")], count=2)
    error = packed.verdicts[0].figures.final_error - same.verdicts[0].figures.final_error
    assert (np.abs(error) < 1e-3).all()


def test_a_record_is_compared_with(store: Path, found: Gate, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(found.record), "utf-8")
    before = read_record(path)
    same = gate(store, variants=[GOOD], count=2, against=before)
    assert same.passes
    assert (same.changes[0].cosine.mean, same.changes[0].worse) == (0, False)
    renamed = {**before["variants"][0], "name": BAD.name}
    lax = Bounds(min_cosine=-1, max_bifurcated=9)
    one = {**before, "variants": [renamed]}
    worse = gate(store, variants=[BAD], count=2, bounds=lax, against=one)
    assert worse.verdicts[0].passes
    assert worse.changes[0].worse
    assert not worse.passes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"weights": "0" * 64}}, "other models"),
        ({"schedule": {"sigmas": [1.0, 0.0]}}, "other schedules"),
        ({"images": None}, "other images"),
    ],
)
def test_a_record_of_something_else_is_refused_before_anything_runs(
    store: Path, found: Gate, change: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    name, value = next(iter(change.items()))
    own = found.record[name]
    other = {**found.record, name: own[:1] if value is None else {**own, **value}}
    with forwards_counted(monkeypatch) as forwards:
        with pytest.raises(MisuseError, match=words) as refused:
            gate(store, variants=[Variant.parse("rtn")], count=2, against=other)
        assert not forwards
    assert "\n" not in str(refused.value)


def test_a_gate_that_was_killed_goes_on(
    made: Path, found: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(shutil.copytree(made, tmp_path / "s.zarr"))
    killed_gate(store, GOOD.name, count=4)
    whole = open_store(store)
    done = whole["trajectories/float"].sizes["image"]
    with forwards_counted(monkeypatch) as forwards:
        after = gate(store, variants=[GOOD], count=4)
    assert done > 2
    assert forwards.get("LoadedModel", 0) == (4 - done) * STEPS
    fresh = Path(shutil.copytree(made, tmp_path / "t.zarr"))
    straight = gate(fresh, variants=[GOOD], count=4)
    assert after.record["variants"] == straight.record["variants"]
    assert not verify_store(store).damage


def test_what_is_not_known_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="nothing is to be judged"):
        gate(store)
    with pytest.raises(MisuseError, match="'gptr' is not known"):
        gate(store, variants=[Variant.parse("gptr")])
    with pytest.raises(StoreError, match="no store"):
        gate(tmp_path / "none.zarr", variants=[GOOD])
    (tmp_path / "r.json").write_text("{}", "utf-8")
    with pytest.raises(TaqError, match=r"r\.json"):
        read_record(tmp_path / "r.json")
