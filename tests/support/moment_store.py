"""Stores of second moments of a model's inputs that were never run, made up."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from taqstore.pipelines.models.inputs import Input
from taqstore.pipelines.models.load import LoadedModel

from taqstore.kinds.second_moments import put_moments, second_moments_template
from taqstore.names import MODEL_SITES, SITES
from taqstore.statistics.second_moment import SecondMoment
from taqstore.store.writer import create_store

EVERY = (*SITES, *MODEL_SITES)
SIGMAS = np.float32([1.0, 0.75, 0.25])
GROUP_OF = (0, 0, 1)
BATCHES = 2


def raw(given: Input, batch: int, group: int) -> np.ndarray:
    """What an input is made of: float32 ``(position, channel)``, the first channel always 0."""
    seed = zlib.crc32(f"{given.layer} {given.site} {batch} {group}".encode())
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(12, 5)) @ rng.normal(size=(5, given.channels))
    x = (mixed + 0.3 * rng.normal(size=mixed.shape)).astype(np.float32)
    x[:, 0] = 0
    return x


def moment(given: Input, weights: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
    """Second moment of an input over all batches and groups, in float64."""
    parts = [(raw(given, b, g), weights[g]) for b in range(BATCHES) for g in range(2)]
    return np.sum([w * x.T.astype(np.float64) @ x.astype(np.float64) for x, w in parts], axis=0)


def write_moments(
    path: Path,
    model: LoadedModel,
    *,
    sites: Sequence[str] = EVERY,
    block_size: Mapping[str, int | None] | int | None = None,
    told: bool = True,
    batches: int = BATCHES,
) -> Path:
    """Second moments of all inputs at these sites; `told`: with the run that they are of.

    Fewer `batches`: the others are not written yet, and are by another call.
    """
    run = {"model": model.row.name, "weights": model.digest, "dtype": model.row.dtype}
    with create_store(path) as writer:
        for site in sites:
            inputs = [given for given in model.inputs() if given.site == site]
            size = block_size.get(site) if isinstance(block_size, Mapping) else block_size
            template = second_moments_template(
                site, layers=[given.layer for given in inputs], channels=inputs[0].channels,
                block_size=size, steps=[0, 4, 9], sigmas=SIGMAS, timesteps=SIGMAS * 1000,
                step_group_of=GROUP_OF, images=[[b] for b in range(BATCHES)],
                attrs={"run": run} if told else {},
            )  # fmt: skip
            group = writer.group(template)
            for batch in range(batches):
                for steps in range(2):
                    for start in range(0, len(inputs), template.shard_extent("layer")):
                        some = inputs[start : start + template.shard_extent("layer")]
                        found = [SecondMoment(given.channels, size) for given in some]
                        for given, one in zip(some, found, strict=True):
                            one.add(raw(given, batch, steps))
                        put_moments(group, batch, steps, start, found)
                    group.commit([(batch, steps)])
    return path
