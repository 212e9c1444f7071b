"""Stores of sensitivities that were never measured, made up: from sizes and a seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.kinds.sensitivity import (
    STATIC,
    format_bits,
    quantizes_inputs,
    scores_template,
    sensitivity_template,
)
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import create_store

SHAPE = (4, 4, 2)
STEPS = 28
LINEARS = {
    **{
        f"mm{block}.{stream}.{linear}": size
        for block in range(2)
        for stream in ("img", "txt")
        for linear, size in (
            *((f"attn.{name}", 1024) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
            *(("mlp.fc1", 4096), ("mlp.fc2", 4096), ("adaln.linear", 6144)),
        )
    },
    **{"x_embedder.embed.image": 512, "final_layer.final.linear": 256},
}
"""Weights of each linear."""
BLOCKS = {"mm0": 2 * 12288, "mm1": 2 * 12288}
SITES = {"attn.qkv": 12288, "attn.o_proj": 4096, "mlp.fc1": 16384, "mlp.fc2": 16384}
TARGETS: Mapping[str, Mapping[str, int]] = {
    "linear": LINEARS,
    "block": BLOCKS,
    "site": SITES,
    "step": {str(step): 0 for step in range(STEPS)},
}
"""Targets of each unit, and their weights."""
RUN = {"model": "made-up", "weights": "0" * 64, "dtype": "float32", "steps": STEPS}


def base(images: Sequence[int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Final latents of the float model ``(image, *shape)``."""
    return np.stack([_rng("base", image).normal(size=shape) for image in images]).astype(np.float32)


def amplitude(target: str, format: str) -> float:
    """About what share of a final latent a target changes: halved by every bit."""
    return float(0.5 * _rng("size", target).lognormal(0, 1) / 2 ** format_bits(format))


def deltas(
    unit: str, format: str, images: Sequence[int], shape: tuple[int, ...] = SHAPE
) -> np.ndarray:
    """Changes of final latents ``(image, target, *shape)`` float32."""
    return np.stack(
        [
            [
                amplitude(target, format)
                * _rng("delta", unit, target, format, image).normal(size=shape)
                for target in TARGETS[unit]
            ]
            for image in images
        ]
    ).astype(np.float32)


def write_sensitivities(
    path: Path,
    *,
    unit: str = "linear",
    formats: Sequence[str] = ("rtn-w2", "rtn-w4", "rtn-w8"),
    images: Sequence[int] = (0, 1, 2, 3),
    targets: Sequence[str] | None = None,
    shape: tuple[int, int, int] = SHAPE,
    run: Mapping[str, Any] | None = None,
    with_scores: bool = True,
    first_seed: int = 100,
    scale: float = 1.0,
) -> Path:
    """Add `sensitivity/<unit>/<format>`, and scores, to a store, or make one.

    Seeds of images are `first_seed` more than their numbers. `targets`: only these are written;
    None: all.
    Changes of latents are `scale` times `deltas`.
    """
    with create_store(path) as writer:
        for format in formats:
            weights = np.array([*TARGETS[unit].values()])
            ours = {"format": format, "bits": format_bits(format), **RUN, **(run or {})}
            inputs = quantizes_inputs(format)
            template = sensitivity_template(
                unit, format,
                images=images,
                prompts=[f"a {image % 10}" for image in images],
                seeds=[first_seed + image for image in images],
                cfg_weights=np.full(len(images), 4.0),
                targets=[*TARGETS[unit]],
                weights=np.zeros_like(weights) if inputs else weights,
                input_channels=np.full(len(weights), 64 if inputs else 0),
                shape=shape,
                attrs={"run": ours},
            )  # fmt: skip
            _fill(writer.group(template), unit, format, images, targets, scale)
            if with_scores:
                scored = scores_template(
                    unit, format, targets=[*TARGETS[unit]], weights=weights, attrs={"run": ours}
                )
                _fill_scores(writer.group(scored), format, targets)
    return path


def _fill(
    group: GroupWriter,
    unit: str,
    format: str,
    images: Sequence[int],
    targets: Sequence[str] | None,
    scale: float,
) -> None:
    shape = tuple(group.template.sizes[d] for d in ("height", "width", "latent_channel"))
    x = base(images, shape)
    change = np.float32(scale) * deltas(unit, format, images, shape)
    columns = [n for n, name in enumerate(TARGETS[unit]) if targets is None or name in targets]
    items = [(row, column) for row in range(len(images)) for column in columns]
    for row, column in items:
        _put(group, (row, column), x[row].astype(np.float64), change[row, column])
    group.commit(items)


def _put(group: GroupWriter, item: tuple[int, int], x: np.ndarray, delta: np.ndarray) -> None:
    norm, other = np.linalg.norm(x), x + delta
    error = np.linalg.norm(delta.astype(np.float64)) / norm
    cosine = np.vdot(x, other) / (norm * np.linalg.norm(other))
    numbers = {"latent_norm": norm, "latent_error": error, "cosine": cosine}
    numbers |= {"worst_error": 1.25 * error, "worst_cosine": cosine - 0.1 * (1 - cosine)}
    group.put("delta", (*item, 0, 0, 0), delta[None, None])
    for name, value in numbers.items():
        group.put(name, item, np.full((1, 1), value))
    group.put("worst_step", item, np.full((1, 1), STEPS - 3))


def _fill_scores(group: GroupWriter, format: str, targets: Sequence[str] | None) -> None:
    """Scores that go with the amplitude, more or less: the first ones less."""
    names = [str(name) for name in group.template.coords["target"][1]]
    places = [n for n, name in enumerate(names) if targets is None or name in targets]
    for place in places:
        target = names[place]
        for number, name in enumerate(STATIC):
            noise = _rng("score", name, target).normal() / (1 + number)
            value = amplitude(target, format) * np.exp(noise)
            group.put(name, (place,), np.full(1, value))
    group.commit([(place,) for place in places])


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))
