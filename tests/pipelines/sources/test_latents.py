"""Latents come back bit for bit by image id; a bad image is refused alone, with one clear line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.sources import plan

from support.source_runs import (
    IMAGES,
    SIGMAS,
    STEPS,
    TIMESTEPS,
    dump,
    edit_npz,
    latents_run,
    manifest,
    one_line,
    run,
)  # fmt: skip
from taqstore.errors import SourceError

Edit = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "calibration_data"
    latents_run(path)
    return path


def sample(folder: Path, image: int, step: int) -> Path:
    return folder / "samples" / f"{image:04d}_{step:03d}.npz"


def test_everything_comes_back_by_image_id(tmp_path: Path) -> None:
    truth = latents_run(tmp_path / "run")
    (got,) = plan(tmp_path / "run")
    written = run(got)
    (template,) = got.templates
    ids = sorted(IMAGES)
    assert list(template.coords["image"][1]) == ids
    assert list(template.coords["prompt"][1]) == [f"prompt ünï {i}" for i in ids]
    assert list(template.coords["seed"][1]) == [42 + i for i in ids]
    x = written.arrays["latents", "x"]
    assert x.dtype == np.float32
    for position, image in enumerate(ids):
        assert x[position].tobytes() == truth[image].tobytes()
    for name, expected in (("sigma", SIGMAS), ("timestep", TIMESTEPS)):
        values = template.coords[name][1]
        assert values.dtype == expected.dtype
        assert np.array_equal(values, expected)
    assert list(template.coords["is_final"][1]) == [False] * STEPS + [True]
    assert written.flags["latents"].all()
    assert written.problems == []


def test_the_manifest_is_kept_without_foreign_paths(folder: Path) -> None:
    (got,) = plan(folder)
    kept = got.templates[0].attrs["source_manifest"]
    assert kept == {"num_steps": 3, "cfg_scale": 7.5, "prompt_path": "all prompts.csv"}


def test_a_moved_folder_gives_the_same(folder: Path, tmp_path: Path) -> None:
    (before,) = plan(folder)
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    (after,) = plan(moved)
    assert before.templates[0].attrs == after.templates[0].attrs
    assert run(after).flags["latents"].all()


def change(image: int, step: int, **arrays: object) -> Edit:
    return lambda folder: edit_npz(sample(folder, image, step), **arrays)  # type: ignore[arg-type]


X = np.zeros((1, 5, 3, 4), np.float32)
BAD: dict[str, tuple[Edit, str]] = {
    "missing step": (lambda f: sample(f, 4, 1).unlink(), "step 1 is missing"),
    "missing first step": (lambda f: sample(f, 4, 0).unlink(), "step 0 is missing"),
    "extra step": (
        lambda f: shutil.copy(sample(f, 4, 0), sample(f, 4, 9)) and None,
        "step 9 is beyond the last",
    ),
    "truncated": (
        lambda f: sample(f, 4, 2).write_bytes(sample(f, 4, 2).read_bytes()[:150]) and None,
        "write it again",
    ),
    "empty": (lambda f: sample(f, 4, 2).write_bytes(b"") and None, "not a complete npz"),
    "missing key": (
        lambda f: edit_npz(sample(f, 4, 2), drop=("is_final",)),
        "is_final: missing",
    ),
    "shape": (change(4, 2, x=np.zeros((1, 3, 5, 4), np.float32)), "x: is not float32"),
    "inexact": (change(4, 2, x=X + np.float64(1e-12)), "x: holds numbers that float32 does not"),
    "text": (change(4, 2, x=np.full(X.shape, "a")), "x: is not float32"),
    "NaN": (change(4, 2, x=X + np.float32("nan")), "x: NaN or Inf"),
    "Inf": (change(4, 0, x=X + np.float32("inf")), "x: NaN or Inf"),
    "id": (change(4, 2, image_id=np.int32(0)), "image_id: not what the file's name says"),
    "step index": (change(4, 2, step_index=np.int32(1)), "step_index: not what"),
    "final": (change(4, 2, is_final=np.bool_(True)), "is_final: contradicts"),
    "sigma": (change(4, 2, sigma=np.float32(0.5)), "timestep or sigma is not the run's"),
    "timestep": (change(4, 2, timestep=np.float16(3)), "timestep or sigma is not the run's"),
    "timestep dtype": (change(4, 2, timestep=np.float32(8.93)), "timestep"),
    "pickled": (change(4, 2, x=np.array([{}], dtype=object)), "x"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_alone(folder: Path, name: str) -> None:
    edit, says = BAD[name]
    edit(folder)
    (got,) = plan(folder)
    written = run(got)
    assert list(got.templates[0].coords["image"][1]) == [0, 4, 12]
    assert list(written.flags["latents"]) == [True, False, True]
    (text,) = written.problems
    assert says in one_line(text)
    assert "0004" in text or "image 4" in text


def test_a_first_image_of_other_sigmas_does_not_condemn_the_others(folder: Path) -> None:
    change(0, 1, sigma=np.float32(0.5))(folder)
    written = run(plan(folder)[0])
    assert list(written.flags["latents"]) == [False, True, True]


def edited(folder: Path, **changes: object) -> None:
    dump(folder / "manifest.json", {**manifest(), **changes})


ENTRIES = manifest()["images"]


@pytest.mark.parametrize(
    ("images", "flags", "says"),
    [
        ([*ENTRIES, ENTRIES[0]], [1, 0, 1], "image_id 4 is there 2 times"),
        (ENTRIES[1:], [1, 0, 1], "image 4: samples without a manifest entry"),
        ([*ENTRIES, {**ENTRIES[0], "image_id": 5}], [1, 1, 0, 1], "entry without samples"),
        ([{**ENTRIES[0], "seed": "x"}, *ENTRIES[1:]], [1, 0, 1], "no key 'seed'"),
        ([{**ENTRIES[0], "seed": 1 << 70}, *ENTRIES[1:]], [1, 0, 1], "no key 'seed'"),
        ([{**ENTRIES[0], "num_steps": 7}, *ENTRIES[1:]], [1, 0, 1], "num_steps is not"),
        ([{**ENTRIES[0], "cfg_weight": True}, *ENTRIES[1:]], [1, 0, 1], "no key 'cfg_weight'"),
    ],
)
def test_a_manifest_with_holes(folder: Path, images: list, flags: list, says: str) -> None:
    edited(folder, images=images)
    written = run(plan(folder)[0])
    assert list(written.flags["latents"]) == [bool(flag) for flag in flags]
    (text,) = written.problems
    assert says in one_line(text)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, '{"num_steps": 50, "images": [{"image_id": 0, "prompt"'),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"num_steps": NaN, "images": []}', "not valid JSON"),
        ('{"num_steps": 3}', "no key 'images'"),
        ('{"num_steps": 3, "images": [3]}', "not an object"),
        ('{"num_steps": 3, "images": [{"image_id": "../x"}]}', "no key 'image_id'"),
        ('{"num_steps": 3, "images": [{"image_id": -1}]}', "out of range"),
        ('{"num_steps": 0, "images": []}', "no number of steps"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_manifest_that_cannot_be_used(folder: Path, content: str | None, says: str) -> None:
    path = folder / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SourceError) as caught:
        plan(folder)
    assert says in one_line(str(caught.value))
    assert "manifest.json" in str(caught.value)


def test_saved_final_latents_are_checked_and_counted(folder: Path) -> None:
    (folder / "images").mkdir()
    path = folder / "latents" / "0004.npy"
    np.save(path, np.load(path) + np.float16(1))
    notes = plan(folder)[0].notes
    assert any("2 of 3 equal float16(x/1.5305 + 0.0609)" in note for note in notes)


def test_fields_and_files_that_are_not_stored_are_said(folder: Path) -> None:
    edited(folder, images=[{**ENTRIES[0], "mood": 1, "filename": "a.png"}, *ENTRIES[1:]])
    (folder / "samples" / "0004_001.npz.tmp").write_bytes(b"half")
    notes = " | ".join(plan(folder)[0].notes)
    assert "fields not stored: filename, mood" in notes
    assert "1 other file(s)" in notes
