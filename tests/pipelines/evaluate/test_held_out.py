"""Held-out images of evaluate: kept, sampled once, and the same figures as the gate's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.evaluate.claims import ENOUGH, claims
from taqstore.pipelines.evaluate.evaluate import evaluate, summary
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.gate.gate import gate

from support.judged_store import STEPS, forwards_counted, make_judged_store
from support.live_capture import needs_models
from taqstore import open_store
from taqstore.cli import cli
from taqstore.trajectory.bootstrap import bootstrap
from taqstore.upkeep import verify_store

WAYS = [Variant.parse("whole/a8-static"), Variant.parse("float/a2-static")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_judged_store(tmp_path_factory.mktemp("held") / "s.zarr")


@needs_models
def test_gate_and_evaluate_agree_to_the_last_digit(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = gate(store, variants=WAYS, count=2)
    with forwards_counted(monkeypatch) as forwards:
        found = evaluate(store, variants=WAYS, held_out=2, stride=STEPS).result
    # One forward a picture at one step: blocks beside; no trajectory of the model as it is.
    assert forwards["LoadedModel"] == 2
    assert found["image"].values.tolist() == [2, 3]
    assert (found["latent_error"][0] == 0).all()
    table = summary(found).set_index("variant")
    for place, verdict in enumerate(judged.verdicts, start=1):
        own, figures = found.isel(variant=place), verdict.figures
        assert own["latent_error"].values.tobytes() == figures.final_error.tobytes()
        assert own["psnr"].values.tobytes() == figures.psnr.tobytes()
        assert own["latent_cosine"].values.tobytes() == figures.cosine.tobytes()
        row, means = table.loc[verdict.name], verdict.intervals
        assert row["bifurcated"] == verdict.bifurcated
        assert row["worst_cosine"] == figures.worst_cosine.min()
        for name in ("cosine", "latent_error", "psnr"):
            ends = (row[name], row[f"{name}_lower"], row[f"{name}_upper"])
            assert ends == pytest.approx([float(end) for end in means[name]], rel=1e-14)


@needs_models
def test_images_of_the_store_have_the_same_figures(store: Path, tmp_path: Path) -> None:
    """The store's latents are the trajectory of the model as it is: nothing is kept of them."""
    copy = Path(shutil.copytree(store, tmp_path / "s.zarr"))
    groups, records = open_store(copy).paths, len(open_store(copy).provenance)
    found = evaluate(copy, variants=WAYS[:1], stride=STEPS).result
    assert found["latent_cosine"].sizes["latent_step"] == STEPS
    assert (found["latent_cosine"][0] > 1 - 1e-12).all()
    assert open_store(copy).paths == groups
    evaluate(copy, variants=WAYS[:1], held_out=3, stride=STEPS)
    assert [one["command"] for one in open_store(copy).provenance[records:]] == ["evaluate"]
    assert not verify_store(copy).damage


@needs_models
def test_the_command_claims_nothing_of_few_images(store: Path) -> None:
    words = ["evaluate", str(store), "--held-out", "2", "--stride", str(STEPS)]
    done = CliRunner().invoke(cli, [*words, "--variant", "rtn", "--variant", "mlx"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"note: no difference claimed: 2 images, {ENOUGH} needed" in done.stderr


def test_claims_are_those_of_paired_intervals() -> None:
    rng = np.random.default_rng(2)
    base = rng.uniform(0.01, 0.2, ENOUGH)
    errors = np.array([base, base * 1.1, base + rng.normal(scale=0.01, size=ENOUGH)])
    lower = [bootstrap(errors[a] - errors[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    held = sum(bool(one.lower > 0 or one.upper < 0) for one in lower)
    said = claims(["a", "b", "c"], errors)
    assert said[0].startswith(f"latent_error: {held} of 3 differences hold on {ENOUGH} images")
    assert "no difference claimed: a and c" in said[0]
    assert claims(["a", "b"], errors[:2, :31]) == ["no difference claimed: 31 images, 32 needed"]
