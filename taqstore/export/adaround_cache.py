"""`adaround-cache`: inputs and outputs of every block, as the source cached them.

The store keeps each residual stream once per boundary; here boundary i is written twice, as output
of block i-1 and as input of block i.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.export.calibration_samples import guidance_note, guidance_of
from taqstore.export.documents.agreed import agreed, common
from taqstore.files.documents import write_document
from taqstore.files.staged import whole_folder
from taqstore.files.written import Summary, make_folder, save_all, save_npz, summarize
from taqstore.kinds import nonfinite
from taqstore.names import BLOCKS, LATENTS, STREAMS, Block, model_blocks, site_of
from taqstore.store.attributes import attribute_of

METADATA = "source_metadata"
FORMAT = "adaround_cache_v1"
IMAGE_STREAM, TEXT_STREAM, UNIFIED_STREAM = (f"{BLOCKS}/{name}" for name in STREAMS)
POOLED = f"{BLOCKS}/pooled"
_CONTENT = ("metadata.json", "samples/*.npz", "pooled/*.npz")

Streams = Mapping[str, xr.Dataset]


@dataclass(frozen=True)
class _Residual:
    """One residual stream of one sample, in memory: dims boundary, row, token, channel."""

    sample: xr.Dataset

    @property
    def blocks(self) -> int:
        """How many blocks have an output in this stream."""
        return self.sample.sizes["boundary"] - 1

    def before(self, block: int) -> np.ndarray:
        """Input of a block, ``(row, token, 1, channel)``, in the dtype that the source had."""
        return self._tensor("x", block, str(self.sample["dtype"].values[block]))

    def after(self, block: int) -> np.ndarray | None:
        """Output of a block; None where the source has none (text stream of the last block)."""
        if "output_kept" in self.sample and bool(self.sample["output_kept"][block]):
            original = attribute_of(self.sample["output"], "original_dtype", {})
            return self._tensor("output", block, original.get(str(block)))
        return self.before(block + 1) if block < self.blocks else None

    def _tensor(self, name: str, boundary: int, dtype: str | None) -> np.ndarray:
        array = self.sample[name][{"boundary": boundary}].transpose("row", "token", "channel")
        values = array.values.astype(dtype or array.dtype, copy=False)
        axis = attribute_of(self.sample, "singleton_axis", 2)
        return values if axis is None else np.expand_dims(values, axis)


def adaround_cache(groups: Mapping[str, xr.Dataset], out: Path, *, force: bool = False) -> Summary:
    """Write ``samples/{image}_{step}.npz``, ``metadata.json`` and, where kept, ``pooled/``.

    Every complete sample becomes one file with ``mm{i}__arg0/arg1/arg2/out0/out1`` and
    ``uni{i}__arg0/arg1/out0`` in their original dtypes; a few samples are in memory at a time.

    Raises
    ------
    MissingError
        The store has no residual streams, or lacks the timesteps they were seen at.
    TaqError
        The folder exists, or cannot be written.
    """
    streams = _find(groups)
    samples = _complete_samples(streams)
    shapes: dict[str, Any] = {}
    images = {image for image, _ in samples}
    with whole_folder(out, content=_CONTENT, force=force) as folder:
        save_all(_jobs(streams, samples, make_folder(folder / "samples"), shapes))
        files = sorted((folder / "samples").iterdir())
        size = sum(file.stat().st_size for file in files)
        if POOLED in groups:
            save_all(_pooled_jobs(groups[POOLED], make_folder(folder / "pooled")))
        document = {
            **_run(groups, streams, shapes, images),
            **_contents(samples),
            "calib_dir": str(out.resolve().parent),
            "cache_size_gb": size / 1e9,
        }
        write_document(folder / "metadata.json", "adaround-metadata", document)
    latents = None if "cfg_weight" in document else _latents_of(groups, images)
    guidance = "" if latents is None else guidance_note(latents, "cfg_weight of all")
    return summarize(out, guidance, *_left_out(streams, samples))


def _left_out(streams: Streams, samples: list[tuple[int, int]]) -> Iterator[str]:
    """Samples that are complete in one stream and not in all, by stream."""
    for path, dataset in streams.items():
        more = sorted(_written_labels(dataset).difference(samples))
        if more:
            told = nonfinite.listed([f"image {image} step {step}" for image, step in more])
            yield f"{path}: {len(more)} samples left out that other streams lack: {told}"


def _find(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    known = (IMAGE_STREAM, TEXT_STREAM, UNIFIED_STREAM)
    streams = {path: groups[path] for path in known if path in groups}
    if not streams or (IMAGE_STREAM in streams) != (TEXT_STREAM in streams):
        raise MissingError(
            problem(
                f"needs {IMAGE_STREAM} with {TEXT_STREAM}, or {UNIFIED_STREAM}",
                found=", ".join(groups) or "nothing",
                remedy="ingest an adaround_cache folder, or cache blocks",
            )
        )
    for path, dataset in streams.items():
        if "timestep" not in dataset.coords:
            raise MissingError(problem("no coordinate 'timestep' here", where=path))
        _check_all_blocks(path, dataset)
    return streams


def _check_all_blocks(path: str, dataset: xr.Dataset) -> None:
    """Files name blocks by their number, so none may be missing before another."""
    if "boundary" not in dataset.coords:
        return
    labels = [int(label) for label in dataset["boundary"].values]
    if labels != list(range(len(labels))):
        found = f"boundaries {', '.join(map(str, labels))}"
        remedy = "cache every block into another store"
        raise MissingError(problem("only some blocks here", where=path, found=found, remedy=remedy))


def _complete_samples(streams: Streams) -> list[tuple[int, int]]:
    """Labels (image, step) that are complete in every stream, in order of image, then step."""
    complete = [_written_labels(dataset) for dataset in streams.values()]
    return sorted(set.intersection(*complete))


def _written_labels(dataset: xr.Dataset) -> set[tuple[int, int]]:
    grid = [(int(i), int(s)) for i in dataset["image"].values for s in dataset["step"].values]
    if "written" not in dataset.coords:
        return set(grid)
    flags = dataset["written"].transpose("image", "step").values.ravel()
    return {label for label, flag in zip(grid, flags, strict=True) if flag}


def _jobs(
    streams: Streams, samples: list[tuple[int, int]], folder: Path, shapes: dict[str, Any]
) -> Iterator[Callable[[], None]]:
    """One writing job per sample; `shapes` is filled from the first."""
    for image, step in samples:
        loaded = {
            path: dataset.sel(image=image, step=step).compute() for path, dataset in streams.items()
        }
        arrays = _sample_arrays(loaded)
        if not shapes:
            shapes.update(_block_shapes(_blocks(loaded), arrays))
        yield partial(save_npz, folder / f"{image:04d}_{step:03d}.npz", arrays)


def _sample_arrays(loaded: Streams) -> dict[str, np.ndarray]:
    """Members of one sample's file, in the order the blocks ran."""
    arrays: dict[str, np.ndarray | None] = {}
    streams = {site_of(path): _Residual(sample) for path, sample in loaded.items()}
    for block in _blocks(loaded):
        residuals = {name: streams[name] for name in block.streams}
        arrays |= {block.input_key(n): r.before(block.index) for n, r in residuals.items()}
        arrays[block.timestep_key] = _timesteps(residuals[block.streams[0]].sample)
        arrays |= {block.output_key(n): r.after(block.index) for n, r in residuals.items()}
    sigmas = {
        path: sample["sigma"].values
        for path, sample in loaded.items()
        if "sigma" in sample.coords and np.isfinite(sample["sigma"].values)
    }
    if sigmas:
        arrays["__sigma__"] = np.atleast_1d(agreed("sigma of a sample", sigmas))
    return {name: array for name, array in arrays.items() if array is not None}


def _blocks(streams: Streams) -> tuple[Block, ...]:
    """Blocks in the order they ran, those that have an output in a stream of theirs."""
    multimodal, unified = (
        _Residual(streams[path]).blocks if path in streams else 0
        for path in (IMAGE_STREAM, UNIFIED_STREAM)
    )
    return model_blocks(multimodal, unified)


def _timesteps(sample: xr.Dataset) -> np.ndarray:
    """What the block was given: the raw timestep, once per row."""
    return np.repeat(sample["timestep"].values, sample.sizes["row"])


def _block_shapes(
    blocks: Sequence[Block], arrays: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    def shapes(keys: Sequence[str]) -> list[Any]:
        return [list(arrays[key].shape) if key in arrays else None for key in keys]

    return {
        block.name: {
            "arg_shapes": shapes([*map(block.input_key, block.streams), block.timestep_key]),
            "kwarg_shapes": {"positional_encodings": None},
            "output_shapes": shapes([*map(block.output_key, block.streams)]),
        }
        for block in blocks
    }


def _pooled_jobs(dataset: xr.Dataset, folder: Path) -> Iterator[Callable[[], None]]:
    for position, image in enumerate(dataset["image"].values):
        path = folder / f"{int(image):04d}.npz"
        pooled = dataset["pooled_conditioning"].isel(image=position).load()
        values = pooled.transpose("row", "pooled_channel").values
        yield partial(save_npz, path, {"pooled": values})


def _run(
    groups: Mapping[str, xr.Dataset],
    streams: Streams,
    shapes: Mapping[str, Any],
    images: Collection[int],
) -> dict[str, Any]:
    """Fields about model and run: the source's own where the store kept them."""
    return {
        "format": FORMAT,
        "block_names": list(shapes),
        "n_mm_blocks": sum(not Block.parse(name).unified for name in shapes),
        "n_uni_blocks": sum(Block.parse(name).unified for name in shapes),
        "block_shapes": dict(shapes),
        **_trajectory(groups, images),
        **common({path: attribute_of(dataset, METADATA, {}) for path, dataset in streams.items()}),
    }


def _contents(samples: list[tuple[int, int]]) -> dict[str, Any]:
    """Fields about the samples that were written."""
    return {
        "n_samples": len(samples),
        "samples": [
            {"img_idx": image, "step_idx": step, "file": f"{image:04d}_{step:03d}.npz"}
            for image, step in samples
        ],
        "selected_image_ids": sorted({image for image, _ in samples}),
        "key_timesteps": sorted({step for _, step in samples}),
    }


def _latents_of(groups: Mapping[str, xr.Dataset], images: Collection[int]) -> xr.Dataset | None:
    """Latents of these images, where the store has them."""
    if LATENTS not in groups:
        return None
    latents = groups[LATENTS]
    return latents.isel(image=np.flatnonzero(np.isin(latents["image"].values, list(images))))


def _trajectory(groups: Mapping[str, xr.Dataset], images: Collection[int]) -> dict[str, Any]:
    """Guidance and number of steps, from the latents of the same store."""
    latents = _latents_of(groups, images)
    if latents is None:
        return {}
    steps = int((~latents["is_final"].values.astype(bool)).sum())
    return {**guidance_of(latents, "cfg_weight"), "num_steps": steps}
