"""Stores of observations with values planted in the tensors before they are observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.kinds.second_moments import (
    equal_step_groups,
    put_moments,
    second_moments_template,
)
from taqstore.names import site_of
from taqstore.statistics.histogram import Layout
from taqstore.statistics.second_moment import SecondMoment
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import StoreWriter, create_store
from taqstore.testing import RunShape, raw_activations
from taqstore.testing.store import activations_templates, write_batch

SHAPE = RunShape(
    images=3, steps=12, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(4, 3),
    channels=4, stats_stride=2, cache_stride=3,
)  # fmt: skip
STEPS = SHAPE.stats_steps

Tensors = dict[str, np.ndarray[Any, Any]]
Plants = Mapping[tuple[int, int, str], Callable[[np.ndarray[Any, Any]], None]]
"""(image, step, full name) -> what changes that tensor in place."""


def planted_store(
    path: Path, plants: Plants, *, mantissa_bits: int = 5, moments: bool = False
) -> Path:
    """A float16 store of `SHAPE`, a batch for every image; on request with second moments."""
    layout = Layout("float16", mantissa_bits)
    with create_store(path) as store:
        writers = [store.group(t) for t in activations_templates(SHAPE, layout=layout)]
        for image in range(SHAPE.images):
            batch = [tensors(image, step, plants) for step in STEPS]
            for writer in writers:
                with np.errstate(over="ignore"):  # what float16 does not hold becomes infinite
                    write_batch(writer, image, batch, layout)
        for writer in writers if moments else ():
            _write_moments(store, writer, plants)
    return path


def _write_moments(store: StoreWriter, observed: GroupWriter, plants: Plants) -> None:
    """Second moments of a site's tensors, the steps in one group."""
    labels = {name: values for name, (_, values) in observed.template.coords.items()}
    site, channels = site_of(observed.template.path), observed.template.sizes["channel"]
    group = store.group(
        second_moments_template(
            site, layers=labels["layer"].tolist(), channels=channels, block_size=4,
            steps=labels["step"], sigmas=labels["sigma"], timesteps=labels["timestep"],
            step_group_of=equal_step_groups(len(STEPS), 1), images=labels["image"],
        )
    )  # fmt: skip
    run = group.template.shard_extent("layer")
    for image in range(SHAPE.images):
        found = {str(layer): SecondMoment(channels, 4) for layer in labels["layer"]}
        for step in STEPS:
            seen = tensors(image, step, plants)
            for layer, moment in found.items():
                with np.errstate(over="ignore"):
                    name = f"{layer}.{site.replace('qkv', 'q_proj')}"
                    moment.add(seen[name].astype(np.float16))
        every = list(found.values())
        for start in range(0, len(every), run):
            put_moments(group, image, 0, start, every[start : start + run])
        group.commit([(image, 0)])


def tensors(image: int, step: int, plants: Plants) -> Tensors:
    """The tensors that are observed, float32."""
    found = raw_activations(SHAPE, image=image, step=step)
    for (at, when, name), plant in plants.items():
        if (at, when) == (image, step):
            found[name] = found[name].copy()
            plant(found[name])
    return found


def put(value: float, *rows: int, channel: int = 2) -> Callable[[np.ndarray[Any, Any]], None]:
    """Plant a value in some rows of one channel."""

    def plant(x: np.ndarray[Any, Any]) -> None:
        x[list(rows), channel] = value

    return plant


def fill(value: float) -> Callable[[np.ndarray[Any, Any]], None]:
    """Plant a value everywhere."""

    def plant(x: np.ndarray[Any, Any]) -> None:
        x[...] = value

    return plant
