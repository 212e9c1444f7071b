"""Pictures are kept in the store, one commit each, and come out pixel for pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from support.live_capture import needs_models
from support.live_models import write_checkpoint
from taqstore import open_store
from taqstore.cli import cli
from taqstore.testing import RunShape, make_latents
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(images=4, steps=2)


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def succeed(*words: object) -> Result:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).reshape(image.height, image.width, -1)


def exported(store: Path, out: Path) -> tuple[dict[int, np.ndarray], bool]:
    """Pictures that an export wrote, by image, and whether its manifest says they are all there."""
    succeed("export", "calibration-samples", store, "-o", out)
    found = {int(path.stem): pixels(path) for path in sorted(out.glob("images/*.png"))}
    return found, json.loads((out / "manifest.json").read_text())["images_saved"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = make_latents(tmp_path / "source", shape=SHAPE, seed=4)
    rng = np.random.default_rng(9)
    (source / "images").mkdir(exist_ok=True)
    for image in range(SHAPE.images):
        drawn = rng.integers(0, 256, (10, 6, 3), np.uint8)
        Image.fromarray(drawn).save(source / f"images/{image:04d}.png")
    return source


def test_ingested_pictures_come_back(folder: Path, tmp_path: Path) -> None:
    said = succeed("ingest", folder, tmp_path / "s.zarr")
    assert "images/" not in said.output
    found, whole = exported(tmp_path / "s.zarr", tmp_path / "out")
    assert whole
    for image in range(SHAPE.images):
        assert np.array_equal(found[image], pixels(folder / f"images/{image:04d}.png"))
    assert verify_store(tmp_path / "s.zarr").damage == ()
    again, _ = exported_again(tmp_path / "out", tmp_path)
    assert all(np.array_equal(again[image], found[image]) for image in found)


def exported_again(folder: Path, tmp_path: Path) -> tuple[dict[int, np.ndarray], bool]:
    succeed("ingest", folder, tmp_path / "again.zarr")
    return exported(tmp_path / "again.zarr", tmp_path / "out2")


@pytest.mark.parametrize("bad", ["missing", "cut", "another size", "no picture"])
def test_a_bad_picture_is_named_and_the_rest_stored(folder: Path, tmp_path: Path, bad: str) -> None:
    path = folder / "images/0001.png"
    if bad == "missing":
        path.unlink()
    elif bad == "another size":
        Image.new("RGB", (3, 3)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:-40] if bad == "cut" else b"hello")
    result = run("ingest", folder, tmp_path / "s.zarr")
    if bad == "missing":
        assert result.exit_code == 0
    else:
        assert (result.exit_code, str(path) in result.output) == (1, True)
    found, whole = exported(tmp_path / "s.zarr", tmp_path / "out")
    assert (sorted(found), whole) == ([0, 2, 3], False)
    assert len(open_store(tmp_path / "s.zarr")["latents"]["image"]) == SHAPE.images


def test_a_mended_picture_is_taken_with_resume(folder: Path, tmp_path: Path) -> None:
    path = folder / "images/0001.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert run("ingest", folder, tmp_path / "s.zarr").exit_code == 1
    path.write_bytes(whole)
    succeed("ingest", folder, tmp_path / "s.zarr", "--resume")
    found, every = exported(tmp_path / "s.zarr", tmp_path / "out")
    assert every
    assert np.array_equal(found[1], pixels(path))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "prompts.txt").write_text("a cat\na dog\nein Vogel\n", encoding="utf-8")
    return write_checkpoint(folder / "w.safetensors")


def generate(store: Path, weights: Path, images: int, *more: object) -> Result:
    return succeed(
        *("generate", store, "--model", "tiny", "--local-ckpt", weights, "--steps", 2),
        *("--prompts", weights.with_name("prompts.txt"), "--images", images, *more),
    )


@needs_models
def test_a_run_keeps_its_pictures_and_catches_up(weights: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "s.zarr", tmp_path / "png"
    generate(store, weights, 1)
    assert "pictures" not in open_store(store)
    generate(store, weights, 3, "--resume", "--save-images", out)
    kept = open_store(store)["pictures"]
    assert kept["image"].values.tolist() == [0, 1, 2]
    for image in range(3):
        stored = kept["picture"].sel(image=image).values
        assert np.array_equal(stored, pixels(out / f"{image:04d}.png"))
    generate(tmp_path / "all.zarr", weights, 3, "--save-images", tmp_path / "png2")
    assert np.array_equal(open_store(tmp_path / "all.zarr")["pictures"]["picture"], kept["picture"])
    found, whole = exported(store, tmp_path / "out")
    assert whole
    assert all(np.array_equal(found[i], pixels(out / f"{i:04d}.png")) for i in range(3))
    said = generate(store, weights, 3, "--resume", "--save-images", out)
    assert [line.split()[:3] for line in said.stdout.splitlines()[1:]] == [
        ["latents", "0", "3"],
        ["pictures", "0", "3"],
    ]
    assert verify_store(store).damage == ()
    elsewhere = tmp_path / "elsewhere"
    generate(store, weights, 3, "--resume", "--save-images", elsewhere)
    for image in range(3):
        assert np.array_equal(pixels(elsewhere / f"{image:04d}.png"), found[image])


@needs_models
def test_pictures_of_replaced_latents_are_not_taken_for_theirs(
    weights: Path, tmp_path: Path
) -> None:
    store, out = tmp_path / "s.zarr", tmp_path / "png"
    generate(store, weights, 2, "--save-images", out)
    generate(store, weights, 2, "--force", "--seed", 7)
    assert exported(store, tmp_path / "none") == ({}, False)
    generate(store, weights, 2, "--resume", "--seed", 7, "--save-images", out)
    found, whole = exported(store, tmp_path / "both")
    assert (sorted(found), whole) == ([0, 1], True)


@needs_models
def test_pictures_merge_with_their_images(weights: Path, tmp_path: Path) -> None:
    stores = [tmp_path / f"{seed}.zarr" for seed in (1, 2)]
    for seed, store in enumerate(stores, 1):
        generate(store, weights, seed, "--seed", seed * 10, "--save-images", tmp_path / str(seed))
    succeed("merge", *stores, tmp_path / "m.zarr", "--renumber")
    found, whole = exported(tmp_path / "m.zarr", tmp_path / "out")
    assert whole
    for image, path in enumerate(["1/0000.png", "2/0000.png", "2/0001.png"]):
        assert np.array_equal(found[image], pixels(tmp_path / path)), image


@needs_models
def test_a_file_that_cannot_be_written_takes_nothing_with_it(weights: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "s.zarr", tmp_path / "png"
    (out / "0000.png").mkdir(parents=True)
    said = generate(store, weights, 2, "--save-images", out)
    assert said.exit_code == 0, said.output
    assert len([line for line in said.stderr.splitlines() if "0000.png" in line]) == 1
    for group in ("latents", "pictures"):
        assert open_store(store)[group]["image"].values.tolist() == [0, 1]
    assert generate(store, weights, 2, "--resume", "--save-images", tmp_path / "b").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["0000.png", "0001.png"]


@needs_models
def test_a_decoder_that_cannot_be_had_takes_nothing_with_it(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(latent: np.ndarray) -> np.ndarray:
        raise OSError("the hub cannot be reached\nmore of it")

    monkeypatch.setattr("support.live_models.decode", refuse)
    said = generate(tmp_path / "s.zarr", weights, 2, "--save-images", tmp_path / "png")
    lines = [line for line in said.stderr.splitlines() if "hub" in line]
    assert len(lines) == 1
    assert len(open_store(tmp_path / "s.zarr")["latents"]["image"]) == 2
