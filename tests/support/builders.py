"""Tiny stores with awkward sizes, built through the public writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taqstore.layout.template import Array, Template
from taqstore.store.writer import create_store

STEPS, HEIGHT, WIDTH, CHANNELS = 5, 3, 7, 2
LATENT_DIMS = ("image", "step", "height", "width", "latent_channel")


def latents_template(
    ids: list[int], *, steps: int = STEPS, salt: str = "", prompts: Sequence[str] = ()
) -> Template:
    sizes = dict(zip(LATENT_DIMS, (len(ids), steps, HEIGHT, WIDTH, CHANNELS), strict=True))
    texts = np.array(list(prompts) or [f"prompt {i} é{salt}" for i in ids], dtype=object)
    return Template(
        "latents",
        "latents",
        sizes,
        (Array("x", LATENT_DIMS, "float32", split="step"),),
        {
            "image": (("image",), np.array(ids, dtype=np.int64)),
            "prompt": (("image",), texts),
            "seed": (("image",), np.array(ids, dtype=np.int64) + 42),
            "step": (("step",), np.arange(steps)),
            "sigma": (("step",), np.linspace(1, 0, steps, dtype=np.float32)),
            "timestep": (("step",), np.linspace(1000, 0, steps).astype(np.float16)),
        },
        ("image",),
    )


def latent(image: int, *, steps: int = STEPS) -> np.ndarray:
    rng = np.random.default_rng([7, image])
    return rng.normal(size=(1, steps, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)


def write_latents(
    path: Path | str,
    ids: list[int],
    *,
    only: list[int] | None = None,
    prompts: Sequence[str] = (),
) -> None:
    with create_store(path) as writer:
        group = writer.group(latents_template(ids, prompts=prompts))
        for i, image in enumerate(ids):
            if only is None or image in only:
                group.put("x", (i, 0, 0, 0, 0), latent(image))
                group.commit([(i,)])


SITE_DIMS = ("step", "layer", "channel")
LAYERS = ("mm0.img", "mm0.txt", "mm1.img", "mm1.txt", "mm2.img")


def pooled_template(*, channels: int = 6, steps: tuple[int, ...] = (0, 3, 6)) -> Template:
    """A pooled site of five layers in shards of two: the last shard is cut at the edge."""
    sizes = {"step": len(steps), "layer": len(LAYERS), "channel": channels, "bin": 9}
    return Template(
        "pooled/timestep_stats/mlp.fc2",
        "pooled",
        sizes,
        (
            Array("avg_min", SITE_DIMS, "float32", split="layer"),
            Array("avg_max", SITE_DIMS, "float64", split="layer"),
            Array("tensor_absmax", ("step", "layer"), "float64"),
            Array("hist_counts", ("step", "layer", "bin"), "uint32", split="layer", compress=True),
        ),
        {
            "step": (("step",), np.array(steps, dtype=np.int64)),
            "sigma": (("step",), np.linspace(1, 0.1, len(steps), dtype=np.float32)),
            "layer": (("layer",), np.array(LAYERS, dtype=object)),
            "block": (("layer",), np.array([n.split(".")[0] for n in LAYERS], dtype=object)),
            "stream": (("layer",), np.array([n.split(".")[1] for n in LAYERS], dtype=object)),
        },
        ("step",),
        item_size={"step": len(steps)},
        shard={"layer": 2},
    )


def pooled_values(template: Template) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    return {
        array.name: (rng.normal(size=template.shape(array)) * 50).astype(array.dtype)
        if array.dtype.startswith("float")
        else rng.integers(0, 9, template.shape(array)).astype(array.dtype)
        for array in template.arrays
    }


def write_pooled(
    path: Path | str, values: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    template = pooled_template()
    values = pooled_values(template) if values is None else values
    with create_store(path) as writer:
        group = writer.group(template)
        for array in template.arrays:
            for layer in range(0, len(LAYERS), 2):
                start = tuple(layer if d == "layer" else 0 for d in array.dims)
                group.put(array.name, start, values[array.name][:, layer : layer + 2])
        group.commit([(0,), (1,), (2,)])
    return values
