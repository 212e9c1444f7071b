"""A store with latents of a tiny random model."""

from __future__ import annotations

from pathlib import Path

from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.table import ModelRow

from support.live_models import write_checkpoint

PROMPTS = ("a cat", "ein Hund, groß", "seven")


def make_live_store(folder: Path, row: ModelRow, *, images: int, steps: int) -> Path:
    """`run.zarr` in a folder, its model's weights beside it as `w.safetensors`."""
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS[:images]), encoding="utf-8")
    checkpoint = write_checkpoint(folder / "w.safetensors", flux=row.pipeline == "FluxPipeline")
    request = Request(row.name, prompts, images, steps=steps, local_ckpt=checkpoint)
    generate(folder / "run.zarr", request)
    return folder / "run.zarr"
