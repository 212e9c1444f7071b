"""Commands that plan: what is typed, on which store, and how exact the plan is."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from support.live_models import TINY
from support.rounding_store import make_rounding_store
from taqstore.cli import cli
from taqstore.testing import RunShape, make_run_folder

SHAPE = RunShape(images=2, steps=4, blocks=2, hidden=8, image_tokens=5, text_tokens=3)


@dataclass(frozen=True)
class Case:
    """One run.

    Parameters
    ----------
    words
        What is typed; `{w}` is the work folder.
    unit
        What its plan counts.
    within
        Share that the bytes of a group may be off by: zstd is tried on a part; 0: exact.
    more
        Forwards of the run beyond those that are counted: looks at shapes.
    """

    words: str
    unit: str = "forwards"
    within: float = 0.0
    more: int = 0


_MODEL = "--local-ckpt {w}/w.safetensors"
_GENERATE = f"--model tiny --prompts {{w}}/prompts.txt --steps 3 {_MODEL}"
CASES = {
    "generate": Case(f"generate {{w}}/new.zarr --num-images 3 {_GENERATE}"),
    "generate more": Case(f"generate {{w}}/run.zarr --num-images 5 --resume {_GENERATE}"),
    "generate anew": Case(f"generate {{w}}/run.zarr --num-images 1 --force {_GENERATE}"),
    "generate pictures": Case(
        f"generate {{w}}/new.zarr --num-images 2 --save-images {{w}}/png {_GENERATE}", within=1.0
    ),
    "cache": Case(f"cache {{w}}/latents.zarr --stride 2 {_MODEL}", more=1),
    "cache more": Case(f"cache {{w}}/part.zarr --stride 1 --resume {_MODEL}", more=1),
    "cache blocks": Case(f"cache {{w}}/run.zarr --stride 2 --blocks mm1 --force {_MODEL}", more=1),
    "collect": Case(f"collect {{w}}/latents.zarr {_MODEL}", within=0.02),
    "collect batches": Case(
        f"collect {{w}}/latents.zarr --images-per-batch 2 --sites mlp.fc2 {_MODEL}", within=0.05
    ),
    "collect all": Case(
        "collect {w}/latents.zarr --stride 1 --second-moment full --second-moment-memory 0.001"
        f" --per-channel-histogram mlp.fc1 --sites mlp.fc1,attn.qkv {_MODEL}",
        within=0.02,
    ),
    "collect more": Case(
        f"collect {{w}}/run.zarr --stride 1 --second-moment 8 --resume {_MODEL}", within=0.02
    ),
    "adaround": Case(
        f"adaround {{w}}/run.zarr --iterations 3 --batch-size 2 {_MODEL}", "iterations"
    ),
    "adaround blocks": Case(
        "adaround {w}/run.zarr --iterations 2 --batch-size 2 --prefix --blocks mm0"
        f" --activation-bits 0 {_MODEL}",
        "iterations",
    ),
    "gptq": Case(
        f"gptq {{w}}/run.zarr --sites mlp.fc2,attn.qkv --weight-group-size 32 {_MODEL}", "linears"
    ),
    "evaluate": Case(
        "evaluate {w}/run.zarr --variant rtn --variant rtn-w3 --stride 2 --held-out 2"
        f" --prompts {{w}}/prompts.txt {_MODEL}"
    ),
    "evaluate images": Case(f"evaluate {{w}}/run.zarr --variant rtn --images 1 {_MODEL}"),
    "gate": Case(
        "gate {w}/run.zarr --variant rtn --variant rtn/a8-static --seeds 2 --min-cosine -1"
        f" --max-bifurcated 9 --prompts {{w}}/prompts.txt {_MODEL}"
    ),
    "sensitivity": Case(
        "sensitivity {w}/run.zarr --targets mm0.img.mlp.* --format rtn-w4 --seeds 2"
        f" --prompts {{w}}/prompts.txt {_MODEL}"
    ),
    "ingest": Case("ingest {w}/old {w}/new.zarr", "bytes", within=0.02),
    "ingest more": Case("ingest {w}/old {w}/begun.zarr --resume", "bytes", within=0.02),
}
REFUSED = (
    f"generate {{w}}/run.zarr --num-images 5 {_GENERATE}",
    f"generate {{w}}/run.zarr --num-images 5 --resume --cfg 3 {_GENERATE}",
    f"generate {{w}}/old --num-images 1 {_GENERATE}",
    f"generate {{w}}/prompts.txt --num-images 1 {_GENERATE}",
    f"generate {{w}}/run.zarr/below.zarr --num-images 1 {_GENERATE}",
    f"generate {{w}}/prompts.txt/s.zarr --num-images 1 {_GENERATE}",
    f"generate {{w}}/{'x' * 250}.zarr --num-images 1 {_GENERATE}",
    f"generate {{w}} --num-images 1 {_GENERATE}",
    f"generate {{w}}/new.zarr --num-images 1 --latent-size 64 64 {_GENERATE}",
    f"cache {{w}}/run.zarr {_MODEL}",
    f"cache {{w}}/run.zarr --stride 2 --resume {_MODEL}",
    f"cache {{w}}/run.zarr --images 7 {_MODEL}",
    "cache {w}/run.zarr --stride 1 --resume --model tiny32",
    f"cache {{w}}/none.zarr {_MODEL}",
    f"cache {{w}}/damaged.zarr --resume {_MODEL}",
    f"collect {{w}}/run.zarr {_MODEL}",
    f"collect {{w}}/run.zarr --resume --histogram-bits 3 {_MODEL}",
    f"collect {{w}}/latents.zarr --sites mlp.fc3 {_MODEL}",
    f"adaround {{w}}/latents.zarr {_MODEL}",
    f"adaround {{w}}/run.zarr --batch-size 500 {_MODEL}",
    f"gptq {{w}}/latents.zarr {_MODEL}",
    "ingest {w}/old {w}/begun.zarr",
    "ingest {w}/none {w}/new.zarr",
    "ingest {w}/bad {w}/new.zarr",
    "ingest {w}/bad {w}/new.zarr --strict",
)
"""What is refused, with exit code 1 or 2."""


def make_work(folder: Path) -> Path:
    """Stores and run folders that the cases are about."""
    store = make_rounding_store(folder, TINY)
    run_words(f"generate {{w}}/latents.zarr --num-images 3 {_GENERATE}", folder)
    shutil.copytree(folder / "latents.zarr", folder / "part.zarr")
    run_words(f"cache {{w}}/part.zarr --stride 1 --images 0 {_MODEL}", folder)
    shutil.copytree(store, folder / "damaged.zarr")
    document = folder / "damaged.zarr" / "blocks" / "img" / "zarr.json"
    document.write_bytes(document.read_bytes()[:-9])
    make_run_folder(folder / "old", shape=SHAPE)
    shutil.copytree(folder / "old", folder / "bad")
    broken = sorted((folder / "bad").rglob("*.npz"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    run_words("ingest {w}/old {w}/begun.zarr --only latents", folder)
    return folder


def copy_for(words: str, made: Path, folder: Path) -> Path:
    """A folder with what a line speaks of, as it was made."""
    folder.mkdir()
    for path in made.iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
        elif f"{{w}}/{path.name}" in words or words.startswith("generate {w} "):
            shutil.copytree(path, folder / path.name)
    return folder


def invoke(words: str, folder: Path, *more: str) -> Result:
    """Type a line."""
    return CliRunner().invoke(cli, [word.format(w=folder) for word in words.split()] + list(more))


def run_words(words: str, folder: Path, *more: str) -> Any:
    """Type a line that succeeds; the JSON document that it prints."""
    done = invoke(words, folder, "--json", *more)
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def tree_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Every entry of a folder: its bytes, by checksum, and when it was changed."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }
