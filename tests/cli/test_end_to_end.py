"""The commands in a row, as a user types them; what they print is compared with the files."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.ingest import ingest

from support.cli_runner import Runner
from taqstore.testing import RunShape, damage, make_postgelu, make_run_folder

SHAPE = RunShape(
    images=3, steps=6, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(4, 3),
    channels=4, stats_stride=2, cache_stride=3,
)  # fmt: skip
ANALYSES = ("scales", "shifts", "outliers", "temporal", "tiers", "schedule")
FC2 = "pooled/timestep_stats/mlp.fc2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_postgelu(folder / "stats.npz", shape=SHAPE)
    return make_run_folder(folder / "run", shape=SHAPE)


@pytest.fixture(scope="module")
def store(run: Path) -> Path:
    path = run.parent / "run.zarr"
    assert ingest([run, run.parent / "stats.npz"], path).problems == []
    return path


def source_values(run: Path, key: str) -> np.ndarray:
    """One array of every step file."""
    folder = run / "activations" / "timestep_stats"
    values = []
    for step in SHAPE.stats_steps:
        with np.load(folder / f"step_{step}.npz") as file:
            values.append(file[key])
    return np.array(values)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_as_separate_processes(run: Path, tmp_path: Path) -> None:
    """Nothing but the interpreter: exit codes, data on stdout, talk on stderr."""

    def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-W", "error", "-m", "taqstore", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    first = command("ingest", run, tmp_path / "s.zarr", "--only", "latents", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["groups"][0]["written"] == SHAPE.images
    again = command("ingest", run, tmp_path / "s.zarr", "--only", "latents")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("taqstore: ")
    assert "--resume" in again.stderr
    assert again.stderr.count("\n") == 1
    assert command("verify", tmp_path / "s.zarr").returncode == 0


def test_ingest_reports_what_it_did(taq: Runner, run: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    shown = taq("ingest", run, store)
    assert shown.code == 0
    table = [line.split() for line in shown.out.splitlines()]
    assert table[0] == ["group", "written", "skipped", "refused", "stored"]
    assert table[1][:4] == ["latents", "3", "0", "0"]
    assert [row[0] for row in table[2:4]] == ["blocks/img", "blocks/txt"]
    assert "note: latents/*.npy are not stored: 3 of 3 equal" in shown.err
    assert " in, " in shown.err
    again = json.loads(taq("ingest", run, store, "--resume", "--json").out)
    assert {g["group"]: g["skipped"] for g in again["groups"]}["latents"] == 3
    assert again["problems"] == []
    assert taq("ingest", run, store, "--force").code == 0


def test_ingest_with_a_bad_item(taq: Runner, tmp_path: Path) -> None:
    broken, store = make_run_folder(tmp_path / "run", shape=SHAPE), tmp_path / "s.zarr"
    damage.truncate(broken / "samples" / "0001_002.npz")
    shown = taq("ingest", broken, store)
    assert shown.code == 1
    assert shown.out.splitlines()[1].split()[:4] == ["latents", "2", "0", "1"]
    refused = [line for line in shown.err.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 1
    assert "0001_002.npz" in refused[0]
    assert "--resume" in shown.err.splitlines()[-1]
    strict = taq("ingest", broken, tmp_path / "t.zarr", "--strict")
    assert (strict.code, strict.out) == (1, "")
    assert strict.err.startswith("taqstore: ")
    assert "0001_002.npz" in strict.err
    make_run_folder(tmp_path / "run", shape=SHAPE)
    assert taq("ingest", broken, store, "--resume").code == 0
    assert taq("verify", store).code == 0


def test_info(taq: Runner, store: Path) -> None:
    everything = json.loads(taq("info", store, "--json").out)
    assert everything["format"] == 2
    named = {g["group"]: g for g in everything["groups"]}
    assert named["latents"]["dims"]["image"] == SHAPE.images
    assert named["latents"]["written_percent"] == 100.0
    files = sum(p.stat().st_size for p in (store / FC2 / "avg_max" / "c").rglob("*") if p.is_file())
    sizes = {v["name"]: v["stored_bytes"] for v in named[FC2]["variables"]}
    assert sizes["avg_max"] == files
    assert [r["command"] for r in everything["provenance"]] == ["ingest"] * 4
    text = taq("info", store)
    assert all(group in text.out for group in named)
    one = taq("info", store, FC2)
    assert one.code == 0
    assert "avg_max" in one.out
    assert json.loads(taq("info", store, FC2, "--json").out)["group"] == FC2
    missing = taq("info", store, "nothing")
    assert (missing.code, missing.out) == (1, "")
    assert "no group 'nothing'" in missing.err


def test_query_prints_and_writes_what_the_source_holds(
    taq: Runner,
    run: Path,
    store: Path,
    tmp_path: Path,
) -> None:
    # float64 in the file, but every value is a float32: CSV prints the digits that a float32 needs.
    expected = source_values(run, "mm0_img_mlp_fc2__avg_max").max(axis=1).astype(np.float32)
    query = ["query", store, FC2, "avg_max", "--layer", "mm_00_img", "--reduce", "channel=max"]
    table = rows(taq(*query, "--csv").out)
    assert np.array_equal([np.float32(row["avg_max"]) for row in table], expected)
    assert [int(row["step"]) for row in table] == SHAPE.stats_steps
    json.loads(taq(*query, "--json").out)
    assert "avg_max" in taq(*query).out
    sliced = rows(taq(*query, "--step", "2:5:2", "--csv").out)
    assert np.array_equal([np.float32(row["avg_max"]) for row in sliced], expected[1:])
    shown = taq(*query[:4], "--layer", "mm0.img", "-o", tmp_path / "q.nc")
    assert (shown.code, shown.out) == (0, "")
    with xr.open_dataset(tmp_path / "q.nc") as written:
        values = written.avg_max.values.reshape(len(SHAPE.stats_steps), -1)
        assert np.array_equal(values, source_values(run, "mm0_img_mlp_fc2__avg_max"))
    assert taq(*query[:4], "-o", tmp_path / "q.nc").code == 1  # it is there already
    assert taq(*query[:4], "-o", tmp_path / "q.nc", "--force").code == 0
    unknown = taq("query", store, FC2, "avg_mux")
    assert unknown.code == 1
    assert "avg_max" in unknown.err


@pytest.mark.parametrize("name", ANALYSES)
def test_analyses_print_json_and_csv(taq: Runner, store: Path, name: str) -> None:
    command = ["analyze", name, store, "--source", "pooled/timestep_stats", "--site", "mlp.fc2"]
    shown = taq(*command, "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)
    assert rows(taq(*command, "--csv").out)
    assert taq(*command).out


def test_scales_are_absmax_over_127(taq: Runner, run: Path, store: Path, tmp_path: Path) -> None:
    folder = run / "activations" / "timestep_stats"
    command = ["analyze", "scales", store, "--source", "pooled/timestep_stats", "--site", "mlp.fc1"]
    assert taq(*command, "-o", tmp_path / "scales.csv").code == 0
    table = rows((tmp_path / "scales.csv").read_text())
    assert len(table) == 3 * len(SHAPE.stats_steps)
    for row in table:
        index = json.loads((folder / f"step_{row['step']}_index.json").read_text())
        bound = index[f"{row['layer']}.mlp.fc1"]["tensor_absmax"]
        assert float(row["alpha"]) == bound
        assert float(row["step_size"]) == pytest.approx(bound / 127, rel=1e-6)


def test_export_is_whole_or_not_there(taq: Runner, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "config.json"
    shown = taq("export", "quant-config", store, "-o", out)
    assert (shown.code, shown.out) == (0, "")
    assert f"wrote {out}" in shown.err
    first = out.read_bytes()
    assert json.loads(first)["format"] == "per_timestep_quant_config_v4"
    assert taq("export", "quant-config", store, "-o", out, "--clip", "p999").code == 1
    assert out.read_bytes() == first
    assert taq("export", "quant-config", store, "-o", out, "--clip", "p999", "--force").code == 0
    assert out.read_bytes() != first
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert taq("export", "lut-schedule", store, "-o", tmp_path / "p.json").code == 0


def test_plot_writes_pictures_and_names_them(
    taq: Runner,
    store: Path,
    tmp_path: Path,
) -> None:
    shown = taq("plot", "range", store, "-o", tmp_path / "plots", "--layer", "mm0*")
    assert shown.code == 0, shown.err
    files = [Path(line) for line in shown.out.splitlines()]
    assert {path.suffix for path in files} == {".png", ".csv"}
    assert all(path.stat().st_size > 0 for path in files)
    assert set(files) == set((tmp_path / "plots").iterdir())


def test_verify_finds_the_flipped_bit(taq: Runner, run: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    ingest([run], store, only=["latents"])
    assert json.loads(taq("verify", store, "--json").out)["ok"] is True
    assert taq("verify", store).out.startswith("whole: 1 groups")
    damage.flip_bit(store / "latents" / "x" / "c" / "2" / "0" / "0" / "0" / "0", offset=9)
    shown = taq("verify", store)
    assert shown.code == 1
    assert shown.out.startswith("damaged  latents/x/c/2/0/0/0/0 (item 2): ")
    report = taq("verify", store, "--json")
    assert report.code == 1
    assert json.loads(report.out)["ok"] is False


@pytest.mark.parametrize("words", [[], ["--json"], ["-q"]])
def test_info_says_what_is_damaged_beside_its_answer(
    taq: Runner, run: Path, tmp_path: Path, words: list[str]
) -> None:
    store = tmp_path / "s.zarr"
    ingest([run], store, only=["latents"])
    for file in (path for path in (store / "latents/items/record/c").rglob("*") if path.is_file()):
        file.write_bytes(bytes(reversed(file.read_bytes())))
    shown = taq("info", store, *words)
    assert shown.code == 1, shown.err
    assert [line.startswith("damaged: latents: ") for line in shown.err.splitlines()] == [True]
    if words == ["--json"]:
        assert list(json.loads(shown.out)["damaged"]) == ["latents"]


def test_a_reader_that_stops_early_is_no_error(store: Path) -> None:
    command = f"{sys.executable} -m taqstore query {store} latents x --csv | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("image,step")
    assert done.stderr == ""
