"""Misuse is exit code 2 in every command, whatever the store holds; data that do not fit are 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli_runner import Runner
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_store(tmp_path_factory.mktemp("misuse") / "run.zarr", shape=SHAPE))


MISUSE = [
    # A word that is not of its list.
    "generate {s} --model nonsense --prompts {p} --num-images 1",
    "cache {s} --model nonsense",
    "collect {s} --model nonsense",
    "collect {s} --sites mlp.fc3",
    "collect {s} --second-moment half",
    "collect {s} --second-moment 0",
    "collect {s} --second-moment-groups 2",
    "collect {s} --second-moment-images 2",
    "collect {s} --second-moment-memory 2",
    "collect {s} --sites mlp.fc1 --per-channel-histogram mlp.fc2",
    "adaround {s} --shifted-sites mlp.fc9",
    "adaround {s} --activation-clip nonsense",
    "gptq {s} --sites mlp.fc9",
    "gptq {s} --site-bits mlp.fc1",
    "gptq {s} --site-bits mlp.fc1=9",
    "gptq {s} --weight-clip mse",
    "gptq {s} --grid nonsense",
    "gptq {s} --set Nonsense",
    "gptq {s} --damping -1",
    "evaluate {s} --variant nonsense/a99",
    "evaluate {s} --variant float/a99-static",
    "evaluate {s} --variant rtn/config",
    "evaluate {s} --variant rtn/a8-learned",
    "gate {s}",
    "gate {s} --variant nonsense/a99",
    "gate {s} --variant rtn --seeds 0",
    "gate {s} --variant rtn --min-cosine 2",
    "gate {s} --variant rtn --dry-run -o {o}/x.json",
    "analyze nonsense {s}",
    "analyze scales {s} --clip nonsense",
    "analyze scales {s} --site nonsense",
    "analyze smooth {s} --rule nonsense",
    "export nonsense {s} -o {o}/x",
    "export quant-config {s} -o {o}/x.json --clip nonsense",
    "export mlx {s} -o {o}/m --dtype nonsense",
    "export mlx {s} -o {o}/m --base {o}/nonsense",
    "export comfy-w4a8 {s} -o {o}/x.safetensors --method nonsense",
    "export comfy-w4a8 {s} -o {o}/x.safetensors --site nonsense",
    "export comfy-w4a8 {s} -o {o}/x.bin",
    "export act-scales {s} -o {o}/x.pt",
    "export safetensors {s} -o {o}/x.bin",
    "export imatrix {s} -o {o}/x.bin",
    "export postgelu-npz {s} -o {o}/x.json",
    "export dit-cali-data {s} -o {o}/x.zip",
    "export quant-config {s} -o {o}/x.yaml",
    "export lut-schedule {s} -o {o}/x.npz",
    "report {s} -o {o}/x.txt",
    "plot nonsense {s} -o {o}",
    "plot range {s} -o {o} --format bmp",
    "query {s} activations/mlp.fc1 --reduce step=nonsense",
    "query {s} activations/mlp.fc1 --reduce step",
    "query {s} activations/mlp.fc1 -o {o}/x.doc",
    "analyze scales {s} -o {o}/x.doc",
    "diff {s} {s} -o {o}/x.nc",
    "diff {s} {s} activations/mlp.fc1 min --analysis nonsense",
    "merge {s} {s} {o}/m.zarr --duplicates nonsense",
    "ingest {p} {o}/n.zarr --only nonsense",
    "query {s} activations/mlp.fc1 --scheduler nonsense",
    # Wrong types and ranges.
    "query {s} activations/mlp.fc1 --step one",
    "query {s} activations/mlp.fc1 --step 0:9:0",
    "query {s} activations/mlp.fc1 --sigma high",
    "query {s} activations/mlp.fc1 --image ,",
    "query {s} activations/mlp.fc1 --limit -1",
    "cache {s} --images 3-1",
    "collect {s} --histogram-bits 11",
    "generate {s} --model reference --prompts {p} --num-images 0",
    "generate {s} --model reference --prompts {p} --num-images 1 --timestep-shift 0",
    "generate {s} --model reference --prompts {p} --num-images 1 --seed 4294967296",
    "generate {s} --model reference --prompts {p} --num-images 1 --timestep-shift inf",
    "generate {s} --model reference --prompts {p} --num-images 1 --cfg nan",
    "generate {s} --model reference --prompts {p} --num-images 1 --cfg -3",
    "generate {s} --model reference --prompts {p} --num-images 1 --t5",
    "generate {s} --model reference --prompts {p} --num-images 1 --latent-size 64 64",
    "adaround {s} --activation-bits 1",
    "adaround {s} --learning-rate 0",
    "adaround {s} --qdrop 1",
    "adaround {s} --patience -1",
    "report {s} -o {o}/r.html --average 1",
    "plot order {s} -o {o} --orders 0",
    "plot curve {s} -o {o} --step -1",
    # Options that exclude each other, need each other, or would do nothing.
    "analyze scales {s} --percentile 99",
    "analyze scales {s} --csv --json",
    "analyze scales {s} --json --limit 3",
    "analyze scales {s} --force",
    "cache {s} --resume --force",
    "plot range {s} -o {o} --bits 4",
    "plot diff {s} -o {o}",
    "adaround {s} --time-groups 3",
    "adaround {s} --activation-bits 0 --qdrop 0.5",
    "ingest {s} {o}/n.zarr --only blocks --prompts {p}",
    "diff {s} {s} activations/mlp.fc1 min --source activations",
    "export quant-config {s} -o {o}/x.json --a4 5",
]
DATA = [
    "analyze scales {s} --site mlp.fc1 --layer mm9.img",
    "analyze scales {s} --source pooled/postgelu",
    "query {s} activations/nothing",
    "query {s} activations/mlp.fc1 nothing",
    "query {s} activations/mlp.fc1 --step 99",
    "query {s} activations/mlp.fc1 --reduce token=max",
    "analyze scales {o}/no.zarr",
    "export imatrix {o}/no.zarr -o {o}/x.gguf",
    "cache {s} --images 7",
    "export postgelu-npz {o}/no.zarr -o {o}/x.npz",
    "ingest {o}/no {o}/n.zarr",
]


@pytest.mark.parametrize(
    ("line", "code"), [(line, 2) for line in MISUSE] + [(line, 1) for line in DATA]
)
def test_exit_codes(taq: Runner, store: Path, tmp_path: Path, line: str, code: int) -> None:
    (tmp_path / "p.txt").write_text("a zero\n", encoding="utf-8")
    words = line.format(s=store, o=tmp_path, p=tmp_path / "p.txt").split()
    before = sorted(tmp_path.rglob("*"))
    shown = taq(*words)
    assert shown.code == code, shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert sorted(tmp_path.rglob("*")) == before, "nothing is made by what is refused"
