"""Make `calibration_data/` folders: latents with their manifest, and the block cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.testing.activations import make_activations
from taqstore.testing.files import FOREIGN, save_json, save_npz
from taqstore.testing.model import (
    RunShape,
    block_streams,
    get_sigmas,
    get_timesteps,
    latent_trajectory,
    prompts,
)

CFG_WEIGHT = 7.5
SEED_BASE = 42
VAE_SCALE = 1.5305
VAE_SHIFT = 0.0609
POOLED_CHANNELS = 24
PARTS = ("latents", "blocks", "activations")


def make_run_folder(
    path: Path | str,
    *,
    shape: RunShape | None = None,
    seed: int = 0,
    compressed: bool = True,
    parts: Sequence[str] = PARTS,
    adaround_float16: bool = False,
    with_sigma: bool = False,
    with_pooled: bool = False,
    break_boundary: Sequence[int] = (),
) -> Path:
    """Write a run folder as the source scripts leave it.

    Parameters
    ----------
    path
        The `calibration_data` folder itself; made if it is not there.
    shape, seed
        Sizes and the seed everything follows from: the same two give the same bytes.
    compressed
        Deflate the `.npz` members.
    parts
        Which of `latents` (`samples/`, `latents/`, `manifest.json`), `blocks`
        (`adaround_cache/`) and `activations` to write.
    adaround_float16, with_sigma, with_pooled, break_boundary
        As in `make_adaround_cache`.

    Returns
    -------
    Path
        `path`.
    """
    folder, sizes = Path(path), shape or RunShape()
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f"unknown parts {sorted(unknown)}, choose from {PARTS}")
    folder.mkdir(parents=True, exist_ok=True)
    if "latents" in parts:
        make_latents(folder, shape=sizes, seed=seed, compressed=compressed)
    if "blocks" in parts:
        make_adaround_cache(
            folder / "adaround_cache",
            shape=sizes,
            seed=seed,
            compressed=compressed,
            float16=adaround_float16,
            with_sigma=with_sigma,
            with_pooled=with_pooled,
            break_boundary=break_boundary,
        )
    if "activations" in parts:
        make_activations(folder / "activations", shape=sizes, seed=seed, compressed=compressed)
    return folder


def make_latents(
    path: Path | str, *, shape: RunShape, seed: int = 0, compressed: bool = True
) -> Path:
    """Write `samples/`, `latents/` and `manifest.json` into `path`; no image files."""
    folder = Path(path)
    (folder / "latents").mkdir(parents=True, exist_ok=True)
    for image in range(shape.images):
        trajectory = latent_trajectory(shape, seed=seed, image=image)
        for step, x in enumerate(trajectory):
            arrays = _sample(shape, image, step, x)
            file = folder / "samples" / f"{image:04d}_{step:03d}.npz"
            save_npz(file, arrays, compressed=compressed)
        np.save(folder / "latents" / f"{image:04d}.npy", vae_input(trajectory[-1]))
    save_json(folder / "manifest.json", _manifest(shape, seed))
    return folder


def vae_input(x: NDArray[np.float32]) -> NDArray[np.float16]:
    """Final latent as it is decoded: `x / 1.5305 + 0.0609` in float32, cast to float16."""
    return (x / np.float32(VAE_SCALE) + np.float32(VAE_SHIFT)).astype(np.float16)


def _sample(shape: RunShape, image: int, step: int, x: NDArray[np.float32]) -> dict[str, Any]:
    sigmas = get_sigmas(shape.steps)
    return {
        "x": x,
        "timestep": get_timesteps(sigmas)[step],
        "sigma": sigmas[step],
        "step_index": np.int32(step),
        "image_id": np.int32(image),
        "is_final": np.bool_(step == shape.steps),
    }


def _manifest(shape: RunShape, seed: int) -> dict[str, Any]:
    return {
        "n_completed": shape.images,
        "num_steps": shape.steps,
        "cfg_scale": CFG_WEIGHT,
        "latent_size": list(shape.latent),
        "prompt_path": f"{FOREIGN}/prompts.csv",
        "num_images": shape.images,
        "model_version": "synthetic/sd3-in-miniature",
        "use_t5": True,
        "seed_base": SEED_BASE,
        "images_saved": False,
        "latents_saved": True,
        "images": [
            {
                "image_id": image,
                "prompt": prompt,
                "seed": SEED_BASE + image,
                "cfg_weight": CFG_WEIGHT,
                "num_steps": shape.steps,
                "filename": f"{image:04d}.png",
                "latent_filename": f"{image:04d}.npy",
            }
            for image, prompt in enumerate(prompts(shape.images, seed))
        ],
    }


def make_adaround_cache(
    path: Path | str,
    *,
    shape: RunShape,
    seed: int = 0,
    compressed: bool = True,
    float16: bool = False,
    with_sigma: bool = False,
    with_pooled: bool = False,
    break_boundary: Sequence[int] = (),
) -> Path:
    """Write an `adaround_cache/` folder; block i's output is block i+1's input, bit for bit.

    Parameters
    ----------
    path
        The `adaround_cache` folder itself.
    float16
        All streams float16; otherwise only `mm0__arg0` is and the rest is float32.
    with_sigma, with_pooled
        The later variant: `__sigma__` in every sample; `pooled/{image}.npz`.
    break_boundary
        Indices of multimodal blocks whose stored outputs shall differ from the next inputs.
    """
    folder = Path(path)
    samples = [(i, s) for i in shape.cache_image_ids for s in shape.cache_steps]
    sigmas = get_sigmas(shape.steps)
    arrays: dict[str, NDArray[Any]] = {}
    for image, step in samples:
        streams = block_streams(shape, seed=seed, image=image, step=step, float16=float16)
        arrays = _block_arrays(streams, get_timesteps(sigmas)[step], set(break_boundary))
        extra = {"__sigma__": sigmas[step : step + 1]} if with_sigma else {}
        file = folder / "samples" / f"{image:04d}_{step:03d}.npz"
        save_npz(file, {**arrays, **extra}, compressed=compressed)
    for image in shape.cache_image_ids if with_pooled else []:
        rng = np.random.default_rng([seed, 8, image])
        pooled = rng.standard_normal((2, POOLED_CHANNELS)).astype(np.float16)
        save_npz(folder / "pooled" / f"{image:04d}.npz", {"pooled": pooled}, compressed=compressed)
    save_json(folder / "metadata.json", _metadata(shape, samples, arrays, folder))
    return folder


def _block_arrays(
    streams: dict[str, list[Any]], timestep: np.float16, broken: set[int]
) -> dict[str, NDArray[Any]]:
    """The members of one sample, in the order the blocks ran."""
    img, txt, uni = streams["img"], streams["txt"], streams.get("uni", [])
    steps = np.full(2, timestep, np.float16)
    arrays: dict[str, NDArray[Any]] = {}
    for i, (before, after) in enumerate(pairwise(img)):
        arrays |= {f"mm{i}__arg0": before, f"mm{i}__arg1": txt[i], f"mm{i}__arg2": steps}
        outputs = [after, *txt[i + 1 : i + 2]]
        if i in broken:
            outputs = [x + np.float16(0.25) for x in outputs]
        arrays |= {f"mm{i}__out{k}": x for k, x in enumerate(outputs)}
    for i, (before, after) in enumerate(pairwise(uni)):
        arrays |= {f"uni{i}__arg0": before, f"uni{i}__arg1": steps, f"uni{i}__out0": after}
    return arrays


def _metadata(
    shape: RunShape, samples: list[tuple[int, int]], arrays: dict[str, NDArray[Any]], folder: Path
) -> dict[str, Any]:
    names = [f"mm{i}" for i in range(shape.blocks)]
    names += [f"uni{i}" for i in range(shape.unified_blocks)]
    files = [f"{image:04d}_{step:03d}.npz" for image, step in samples]
    size = sum((folder / "samples" / file).stat().st_size for file in files)
    return {
        "format": "adaround_cache_v1",
        "block_names": names,
        "n_mm_blocks": shape.blocks,
        "n_uni_blocks": shape.unified_blocks,
        "block_shapes": {name: _block_shapes(name, arrays) for name in names},
        "n_samples": len(samples),
        "samples": [
            {"img_idx": image, "step_idx": step, "file": file}
            for (image, step), file in zip(samples, files, strict=True)
        ],
        "calib_dir": FOREIGN,
        "selected_image_ids": shape.cache_image_ids,
        "key_timesteps": shape.cache_steps,
        "stride": shape.cache_stride,
        "cfg_weight": CFG_WEIGHT,
        "num_steps": shape.steps,
        "collection_time_minutes": 0.25,
        "errors": 0,
        "cache_size_gb": size / 1e9,
    }


def _block_shapes(name: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    slots = ("arg0", "arg1", "arg2"), ("out0", "out1")
    args, outs = ([arrays.get(f"{name}__{slot}") for slot in group] for group in slots)
    shapes: list[Any] = [None if a is None else list(a.shape) for a in outs]
    return {
        "arg_shapes": [list(a.shape) for a in args if a is not None],
        "kwarg_shapes": {"positional_encodings": None},
        "output_shapes": shapes[:1] if name.startswith("uni") else shapes,
    }
