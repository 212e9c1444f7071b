"""Make `activations/` folders: the three layouts found under one file name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.testing.files import FOREIGN, save_json, save_npz
from taqstore.testing.formulas import (
    HIST_BINS,
    PERCENTILES,
    SHIFT_MOMENTUM,
    ChannelRecord,
    channel_arrays,
    index_entry,
    rollups,
)
from taqstore.testing.model import RunShape, get_sigmas, raw_activations

BUCKETS = {"early": [0.7, 1.0], "mid": [0.3, 0.7], "late": [0.0, 0.3]}
FIXED_EDGES = np.linspace(-8.0, 8.0, 513)


def make_activations(
    path: Path | str, *, shape: RunShape | None = None, seed: int = 0, compressed: bool = True
) -> Path:
    """Write an `activations/` folder of format `per_timestep_npz_v2` over all images.

    Every number follows from `raw_activations(shape, seed=seed, ...)` by the formulas of
    `taqstore.testing.formulas`. With one image there are no histograms, as in the source.
    """
    folder, sizes = Path(path), shape or RunShape()
    for step in sizes.stats_steps:
        records = step_records(sizes, seed=seed, step=step)
        arrays: dict[str, NDArray[Any]] = {}
        for linear, record in records.items():
            arrays |= channel_arrays(record, linear)
        index = {linear: index_entry(record) for linear, record in records.items()}
        save_step(folder, step, arrays, index, compressed=compressed)
    save_json(folder / "layer_statistics.json", manifest(sizes.stats_steps, sizes))
    return folder


def step_records(shape: RunShape, *, seed: int = 0, step: int = 0) -> dict[str, ChannelRecord]:
    """Statistics of every linear at one step over all images, by full linear name."""
    records: dict[str, ChannelRecord] = {}
    for image in range(shape.images):
        tensors = raw_activations(shape, seed=seed, image=image, step=step)
        for index, (linear, x) in enumerate(tensors.items()):
            if linear not in records:
                records[linear] = ChannelRecord(post_gelu=linear.endswith("mlp.fc2"))
            # q, k and v read one tensor but each samples rows of its own, as in the source.
            records[linear].update(x, np.random.default_rng([seed, 7, index, image, step]))
    return records


def save_step(
    folder: Path,
    step: int,
    arrays: dict[str, NDArray[Any]],
    index: dict[str, Any],
    *,
    compressed: bool = True,
) -> None:
    """Write `timestep_stats/step_<step>.npz` and its index."""
    stats = folder / "timestep_stats"
    save_npz(stats / f"step_{step}.npz", arrays, compressed=compressed)
    save_json(stats / f"step_{step}_index.json", index, indent=None)


def manifest(steps: list[int], shape: RunShape) -> dict[str, Any]:
    """The document `layer_statistics.json` for statistics at `steps`."""
    sigmas = get_sigmas(shape.steps)
    return {
        "format": "per_timestep_npz_v2",
        "hist_bins": HIST_BINS,
        "timestep_dir": f"{FOREIGN}/activations/timestep_stats",
        "sigma_map": {str(step): float(sigmas[step]) for step in steps},
        "bucket_definitions": BUCKETS,
        "shift_momentum": SHIFT_MOMENTUM,
        "post_gelu_suffix": ".mlp.fc2",
        "step_keys": [str(step) for step in steps],
        "metadata": {
            "num_images": shape.images,
            "num_timesteps": len(steps),
            "total_processed": shape.images * len(steps),
            "key_timesteps": steps,
            "selected_image_ids": list(range(shape.images)),
            "collection_time_minutes": 0.25,
            "errors": 0,
        },
    }


def make_activation_stats_v1(
    path: Path | str, *, shape: RunShape | None = None, seed: int = 0, compressed: bool = True
) -> Path:
    """Write an `activations/` folder of format `activation_stats_v1`.

    True extrema over images stored as `avg_max`, `avg_min` (float64, in this order), no shift.
    Its index claims histograms and gives percentiles, read off 512 bins over [-8, 8], but the
    npz holds none; q, k and v have identical entries.
    """
    folder, sizes = Path(path), shape or RunShape()
    for step in sizes.stats_steps:
        arrays: dict[str, NDArray[Any]] = {}
        index: dict[str, Any] = {}
        for linear, (low, high, entry) in _traced(sizes, seed, step):
            prefix = linear.replace(".", "_")
            arrays[f"{prefix}__avg_max"] = high.astype(np.float64)
            arrays[f"{prefix}__avg_min"] = low.astype(np.float64)
            index[linear] = {"n_batches": sizes.images, **rollups(low, high), **entry}
        save_step(folder, step, arrays, index, compressed=compressed)
    sigmas = get_sigmas(sizes.steps)
    document = {
        "format": "activation_stats_v1",
        "sigma_map": {str(step): float(sigmas[step]) for step in sizes.stats_steps},
        "step_keys": [str(step) for step in sizes.stats_steps],
        "metadata": {
            "num_images": sizes.images,
            "key_timesteps": sizes.stats_steps,
            "source": "adaround_cache",
        },
    }
    save_json(folder / "layer_statistics.json", document)
    return folder


def _traced(
    shape: RunShape, seed: int, step: int
) -> Iterator[tuple[str, tuple[NDArray[np.float32], NDArray[np.float32], dict[str, Any]]]]:
    batches = [
        raw_activations(shape, seed=seed, image=image, step=step) for image in range(shape.images)
    ]
    for linear in batches[0]:
        x = np.concatenate([batch[linear] for batch in batches])
        counts = np.histogram(x.ravel(), bins=FIXED_EDGES)[0]
        tails = {key: _bin_at(counts, p / 100) for key, p in PERCENTILES.items()}
        entry = {"has_shift": False, "has_hist": True, **tails}
        yield linear, (x.min(axis=0), x.max(axis=0), entry)


def _bin_at(counts: NDArray[np.int64], fraction: float) -> float:
    """Lower edge of the bin where the cumulated counts reach `fraction`."""
    cumulated = np.cumsum(counts.astype(np.float64))
    return float(FIXED_EDGES[int(np.searchsorted(cumulated, fraction * cumulated[-1]))])


def make_unnamed_statistics(path: Path | str, *, layers: int = 3, steps: int = 2) -> Path:
    """Write the oldest `layer_statistics.json`: no `format`, layer *outputs*, to be refused."""
    entry = {"avg_min": [-1.0, -2.0], "avg_max": [1.5, 2.5], "n_batches": 2}
    document = {
        "timesteps": {
            str(step): {f"mm{i}.img.mlp.fc1": entry for i in range(layers)} for step in range(steps)
        },
        "metadata": {"num_images": 2, "num_timesteps": steps},
    }
    save_json(Path(path) / "layer_statistics.json", document)
    return Path(path)
