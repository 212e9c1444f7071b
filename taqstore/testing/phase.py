"""Make the files of the two earlier phases: shuffled latents, and traced activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.testing.files import save_npz
from taqstore.testing.model import (
    RunShape,
    get_sigmas,
    get_timesteps,
    latent_trajectory,
    prompts,
    raw_activations,
)

CONDITIONING_CHANNELS = 40
POOLED_CHANNELS = 24
TRACED_BINS = 512
TRACED_RANGE = (-8.0, 8.0)
SUFFIXES = {
    "attn.q_proj": "qkv_in",
    "attn.o_proj": "o_in",
    "mlp.fc1": "fc1_in",
    "mlp.fc2": "fc2_in",
}


def make_phase1(
    path: Path | str,
    *,
    shape: RunShape | None = None,
    seed: int = 0,
    prompt_count: int = 20,
    compressed: bool = True,
) -> Path:
    """Write a Phase 1 file: shuffled latents, and the conditioning of every prompt.

    Keys: `xs` (n, h, w, c) f32, `ts` (n,) f16, `prompt_indices` (n,) i32, `cs` (P, 2, L, D) f16,
    `cs_pooled` (P, 2, Dp) f16, `prompts` (P,) *pickled object*, `cfg_scale` () f32. Only the first
    `shape.images` prompts are used by rows, as in a run that was cut short.

    Returns
    -------
    Path
        `path`, whose suffix must be `.npz`.
    """
    file, sizes = Path(path), shape or RunShape()
    rng = np.random.default_rng([seed, 9])
    latents = [latent_trajectory(sizes, seed=seed, image=i)[:, 0] for i in range(sizes.images)]
    rows = [(i, s) for i in range(sizes.images) for s in sizes.stats_steps]
    rows = [rows[k] for k in rng.permutation(len(rows))]
    timesteps = get_timesteps(get_sigmas(sizes.steps))
    arrays = {
        "xs": np.stack([latents[image][step] for image, step in rows]),
        "ts": timesteps[[step for _, step in rows]],
        "prompt_indices": np.array([image for image, _ in rows], np.int32),
        "cs": _half(rng, (prompt_count, 2, sizes.text_tokens, CONDITIONING_CHANNELS)),
        "cs_pooled": _half(rng, (prompt_count, 2, POOLED_CHANNELS)),
        "prompts": np.array(prompts(prompt_count, seed), dtype=object),
        "cfg_scale": np.float32(1.5),
    }
    return save_npz(file, arrays, compressed=compressed)


def _half(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float16]:
    return rng.standard_normal(size).astype(np.float16)


def make_postgelu(
    path: Path | str,
    *,
    shape: RunShape | None = None,
    seed: int = 0,
    variant: str = "plain",
    compressed: bool = True,
) -> Path:
    """Write a Phase 2 file over all images, from activations rounded to float16.

    Parameters
    ----------
    variant
        `plain`: `mm_00_img` means the post-GELU tensor. `suffixed`: all four inputs of a block,
        as `mm_00_img:qkv_in`, `:o_in`, `:fc1_in`, `:fc2_in`.

    Notes
    -----
    Sums are float32 per image and float64 over images; std = sqrt(max(E[x^2] - mean^2, 0));
    values outside [-8, 8] enter no bin; keys are ordered by the text of their timestep.
    """
    if variant not in ("plain", "suffixed"):
        raise ValueError(f"unknown variant {variant!r}, choose plain or suffixed")
    file, sizes = Path(path), shape or RunShape()
    timesteps = get_timesteps(get_sigmas(sizes.steps))[sizes.stats_steps]
    by_step = {
        f"{float(t):.6f}": _traced_step(sizes, seed, step)
        for t, step in zip(timesteps, sizes.stats_steps, strict=True)
    }
    arrays: dict[str, Any] = {}
    for linear, name in traced_names(sizes, seed=seed, variant=variant).items():
        for text in sorted(by_step):
            finished = _finish(by_step[text][linear])
            arrays |= {f"{name}::t={text}::{key}": value for key, value in finished.items()}
    arrays["timesteps_unique"] = np.sort(timesteps.astype(np.float32))
    arrays["histogram_bin_edges"] = np.linspace(*TRACED_RANGE, TRACED_BINS + 1, dtype=np.float32)
    return save_npz(file, arrays, compressed=compressed)


def traced_names(shape: RunShape, *, seed: int = 0, variant: str = "plain") -> dict[str, str]:
    """The tracer's name of each linear it saw: `{"mm0.img.mlp.fc2": "mm_00_img", ...}`."""
    names: dict[str, str] = {}
    for linear in raw_activations(shape, seed=seed):
        layer, _, part = linear.partition(".attn." if ".attn." in linear else ".mlp.")
        site = ("attn." if ".attn." in linear else "mlp.") + part
        block, _, stream = layer.partition(".")
        kind, index = block.rstrip("0123456789"), int(block.lstrip("muni"))
        traced = f"{kind}_{index:02d}" + (f"_{stream}" if stream else "")
        if variant == "plain" and site == "mlp.fc2":
            names[linear] = traced
        elif variant == "suffixed" and site in SUFFIXES:
            names[linear] = f"{traced}:{SUFFIXES[site]}"
    return names


def _traced_step(shape: RunShape, seed: int, step: int) -> dict[str, list[NDArray[np.float32]]]:
    """Each linear's tensors at one step, one per image, rounded to float16."""
    seen: dict[str, list[NDArray[np.float32]]] = {}
    for image in range(shape.images):
        tensors = raw_activations(shape, seed=seed, image=image, step=step)
        for linear, x in tensors.items():
            seen.setdefault(linear, []).append(x.astype(np.float16).astype(np.float32))
    return seen


def _finish(batches: list[NDArray[np.float32]]) -> dict[str, Any]:
    count = sum(len(x) for x in batches)
    total = np.sum([x.sum(axis=0).astype(np.float64) for x in batches], axis=0)
    squares = np.sum([(x * x).sum(axis=0).astype(np.float64) for x in batches], axis=0)
    mean = total / count
    counts = [np.histogram(x.ravel(), TRACED_BINS, range=TRACED_RANGE)[0] for x in batches]
    return {
        "count": np.int64(count),
        "mean": mean,
        "std": np.sqrt(np.maximum(squares / count - mean**2, 0.0)),
        "min": np.min([x.min(axis=0) for x in batches], axis=0).astype(np.float64),
        "max": np.max([x.max(axis=0) for x in batches], axis=0).astype(np.float64),
        "histogram": np.sum(counts, axis=0),
    }
