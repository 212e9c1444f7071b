"""A small store with both tracks of a tiny model, and minibatches of its blocks made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.layers import blocks
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.rounding import BlockRun, InputStart, Minibatch, positions_of
from taqstore.pipelines.models.table import ModelRow

from support.live_models import write_checkpoint
from support.made_once import made_once
from taqstore.kinds.block_samples import open_block
from taqstore.metadata.root import read_root, write_root
from taqstore.names import LayerName
from taqstore.place.local_backend import LocalBackend

IMAGES, STEPS = 2, 3


def make_rounding_store(folder: Path, row: ModelRow) -> Path:
    """Latents, streams and activations: `IMAGES` x `STEPS` samples of every block."""
    made_once(("rounding", row), lambda work: _make(work, row), folder)
    return folder / "run.zarr"


def _make(folder: Path, row: ModelRow) -> None:
    prompts, store = folder / "prompts.txt", folder / "run.zarr"
    prompts.write_text("a cat\nein Hund, groß", encoding="utf-8")
    checkpoint = write_checkpoint(folder / "w.safetensors", flux=row.pipeline == "FluxPipeline")
    generate(store, Request(row.name, prompts, IMAGES, steps=STEPS, local_ckpt=checkpoint))
    cache(store, stride=1, local_ckpt=checkpoint)
    collect(store, stride=1, local_ckpt=checkpoint)


def without(store: Path, path: str) -> None:
    """Take a group out of a store, from its root's list as well."""
    backend = LocalBackend(store)
    root = read_root(backend, str(store))
    groups = tuple(name for name in root.groups if not f"{name}/".startswith(f"{path}/"))
    write_root(backend, replace(root, groups=groups, copies=None))
    shutil.rmtree(store / path)


def block_run(model: LoadedModel, name: str) -> BlockRun:
    found = {block.name: block for block in blocks(model.mmdit)}
    positions = positions_of(model, latent_size=model.row.latent_size, text_tokens=5)
    return BlockRun(model, found[name], positions)


def minibatch(
    store: Path, model: LoadedModel, block: str, numbers: Sequence[int], *,
    group: dict[str, np.ndarray] | None = None, weight: np.ndarray | None = None,
) -> Minibatch:  # fmt: skip
    mx, batch = backend().mx, open_block(store, block).read(numbers)
    assert batch.pooled is not None
    assert batch.timestep is not None
    dtype = model.pipeline.activation_dtype
    return Minibatch(
        {name: mx.array(x) for name, x in batch.inputs.items()},
        {name: mx.array(x) for name, x in batch.targets.items()},
        mx.array(batch.pooled).astype(dtype),
        mx.array(batch.timestep).astype(dtype),
        group or {},
        weight,
    )


def starts(
    run: BlockRun, steps: Sequence[float], *, shifted: bool = False
) -> dict[LayerName, InputStart]:
    """The same steps for every linear; fc2 with shifts of its channels."""
    rng, found = np.random.default_rng(5), {}
    for name, module in run.linears:
        shift = rng.normal(size=(len(steps), module.weight.shape[1]))
        at_fc2 = shifted and name.site == "mlp.fc2"
        found[name] = InputStart(np.array(steps), shift if at_fc2 else None)
    return found
