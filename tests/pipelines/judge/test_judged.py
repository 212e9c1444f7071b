"""Judged images: chosen beyond the store's, sampled once, kept, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.judge.judged import judged, run_beside
from taqstore.pipelines.models.sampling import trajectory

from support.judged_store import STEPS, forwards_counted, make_judged_store
from support.live_capture import needs_models
from taqstore import open_store
from taqstore.upkeep import merge, verify_store

pytestmark = needs_models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_judged_store(tmp_path_factory.mktemp("judged") / "s.zarr")


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


def test_images_are_beyond_the_stores_and_run_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = open_store(store)["latents"]
    with forwards_counted(monkeypatch) as forwards, judged(store, count=2) as few:
        first = few.x
        assert few.images == (2, 3)
        assert not few.notes
        assert min(few.seeds) == int(latents["seed"].max()) + 1
        assert forwards == {"LoadedModel": 2 * STEPS}
    with forwards_counted(monkeypatch) as forwards, judged(store, count=3) as more:
        assert forwards == {"LoadedModel": STEPS}
        assert more.images == (2, 3, 4)
        assert np.array_equal(more.x[:2], first)
        assert more.prompts[:2] == few.prompts
    with forwards_counted(monkeypatch) as forwards, judged(store, count=2) as again:
        assert not forwards
        assert np.array_equal(again.x, first)
    assert not verify_store(store).damage


def test_they_are_what_sampling_gives_and_output_is_the_guided_one(store: Path) -> None:
    with judged(store, count=1) as found:
        image, model, schedule = found.images[0], found.model, found.schedule
        prompt = found.prepare(image)
        own = trajectory(model, prompt, schedule, seed=found.seeds[0], latent_size=(8, 8))
        expected = np.stack([np.array(x)[0] for x in own])
        kept = found.at(0)
        assert kept.x.tobytes() == expected.tobytes()
        for step in range(STEPS):
            x, sigma = model.to_model(kept.x[step]), schedule.sigmas[step]
            denoised = model.denoise(x, schedule.timesteps[step], sigma, prompt)
            assert np.array((x - denoised) / sigma)[0].tobytes() == kept.output[step].tobytes()
        beside = run_beside(found, model, 0)
        assert beside.x.tobytes() == kept.x.tobytes()
        assert beside.output.tobytes() == kept.output.tobytes()
    group = open_store(store)["trajectories/float"]
    assert np.isnan(group["output"].values[:, -1]).all()
    assert not np.isnan(group["output"].values[:, :-1]).any()


def test_prompts_of_a_file_get_numbers_of_their_own(store: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a handwritten five", encoding="utf-8")
    with judged(store, count=2) as own:
        pass
    with judged(store, count=1, prompts=tmp_path / "p.txt") as other:
        assert other.prompts == ("a handwritten five",)
        assert other.seeds == own.seeds[:1]
        assert other.images == (4,)
        assert not np.array_equal(other.at(0).x, own.at(0).x)
    with judged(store, count=2, prompts=tmp_path / "p.txt") as more:
        assert more.images == (4, 5)


def test_a_store_that_is_not_written_works_without_keeping(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with judged(store, count=1) as kept:
        expected = kept.at(0).x
    url = f"zip::file://{shutil.make_archive(str(store), 'zip', store)}"
    before = Path(f"{store}.zip").read_bytes()
    with forwards_counted(monkeypatch) as forwards, judged(url, count=1) as found:
        assert np.array_equal(found.at(0).x, expected)
        assert len(found.notes) == 1
        assert "not kept" in found.notes[0]
        assert not forwards
    with forwards_counted(monkeypatch) as forwards, judged(url, count=2) as more:
        assert more.images == (2, 3)
        assert forwards == {"LoadedModel": STEPS}
    assert Path(f"{store}.zip").read_bytes() == before


def test_stores_merge_with_trajectories_in_one_of_them(store: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    other = make_judged_store(tmp_path / "o" / "s.zarr", images=1, seed=7)
    with judged(store, count=1):
        pass
    outcome = merge(store, other, tmp_path / "m.zarr", renumber=True)
    assert any("trajectories/float" in note for note in outcome.notes)
    assert open_store(tmp_path / "m.zarr")["latents"].sizes["image"] == 3
    with judged(other, count=1) as found:
        theirs = found.at(0).x
    merge(store, other, tmp_path / "both.zarr", renumber=True)
    both = open_store(tmp_path / "both.zarr")["trajectories/float"]
    assert both.sizes["image"] == 2
    assert np.array_equal(both["x"].values[1], theirs)
    assert not verify_store(tmp_path / "both.zarr").damage
