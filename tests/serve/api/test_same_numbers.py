"""What the service answers is what the shown command says, to the last digit; and the Python."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from support.asked import words_of
from support.cli_runner import Runner
from taqstore.analysis import ANALYSES
from taqstore.export.formats import FORMATS
from taqstore.files.tables import write_json

Asked = dict[str, Any]
STORE = "/api/stores/run.zarr"

_PLACE = re.compile(rb'"timestep_dir": "[^"]*"')

NARROWED = ("smooth", "curve")
"""Analyses that lack weights of a site, or take long."""

ASKED: list[tuple[str, Asked]] = [
    *((name, {}) for name, row in ANALYSES.items() if not row.second and name not in NARROWED),
    ("curve", {"site": "attn.qkv"}),
    ("scales", {"bits": 4, "symmetric": "false", "clip": "percentile", "percentile": 99,
                "site": ["mlp.fc2", "attn.qkv"], "layer": "mm*.img", "step": "0:5"}),
    ("scales", {"per": "group", "group_size": 4, "site": "mlp.fc1"}),
    ("scales", {"cuts": "2,4", "clip": "ema", "momentum": "0.5"}),
    ("error", {"bits": 3, "clip": "mse", "batch": "0:2", "narrow-range": "true"}),
    ("outliers", {"at-step": 2, "step": "2:", "threshold": 1.5}),
    ("tiers", {"a4": 1.5, "a6": 3}),
    ("schedule", {"rule": "poly", "cubic-gain": 0.01, "site": "mlp.fc2"}),
    ("groups", {"method": "sigma", "sigma-edge": [0.2, 0.6]}),
    ("bits", {"choice": [3, 5], "average": 4, "per": "step"}),
    ("smooth", {"site": ["attn.qkv", "mlp.fc1"]}),
    ("smooth", {"site": "attn.qkv", "rule": "smoothquant-ranges", "weights": "adaround"}),
    ("overflow", {"to": ["bfloat16", "int8"], "accumulator-bits": 24}),
    ("frontier", {"average": 6, "float": "false"}),
    ("drift", {"other": "other.zarr", "deals": 5, "site": "mlp.fc2"}),
]  # fmt: skip


def names(cases: list[tuple[str, Asked]]) -> list[str]:
    return [f"{name}-{urlencode(asked, doseq=True)}" for name, asked in cases]


def told(err: str) -> list[str]:
    """Notes on stderr, without the one on how CSV tables are parted."""
    notes = [line.removeprefix("note: ") for line in err.splitlines() if line.startswith("note: ")]
    return [note for note in notes if "parted by empty lines" not in note]


def tables_of(text: str) -> Any:
    """Tables of a JSON document; numbers as they are written, so that no digit is lost."""
    return json.loads(text, parse_float=str, parse_int=str)["tables"]


@pytest.mark.parametrize(("name", "asked"), ASKED, ids=names(ASKED))
def test_an_analysis(name: str, asked: Asked, client: TestClient, taq: Runner) -> None:
    address = f"{STORE}/analyze/{name}"
    answer = client.get(address, params=asked)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["tables"][0]["rows"]
    words = words_of(document["cli"])

    shown = taq(*words, "--json")
    assert shown.code == 0, shown.err
    assert tables_of(answer.text) == tables_of(shown.out)
    assert document["notes"] == told(shown.err)

    if asked:
        assert tables_of(text_of_python(document["python"])) == tables_of(answer.text)
        return
    printed = client.get(f"{address}.csv")
    assert printed.content == taq(*words, "--csv").out.encode()
    assert printed.headers["content-type"] == "text/csv; charset=utf-8"


def test_every_analysis_was_asked() -> None:
    assert {name for name, _ in ASKED} == set(ANALYSES)


def text_of_python(code: str) -> str:
    """Tables that the shown Python makes, as JSON."""
    made: Asked = {}
    exec(code, made)
    tables = made["tables"] if "tables" in made else [made["table"]] if "table" in made else None
    if tables is None:
        from taqstore.query.analyze import whole_tables

        tables = whole_tables(made["results"])
    held = io.StringIO()
    write_json(tables, held)
    return held.getvalue()


@pytest.mark.parametrize("name", ["scales", "error", "shifts"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_binary_tables_read_back_equal(
    name: str, form: str, client: TestClient, taq: Runner, tmp_path: Path
) -> None:
    asked = {"site": "mlp.fc2", "layer": "mm1.img"}
    answer = client.get(f"{STORE}/analyze/{name}.{form}", params=asked)
    if answer.status_code == 422:  # several tables, which neither holds
        assert f".{form} holds one table" in answer.json()["error"]
        assert len(client.get(f"{STORE}/analyze/{name}", params=asked).json()["tables"]) > 1
        return
    line = client.get(f"{STORE}/analyze/{name}", params=asked).json()["cli"]
    assert taq(*words_of(line), "-o", tmp_path / "it.parquet").code == 0
    expected = pd.read_parquet(tmp_path / "it.parquet")
    held = io.BytesIO(answer.content)
    found = pd.read_parquet(held) if form == "parquet" else pa.ipc.open_file(held).read_pandas()
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


SLICES: list[tuple[str, Asked]] = [
    ("activations/mlp.fc2", {"variable": "tensor_max", "layer": "mm0.img"}),
    ("activations/mlp.fc2", {"variable": ["tensor_max", "tensor_min"],
                             "reduce": ["batch=max", "step=p90"], "stream": "img"}),
    ("activations/attn.qkv", {"variable": "min", "step": "0:5:2", "batch": "1", "channel": "0,3"}),
    ("activations/mlp.fc1", {"variable": "tensor_max", "sigma": "0.5:", "block": "mm1"}),
]  # fmt: skip


@pytest.mark.parametrize(("group", "asked"), SLICES, ids=names(SLICES))
def test_a_query(group: str, asked: Asked, client: TestClient, taq: Runner) -> None:
    answer = client.get(f"{STORE}/query/{group}", params=asked)
    assert answer.status_code == 200, answer.text
    words = words_of(answer.json()["cli"])
    assert tables_of(answer.text) == tables_of(taq(*words, "--json").out)
    printed = client.get(f"{STORE}/query/{group}.csv", params=asked)
    assert printed.content == taq(*words, "--csv").out.encode()
    made: Asked = {}
    exec(answer.json()["python"], made)
    assert len(made["x"].to_dataframe()) == len(answer.json()["tables"][0]["rows"])


def test_variables_of_several_kinds_are_no_csv(client: TestClient, taq: Runner) -> None:
    asked = {"variable": ["tensor_max", "min"], "step": "0", "layer": "mm0.img", "batch": "0"}
    refused = client.get(f"{STORE}/query/activations/mlp.fc2.csv", params=asked)
    line = client.get(f"{STORE}/query/activations/mlp.fc2", params=asked).json()["cli"]
    assert refused.status_code == 422
    assert f"taqstore: {refused.json()['error']}\n" == taq(*words_of(line), "--csv").err


DIFFS: list[Asked] = [
    {},
    {"source": "activations", "layer": "mm0.img", "by": "range_ratio"},
    {"group": "activations/mlp.fc2", "variable": "tensor_max"},
    {"group": "activations/mlp.fc2", "variable": "tensor_max=alpha", "analysis": "scales",
     "option": ["bits=4", "clip=absmax"], "step": "0:3"},
]  # fmt: skip


@pytest.mark.parametrize("asked", DIFFS, ids=[urlencode(asked, doseq=True) for asked in DIFFS])
def test_a_comparison(asked: Asked, client: TestClient, taq: Runner) -> None:
    answer = client.get(f"{STORE}/diff/other.zarr", params=asked)
    assert answer.status_code == 200, answer.text
    words = words_of(answer.json()["cli"])
    assert tables_of(answer.text) == tables_of(taq(*words, "--json").out)
    assert tables_of(text_of_python(answer.json()["python"])) == tables_of(answer.text)


def test_info(client: TestClient, taq: Runner) -> None:
    for address in (STORE, f"{STORE}/groups/activations/mlp.fc2"):
        document = client.get(address).json()
        line = document.pop("cli")
        assert document.pop("python")
        assert document == json.loads(taq(*words_of(line)).out)


EXPORTED = {
    "quant-config": {"bits": 8, "clip": "percentile"},
    "poly-schedule": {},
    "temporal-analysis": {},
    "timestep-stats": {},
    "onnx-calibration": {"symmetric": "true"},
    "act-scales": {"suffix": "safetensors"},
    "comfy-stats": {},
    "safetensors": {"weights": "adaround"},
}
"""A document, files of either suffix, folders."""


@pytest.mark.parametrize("name", EXPORTED)
def test_a_download(name: str, client: TestClient, taq: Runner, tmp_path: Path) -> None:
    answer = client.get(f"{STORE}/export/{name}", params=EXPORTED[name])
    assert answer.status_code == 200, answer.text
    line = answer.headers["taqstore-cli"]
    words = words_of(line)
    place = words.index("-o") + 1
    words[place] = str(tmp_path / words[place])
    assert taq(*words).code == 0
    out = Path(words[place])
    if out.is_file():
        assert answer.content == out.read_bytes()
        return
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        found = {entry: archive.read(entry) for entry in archive.namelist()}
    files = {f.relative_to(out).as_posix(): f for f in out.rglob("*") if f.is_file()}
    assert found.keys() == files.keys()
    assert [e for e in found if not same(found[e], files[e].read_bytes())] == []


def same(first: bytes, second: bytes) -> bool:
    """Bytes that are equal but for the folder's own place, or archives of equal members."""
    first, second = (_PLACE.sub(b"", held) for held in (first, second))
    if first == second or not zipfile.is_zipfile(io.BytesIO(first)):
        return first == second
    members = []
    for held in (first, second):
        with zipfile.ZipFile(io.BytesIO(held)) as archive:
            members.append({entry: archive.read(entry) for entry in archive.namelist()})
    return bool(members[0] == members[1])


def test_what_is_made_of_the_store_alone_can_be_downloaded(client: TestClient) -> None:
    offered = {
        one["path"].rpartition("/")[2]
        for one in client.get("/api").json()["endpoints"]
        if "/export/" in one["path"]
    }
    assert offered == {name for name, row in FORMATS.items() if not row.layout}


def test_numbers_of_figures(client: TestClient, taq: Runner, tmp_path: Path) -> None:
    asked = {"layer": "mm1.img", "group": "activations/mlp.fc2"}
    answer = client.get(f"{STORE}/plot/channels.csv", params=asked)
    _, stem = answer.headers["taqstore-page"].split(" ")
    words = words_of(answer.headers["taqstore-cli"])
    words[words.index("-o") + 1] = str(tmp_path)
    assert taq(*words).code == 0
    assert answer.content == (tmp_path / f"{stem}.csv").read_bytes()
    picture = client.get(f"{STORE}/plot/channels.png", params=asked)
    assert picture.headers["content-type"] == "image/png"
    assert picture.content[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_figure_that_is_a_table(client: TestClient, taq: Runner, tmp_path: Path) -> None:
    answer = client.get(f"{STORE}/plot/summary.csv", params={"group": "activations/mlp.fc2"})
    words = words_of(answer.headers["taqstore-cli"])
    words[words.index("-o") + 1] = str(tmp_path)
    assert taq(*words).code == 0
    assert answer.content == (tmp_path / "summary_mlp.fc2.csv").read_bytes()
