"""Make inputs of SD3-Medium's size for benchmarks: drawn directly, not from raw tensors."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.testing.activations import manifest, save_step
from taqstore.testing.files import save_json
from taqstore.testing.formulas import PERCENTILES, histogram_edges, percentile, rollups
from taqstore.testing.model import RunShape, get_sigmas, linear_inputs
from taqstore.testing.run_folder import make_adaround_cache, make_latents

SD3_STEPS = 50
SD3_LATENT_FILES_PER_IMAGE = SD3_STEPS + 1
SD3_SHAPE = RunShape(images=5, steps=SD3_STEPS, blocks=24, hidden=1536, stats_stride=1)
_SAMPLED_VALUES = 500_000


def make_sd3_statistics(
    path: Path | str,
    *,
    scale: float = 1.0,
    seed: int = 0,
    compressed: bool = True,
    workers: int = 2,
) -> Path:
    """Write an `activations/` folder of SD3-Medium's size: 285 linears, 1536 or 6144 channels.

    Extrema follow a smooth course over sigma with a little noise per step, so they compress as
    measured ones do: float64 members whose values are float32.

    Parameters
    ----------
    scale
        Share of the 50 steps; at 1 the arrays hold about 0.7 GB.
    workers
        Threads; deflating, where the time goes, runs outside the interpreter lock.
    """
    folder = Path(path)
    steps = max(2, round(SD3_STEPS * scale))
    courses = _courses(SD3_SHAPE, seed)
    sigmas = get_sigmas(steps)

    def write(step: int) -> None:
        arrays: dict[str, NDArray[Any]] = {}
        index: dict[str, Any] = {}
        for course in courses:
            course.add(arrays, index, step, float(sigmas[step]))
        save_step(folder, step, arrays, index, compressed=compressed)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(write, range(steps)))
    shape = RunShape(images=SD3_SHAPE.images, steps=steps, stats_stride=1)
    save_json(folder / "layer_statistics.json", manifest(list(range(steps)), shape))
    return folder


@dataclass(frozen=True)
class _Course:
    """How the extrema of one linear input run over the steps."""

    readers: tuple[str, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    slope: NDArray[np.float32]
    seed: tuple[int, ...]

    def add(
        self, arrays: dict[str, NDArray[Any]], index: dict[str, Any], step: int, sigma: float
    ) -> None:
        """Add one step's members and index entries for every linear that reads this input."""
        rng = np.random.default_rng([*self.seed, step])
        drift = 1 + self.slope * np.float32(sigma)
        low, high = (self._moved(rng, bound, drift) for bound in (self.low, self.high))
        for linear in self.readers:
            post_gelu = linear.endswith("mlp.fc2")
            shift = ((low + high) / 2).astype(np.float32) if post_gelu else None
            hist = _histogram(rng, float(low.min()), float(high.max()))
            arrays |= _members(linear, low, high, shift, hist)
            index[linear] = _entry(low, high, shift, hist)

    @staticmethod
    def _moved(
        rng: np.random.Generator, bound: NDArray[np.float32], drift: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        noise = rng.standard_normal(bound.size, dtype=np.float32)
        return bound * drift * (1 + np.float32(0.02) * noise)


def _courses(shape: RunShape, seed: int) -> list[_Course]:
    return [
        _course(name, readers, shape, (seed, 11, index))
        for index, (name, readers) in enumerate(linear_inputs(shape).items())
    ]


def _course(name: str, readers: tuple[str, ...], shape: RunShape, seed: tuple[int, ...]) -> _Course:
    rng = np.random.default_rng(seed)
    post_gelu = name.endswith("mlp.fc2")
    channels = shape.ffn if post_gelu else shape.hidden
    width = np.exp(rng.normal(1.0, 0.6, channels)).astype(np.float32)
    width[rng.choice(channels, channels // 100, replace=False)] *= np.float32(10)
    low = np.full(channels, -0.1666, np.float32) if post_gelu else -width
    slope = rng.uniform(0, 0.5, channels).astype(np.float32)
    return _Course(readers, low, width, slope * (0 if post_gelu else 1), seed)


def _histogram(
    rng: np.random.Generator, low: float, high: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    edges = histogram_edges(low, high)
    centres = (edges[:-1] + edges[1:]) / 2
    weight = np.exp(-np.abs(centres) / (0.05 * (high - low)))
    return rng.multinomial(_SAMPLED_VALUES, weight / weight.sum()), edges


def _members(
    linear: str,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    shift: NDArray[np.float32] | None,
    hist: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> dict[str, NDArray[Any]]:
    prefix = linear.replace(".", "_")
    members: dict[str, NDArray[Any]] = {
        f"{prefix}__avg_min": low.astype(np.float64),
        f"{prefix}__avg_max": high.astype(np.float64),
    }
    if shift is not None:
        members[f"{prefix}__shift"] = shift.astype(np.float64)
    members[f"{prefix}__hist_counts"], members[f"{prefix}__hist_edges"] = hist
    return members


def _entry(
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    shift: NDArray[np.float32] | None,
    hist: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> dict[str, Any]:
    has = {"has_shift": shift is not None, "has_hist": True}
    extra = {} if shift is None else {"shift_absmax": float(np.abs(shift).max())}
    tails = {key: percentile(*hist, p) for key, p in PERCENTILES.items()}
    return {"n_batches": SD3_SHAPE.images, **rollups(low, high), **has, **extra, **tails}


def make_sd3_latents(
    path: Path | str, *, files: int = 510, seed: int = 0, compressed: bool = True
) -> Path:
    """Write a run folder with `files` latents of 64x64x16: whole images of 50 steps.

    Raises
    ------
    ValueError
        `files` is neither a multiple of 51 nor between 3 and 51 (one shorter run).
    """
    images, rest = divmod(files, SD3_LATENT_FILES_PER_IMAGE)
    if files < SD3_LATENT_FILES_PER_IMAGE:
        shape = RunShape(images=1, steps=files - 1, latent=(64, 64))
    else:
        shape = RunShape(images=images, steps=SD3_STEPS, latent=(64, 64))
    if files < 3 or (images and rest):
        raise ValueError(f"{files} files are no whole images; choose a multiple of 51 or 3 to 51")
    return make_latents(Path(path), shape=shape, seed=seed, compressed=compressed)


def make_block_cache(
    path: Path | str,
    *,
    samples: int,
    tokens: int = 1024,
    channels: int = 1536,
    blocks: int = 4,
    text_tokens: int = 154,
    seed: int = 0,
    compressed: bool = True,
    float16: bool = True,
) -> Path:
    """Write an `adaround_cache/` folder with streams of SD3-Medium's size.

    Parameters
    ----------
    samples
        (image, step) pairs: the largest power of two up to 8 that divides it are the steps.
    """
    steps = math.gcd(samples, 8)
    images = samples // steps
    shape = RunShape(
        images=images,
        steps=max(2, steps),
        blocks=blocks,
        hidden=channels,
        image_tokens=tokens,
        text_tokens=text_tokens,
        cache_images=images,
        cache_stride=1 if steps > 1 else 2,
    )
    return make_adaround_cache(
        Path(path), shape=shape, seed=seed, compressed=compressed, float16=float16
    )
