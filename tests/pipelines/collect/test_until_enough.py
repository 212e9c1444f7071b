"""`collect` stops where enough is observed, says why, and goes on where more is wanted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import SecondMoments, UntilEnough, collect
from taqstore.pipelines.generate import Request, generate

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY32, write_checkpoint
from taqstore import open_store
from taqstore.errors import MisuseError
from taqstore.query import analyze
from taqstore.run.mode import Mode

pytestmark = needs_models
IMAGES, SITES = 18, ["mlp.fc1"]


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("until")
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(f"number {i}" for i in range(IMAGES)), encoding="utf-8")
    checkpoint = write_checkpoint(folder / "w.safetensors")
    request = Request(TINY32.name, prompts, IMAGES, steps=2, local_ckpt=checkpoint)
    generate(folder / "run.zarr", request)
    return folder


@pytest.fixture
def store(latents: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(latents / "run.zarr", tmp_path / "run.zarr"))


def move(store: Path, batches: int, clip: str = "percentile") -> float:
    chosen = {"sites": SITES, "selection": {"batch": f"0:{batches}"}}
    (result,) = analyze("enough", open_store(store), clip=clip, **chosen).values()  # type: ignore[arg-type]
    return float(result["site_move"])


def run(store: Path, latents: Path, tolerance: float | None, **more: object) -> list[str]:
    until = None if tolerance is None else UntilEnough(tolerance)
    weights = latents / "w.safetensors"
    done = collect(store, stride=1, sites=SITES, local_ckpt=weights, until_enough=until, **more)  # type: ignore[arg-type]
    return done.notes


@pytest.fixture(scope="module")
def whole(latents: Path) -> Path:
    store = Path(shutil.copytree(latents / "run.zarr", latents / "whole.zarr"))
    run(store, latents, None)
    return store


def test_it_stops_at_the_first_look_that_finds_enough(
    store: Path, latents: Path, whole: Path
) -> None:
    moves = {n: move(whole, n) for n in (8, 12, 16, 18)}
    tolerance = (moves[8] + moves[12]) / 2 if moves[12] < moves[8] else moves[8] * 1.01
    stop = 12 if moves[12] < moves[8] else 8
    (note,) = [text for text in run(store, latents, tolerance) if "enough" in text]
    assert note.startswith(f"until enough: {stop} of {IMAGES} batches taken; ")
    assert f"by {moves[stop]:.3g}, less than {tolerance:g}" in note
    opened = open_store(store)
    group = opened["activations/mlp.fc1"]
    assert (group.sizes["batch"], opened.mask("activations/mlp.fc1").all()) == (stop, True)
    same = open_store(whole)["activations/mlp.fc1"].isel(batch=slice(0, stop))
    np.testing.assert_array_equal(group["histogram"], same["histogram"])
    said = opened.provenance[-1]["parameters"]["until_enough"]
    assert (said["batches"], said["of"], said["enough"]) == (stop, IMAGES, True)
    assert said["move"] == pytest.approx(moves[stop])

    # Gone on with, it looks again at what it had, and stops there; without, it takes the rest.
    again = run(store, latents, tolerance, mode=Mode(resume=True))
    assert note in again
    assert open_store(store)["activations/mlp.fc1"].sizes["batch"] == stop
    run(store, latents, None, mode=Mode(resume=True))
    full = open_store(store)["activations/mlp.fc1"]
    np.testing.assert_array_equal(full["min"], open_store(whole)["activations/mlp.fc1"]["min"])


def test_all_are_taken_where_none_are_enough(store: Path, latents: Path, whole: Path) -> None:
    (note,) = [text for text in run(store, latents, 1e-9) if "enough" in text]
    assert note.startswith(f"until enough: {IMAGES} of {IMAGES} batches taken; ")
    assert "not less than 1e-09: " in note
    assert open_store(store)["activations/mlp.fc1"].sizes["batch"] == IMAGES


def test_counts_are_those_of_one_run(store: Path, latents: Path) -> None:
    weights = latents / "w.safetensors"
    options = {"stride": 1, "sites": SITES, "local_ckpt": weights}
    first = collect(store, until_enough=UntilEnough(1e-9), images=range(12), **options)  # type: ignore[arg-type]
    count = first.groups["activations/mlp.fc1"]
    assert (count.written, count.skipped) == (12, 0)
    more = collect(store, until_enough=UntilEnough(1e-9), mode=Mode(resume=True), **options)  # type: ignore[arg-type]
    count = more.groups["activations/mlp.fc1"]
    assert (count.written, count.skipped) == (IMAGES - 12, 12)


def test_few_images_are_too_few_to_tell(store: Path, latents: Path) -> None:
    notes = run(store, latents, 0.5, images=range(3))
    assert "until enough: 3 of 3 batches, too few to tell" in notes


def test_the_command_says_it_and_info_shows_it(store: Path, latents: Path, taq: Runner) -> None:
    words = [
        store,
        "--stride",
        "1",
        "--sites",
        "mlp.fc1",
        "--local-ckpt",
        latents / "w.safetensors",
    ]
    done = taq("collect", *words, "--until-enough", "9", "--enough-clip", "absmax", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["groups"]["activations/mlp.fc1"]["written"] == 8
    shown = taq("info", store).out
    assert f"until enough: 8 of {IMAGES} batches taken; 4 times as many would move absmax" in shown


@pytest.mark.parametrize(
    "words",
    [
        ["--until-enough", "0"],
        ["--until-enough", "nan"],
        ["--until-enough", "0.1", "--enough-clip", "nonsense"],
        ["--enough-clip", "mse"],
        ["--until-enough", "0.1", "--second-moment", "64"],
    ],
)
def test_what_makes_no_sense_is_misuse(words: list[str], store: Path, taq: Runner) -> None:
    before = sorted(path.name for path in store.iterdir())
    refused = taq("collect", store, *words)
    assert refused.code == 2, refused.err
    assert sorted(path.name for path in store.iterdir()) == before


def test_the_library_refuses_it_too(store: Path) -> None:
    with pytest.raises(MisuseError, match="until_enough must be"):
        UntilEnough(0.0)
    with pytest.raises(MisuseError, match="second moments are summed over several images"):
        collect(store, until_enough=UntilEnough(0.1), second_moments=SecondMoments(64))
