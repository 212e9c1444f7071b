"""Make a store of observed activations: synthetic tensors through the library's own statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.kinds.templates import activations_template
from taqstore.layout.template import Template
from taqstore.names import site_of
from taqstore.statistics.histogram import Layout
from taqstore.statistics.observation import MANTISSA_BITS, Observation, observe
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import create_store
from taqstore.testing.model import (
    RunShape,
    get_sigmas,
    get_timesteps,
    linear_inputs,
    raw_activations,
)


def make_store(
    path: Path | str,
    *,
    shape: RunShape | None = None,
    seed: int = 0,
    dtype: str = "float16",
    mantissa_bits: int = MANTISSA_BITS,
) -> Path:
    """Write a store whose `activations/<site>` groups observe `raw_activations`, cast to `dtype`.

    One batch per image, at the steps `shape.stats_steps`.

    Parameters
    ----------
    dtype
        What the imagined model computes in: `float16` or `float32`.
    mantissa_bits
        Of the histograms.

    Returns
    -------
    Path
        `path`.
    """
    sizes = shape or RunShape()
    layout = Layout(dtype, mantissa_bits)
    with create_store(Path(path)) as store:
        writers = [
            store.group(template) for template in activations_templates(sizes, layout=layout)
        ]
        for image in range(sizes.images):
            batch = [
                raw_activations(sizes, seed=seed, image=image, step=step)
                for step in sizes.stats_steps
            ]
            for writer in writers:
                write_batch(writer, image, batch, layout)
    return Path(path)


def activations_templates(shape: RunShape, *, layout: Layout) -> list[Template]:
    """One template per site, with the layers that have it."""
    steps, sigmas = shape.stats_steps, get_sigmas(shape.steps)
    layers: dict[str, list[str]] = {}
    for name in linear_inputs(shape):
        layer, section, part = name.rsplit(".", 2)
        layers.setdefault(f"{section}.{part}", []).append(layer)
    return [
        activations_template(
            site,
            layers=members,
            channels=shape.ffn if site == "mlp.fc2" else shape.hidden,
            steps=steps,
            sigmas=sigmas[steps],
            timesteps=get_timesteps(sigmas)[steps],
            images=np.arange(shape.images)[:, None],
            layout=layout,
            dtype=layout.dtype,
        )
        for site, members in layers.items()
    ]


def write_batch(
    writer: GroupWriter, image: int, batch: list[dict[str, NDArray[np.float32]]], layout: Layout
) -> None:
    """Write and flag one batch: the tensors of an image at every step, observed."""
    site = site_of(writer.template.path).replace("qkv", "q_proj")
    layers = writer.template.coords["layer"][1]
    seen = [[_observe(tensors[f"{layer}.{site}"], layout) for layer in layers] for tensors in batch]
    for array in writer.template.arrays:
        values: NDArray[Any] = np.array([[o.variables()[array.name] for o in row] for row in seen])
        start = (image, *(0 for _ in array.dims[1:]))
        writer.put(array.name, start, values[None])
    writer.commit([(image,)])


def _observe(x: NDArray[np.float32], layout: Layout) -> Observation:
    return observe(x.astype(layout.dtype), mantissa_bits=layout.mantissa_bits)
