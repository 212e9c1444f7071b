"""Give a synthetic store second moments: of the tensors that `make_store` observes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taqstore.kinds.second_moments import (
    equal_step_groups,
    put_moments,
    second_moments_template,
)
from taqstore.layout.template import Template
from taqstore.names import site_of
from taqstore.statistics.histogram import Layout
from taqstore.statistics.second_moment import SecondMoment
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import create_store
from taqstore.testing.model import RunShape, raw_activations
from taqstore.testing.store import activations_templates

Tensors = dict[tuple[int, int], dict[str, np.ndarray]]


def make_second_moments(
    path: Path | str,
    *,
    shape: RunShape | None = None,
    seed: int = 0,
    dtype: str = "float16",
    block_size: int | None = 16,
    step_groups: int = 2,
    images_per_batch: int = 1,
    images: Sequence[int] | None = None,
) -> Path:
    """Add `second_moments/<site>` of `raw_activations`, cast to `dtype`, to a store, or make one.

    Parameters
    ----------
    block_size
        Channels of a block; None: all.
    step_groups
        Equal parts of the steps `shape.stats_steps`.
    images_per_batch
        Images summed into one batch.
    images
        Image ids; None: as many as `shape.images`, from 0.

    Returns
    -------
    Path
        `path`.
    """
    sizes = shape or RunShape()
    chosen = range(sizes.images) if images is None else images
    batches = np.full((-(-len(chosen) // images_per_batch), images_per_batch), -1)
    batches.ravel()[: len(chosen)] = chosen
    seen: Tensors = {
        (image, step): raw_activations(sizes, seed=seed, image=image, step=step)
        for image in chosen
        for step in sizes.stats_steps
    }
    with create_store(Path(path)) as store:
        for template in activations_templates(sizes, layout=Layout(dtype, 5)):
            wanted = _template(template, batches, block_size, step_groups)
            _fill(store.group(wanted), seen, dtype, block_size)
    return Path(path)


def _template(
    observed: Template, batches: np.ndarray, block_size: int | None, step_groups: int
) -> Template:
    labels = {name: values for name, (_, values) in observed.coords.items()}
    return second_moments_template(
        site_of(observed.path),
        layers=[str(layer) for layer in labels["layer"]],
        channels=observed.sizes["channel"],
        block_size=block_size,
        steps=labels["step"],
        sigmas=labels["sigma"],
        timesteps=labels["timestep"],
        step_group_of=equal_step_groups(len(labels["step"]), step_groups),
        images=batches,
    )


def _fill(writer: GroupWriter, seen: Tensors, dtype: str, block_size: int | None) -> None:
    template = writer.template
    linear = site_of(template.path).replace("qkv", "q_proj")
    group_of, run = template.coords["step_group_of"][1], template.shard_extent("layer")
    layers = [str(layer) for layer in template.coords["layer"][1]]
    for batch, images in enumerate(template.coords["image"][1]):
        for group in range(template.sizes["step_group"]):
            steps = template.coords["step"][1][group_of == group]
            places = [(int(image), int(step)) for step in steps for image in images if image >= 0]
            for start in range(0, len(layers), run):
                some = [SecondMoment(template.sizes["channel"], block_size)
                        for _ in layers[start : start + run]]  # fmt: skip
                for place in places:
                    for layer, moment in zip(layers[start : start + run], some, strict=True):
                        moment.add(seen[place][f"{layer}.{linear}"].astype(dtype))
                put_moments(writer, batch, group, start, some)
            writer.commit([(batch, group)])
