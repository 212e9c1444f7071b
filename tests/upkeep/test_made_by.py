"""Info says who made the images of a store, and how; what a store does not tell is said too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from taqstore.pipelines.ingest import ingest

from support.cli_runner import Runner
from taqstore import open_store
from taqstore.testing import RunShape, make_postgelu, make_run_folder
from taqstore.upkeep.info import describe_store

SHAPE = RunShape(images=3, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    ingest([make_run_folder(folder / "run", shape=SHAPE)], folder / "run.zarr")
    return folder / "run.zarr"


def test_what_an_ingested_store_knows(ingested: Path) -> None:
    store = open_store(ingested)
    run = describe_store(store)["run"]
    latents = store["latents"]
    assert run["model"] == latents.attrs["source_manifest"]["model_version"]
    assert run["images"] == 3
    assert run["steps"] == 6
    assert run["seeds"] == [latents["seed"].values.min(), latents["seed"].values.max()]
    assert run["guidance"] == [7.5, 7.5]
    assert run["prompts"] == ["prompts.csv"]
    assert run["different_prompts"] == len(set(latents["prompt"].values))
    assert run["dtype"] is None


def test_info_says_it(taq: Runner, ingested: Path) -> None:
    lines = taq("info", ingested).out.splitlines()
    assert "model   synthetic/sd3-in-miniature, dtype not recorded" in lines
    assert "steps   6, guidance 7.5" in lines
    assert any(line.startswith("images  3, seeds ") for line in lines)
    assert any(line.startswith("prompts prompts.csv, ") for line in lines)
    assert json.loads(taq("info", ingested, "--json").out)["run"]["guidance"] == [7.5, 7.5]


def test_a_manifest_of_strangers_is_shown_and_not_believed(tmp_path: Path, taq: Runner) -> None:
    folder = Path(make_run_folder(tmp_path / "run", shape=SHAPE))
    manifest = next(folder.rglob("manifest.json"))
    document = json.loads(manifest.read_text())
    document |= {"prompt_path": "C:\\secret\\folder\\p.csv", "model_version": "a\x1b[2Jb"}
    manifest.write_text(json.dumps(document))
    taq("ingest", manifest.parent, tmp_path / "s.zarr", "--only", "latents")
    shown = taq("info", tmp_path / "s.zarr")
    assert shown.code == 0, shown.err
    assert "secret" not in shown.out.split("prompts ")[1].splitlines()[0]
    assert "\x1b" not in shown.out
    assert describe_store(open_store(tmp_path / "s.zarr"))["run"]["prompts"] == ["p.csv"]


def test_a_store_without_images_says_nothing_of_them(tmp_path: Path, taq: Runner) -> None:
    source = make_postgelu(tmp_path / "activation_stats_postgelu.npz")
    assert taq("ingest", source, tmp_path / "s.zarr").code == 0
    assert describe_store(open_store(tmp_path / "s.zarr"))["run"] is None
    assert "seeds" not in taq("info", tmp_path / "s.zarr").out
