"""The commands, typed as a user would, on real outputs of the source scripts."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.cli_runner import Runner
from support.same_files import assert_same_arrays, assert_same_folder, read_json
from taqstore.names import parse_layer

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def store(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder and both phase files in one store, by the library call of the command."""
    from taqstore.pipelines.ingest import ingest

    path = tmp_path_factory.mktemp("reference") / "run.zarr"
    summary = ingest([reference / "calibration_data", reference / "phase"], path)
    assert summary.problems == []
    return path


def test_ingest_by_hand(taq: Runner, reference: Path, tmp_path: Path) -> None:
    phase = sorted((reference / "phase").iterdir())
    shown = taq("ingest", reference / "calibration_data", *phase, tmp_path / "s.zarr", "--json")
    assert shown.code == 0, shown.err
    written = {g["group"]: g["written"] for g in json.loads(shown.out)["groups"]}
    assert written["latents"] == 3
    assert written["blocks/img"] == written["blocks/txt"] == 4
    assert written["pooled/timestep_stats/mlp.fc2"] == 4
    assert written["pooled/postgelu/mlp.fc2"] == 5
    assert taq("verify", tmp_path / "s.zarr").code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["quant-config"], "quant_config.json"),
        (["quant-config", "--clip", "p999"], "quant_config_p999.json"),
        (["quant-config", "--outliers"], "quant_config_with_outliers.json"),
        (["quant-config-multitier"], "quant_config_multitier.json"),
        (["temporal-analysis"], "layer_temporal_analysis.json"),
        (["temporal-analysis", "--multitier"], "layer_temporal_analysis_multitier.json"),
    ],
    ids=" ".join,
)
def test_documents(
    taq: Runner,
    reference: Path,
    store: Path,
    tmp_path: Path,
    arguments: list[str],
    expected: str,
) -> None:
    """Equal as documents, every float to the last bit, and as files, byte for byte."""
    shown = taq("export", arguments[0], store, "-o", tmp_path / "out.json", *arguments[1:])
    assert shown.code == 0, shown.err
    ours, theirs = read_json(tmp_path / "out.json"), read_json(reference / "expected" / expected)
    assert canonical(ours) == canonical(theirs)
    expected_bytes = (reference / "expected" / expected).read_bytes()
    assert (tmp_path / "out.json").read_bytes() == expected_bytes


def canonical(document: Any) -> str:
    """Text in which 1 and 1.0 differ, and so do floats in their last bit."""
    return json.dumps(document, sort_keys=True, indent=1)


FOLDERS = [
    ("calibration-samples", "", "samples", 33),
    ("adaround-cache", "adaround_cache", "samples", 4),
    ("timestep-stats", "activations", "timestep_stats", 4),
]


@pytest.mark.parametrize(("name", "part", "arrays", "count"), FOLDERS, ids=[f[0] for f in FOLDERS])
def test_folders(
    taq: Runner,
    reference: Path,
    store: Path,
    tmp_path: Path,
    name: str,
    part: str,
    arrays: str,
    count: int,
) -> None:
    shown = taq("export", name, store, "-o", tmp_path / "out")
    assert shown.code == 0, shown.err
    source = reference / "calibration_data" / part
    assert assert_same_folder(tmp_path / "out" / arrays, source / arrays, "*.npz") == count
    for path in (source / arrays).glob("*.json"):
        assert canonical(read_json(tmp_path / "out" / arrays / path.name)) == canonical(
            read_json(path)
        )
    assert taq("ingest", tmp_path / "out", tmp_path / "again.zarr").code == 0


def test_postgelu_npz(taq: Runner, reference: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert taq("export", "postgelu-npz", store, "-o", out).code == 0
    assert_same_arrays(out, reference / "phase" / "activation_stats_postgelu.npz")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lut-schedule", "lut_schedule_512_p100.json"),
        ("poly-schedule", "polynomial_clipping_schedule_512_p100.json"),
    ],
)
def test_schedules(
    taq: Runner,
    reference: Path,
    tmp_path: Path,
    name: str,
    file: str,
) -> None:
    source = reference / "sd3_medium" / file
    assert taq("ingest", source, tmp_path / "s.zarr").code == 0
    assert taq("export", name, tmp_path / "s.zarr", "-o", tmp_path / "out.json").code == 0
    assert canonical(read_json(tmp_path / "out.json")) == canonical(read_json(source))


def test_negative_fraction(taq: Runner, store: Path, tmp_path: Path) -> None:
    """51.0 % where the source's own table, which drops a bin, says 45.3 %."""
    shown = taq("plot", "negative", store, "-o", tmp_path, "--layer", "mm_00_img")
    assert shown.code == 0, shown.err
    (table,) = [Path(line) for line in shown.out.splitlines() if line.endswith(".csv")]
    rows = read_csv(table)
    assert len(rows) == 5
    assert {f"{100 * float(row['negative_fraction_all']):.1f}" for row in rows} == {"51.0"}
    negative = sum(float(row["negative_fraction"]) * int(row["counted"]) for row in rows)
    assert f"{100 * negative / sum(int(row['counted']) for row in rows):.1f}" == "51.0"


def test_the_printed_table(taq: Runner, reference: Path, store: Path, tmp_path: Path) -> None:
    """The source's table, but for the negative fraction: four decimals and outlier counts."""
    assert taq("plot", "summary", store, "-o", tmp_path).code == 0
    rows = {row["layer"]: row for row in read_csv(tmp_path / "summary_mlp.fc2.csv")}
    lines = (reference / "expected" / "visualize_postgelu_table.txt").read_text().splitlines()
    printed = [line.split() for line in lines if re.match(r"mm_\d\d_(img|txt) ", line)]
    assert len(printed) == len(rows) == 5
    for name, mean, std, median, largest, _, outliers in printed:
        row = rows[parse_layer(name).full]
        columns = ("median_mean", "median_std", "median_range", "max_range")
        assert [f"{float(row[c]):.4f}" for c in columns] == [mean, std, median, largest]
        assert row["outlier_channels"] == outliers


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("kind", ["range", "histogram", "channels", "heatmap", "negative"])
def test_every_figure(taq: Runner, store: Path, tmp_path: Path, kind: str) -> None:
    shown = taq("plot", kind, store, "-o", tmp_path, "--layer", "mm_00_img")
    assert shown.code == 0, shown.err
    files = [Path(line) for line in shown.out.splitlines()]
    pictures = [p for p in files if p.suffix == ".png"]
    assert pictures
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in pictures)
    assert all(p.with_suffix(".csv").exists() for p in pictures)
