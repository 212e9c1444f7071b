"""Source folders written by hand with NumPy, and an in-memory stand-in for the store's writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from taqstore.pipelines.sources.parts.plan import Inexact, Plan

from taqstore.errors import SourceError
from taqstore.layout.template import Template


@dataclass
class Written:
    """What a plan put: whole arrays by (group, name), flags by group, every problem's text.

    Holds the writer's rules: aligned starts, exact shapes and dtypes, each shard once.
    """

    templates: Mapping[str, Template]
    arrays: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    flags: dict[str, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    shards: set[tuple[str, str, tuple[int, ...]]] = field(default_factory=set)

    def put(
        self,
        group: str,
        name: str,
        start: tuple[int, ...],
        values: np.ndarray | Iterable[np.ndarray],
    ) -> None:
        template = self.templates[group]
        array = template.array(name)
        full, shard = template.shape(array), template.shard_shape(array)
        assert len(start) == len(full)
        assert all(s % n == 0 and s < size for s, n, size in zip(start, shard, full, strict=True))
        expected = tuple(min(n, size - s) for s, n, size in zip(start, shard, full, strict=True))
        if not isinstance(values, np.ndarray):
            axis = array.dims.index(str(array.split))
            chunks = [chunk.copy() for chunk in values]
            assert all(chunk.shape[axis] == 1 for chunk in chunks)
            values = np.concatenate(chunks, axis=axis)
        assert values.shape == expected
        assert values.dtype == np.dtype(array.dtype)
        assert (group, name, start) not in self.shards
        self.shards.add((group, name, start))
        region = tuple(slice(s, s + n) for s, n in zip(start, expected, strict=True))
        self.arrays[group, name][region] = values


def run(plan: Plan) -> Written:
    """Carry out a plan as the ingest pipeline does, in memory."""
    written = Written({t.path: t for t in plan.templates})
    for template in plan.templates:
        for array in template.arrays:
            shape = template.shape(array)
            written.arrays[template.path, array.name] = np.full(shape, array.fill, array.dtype)
        written.flags[template.path] = np.zeros(
            [template.sizes[d] for d in template.item_dims], bool
        )
    written.problems += [p.text for p in plan.problems]
    for unit in plan.units:
        assert unit.nbytes > 0
        try:
            found = [problem for part in unit.parts for problem in part(written.put)]
        except Inexact:
            raise
        except SourceError as error:
            written.problems.append(str(error))
            continue
        bad = {(p.group, p.item) for p in found}
        written.problems += [p.text for p in found]
        for group, items in unit.items.items():
            for item in items:
                assert not written.flags[group][item], "an item belongs to two units"
                written.flags[group][item] = (group, item) not in bad
    return written


def one_line(message: str) -> str:
    """The message, which must be one line of reasonable length."""
    assert "\n" not in message
    assert 10 < len(message) < 900
    return message


def dump(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def edit_npz(path: Path, *, drop: tuple[str, ...] = (), **changes: Any) -> None:
    """Write an npz again with some arrays changed, added or dropped."""
    with np.load(path, allow_pickle=True) as file:
        arrays = {key: file[key] for key in file.files if key not in drop}
    np.savez_compressed(path, **{**arrays, **changes})


STEPS = 3
SIGMAS = np.array([1.0, 0.7072784304618835, 0.008928571827709675, 0.0], np.float32)
TIMESTEPS = (SIGMAS * 1000).astype(np.float16)
IMAGES = (4, 0, 12)


def latents_run(folder: Path, *, images: tuple[int, ...] = IMAGES) -> dict[int, np.ndarray]:
    """A `calibration_data` folder of 3 model calls; returns x by image id."""
    rng = np.random.default_rng(20)
    (folder / "samples").mkdir(parents=True)
    (folder / "latents").mkdir()
    truth = {}
    for image in images:
        x = rng.normal(size=(STEPS + 1, 1, 5, 3, 4)).astype(np.float32) * np.float32(1e3)
        x[0, 0, 0, 0, :3] = (-0.0, 1e-42, 3.4e38)  # negative zero, a subnormal, near the largest
        truth[image] = x[:, 0]
        for step in range(STEPS + 1):
            np.savez_compressed(
                folder / "samples" / f"{image:04d}_{step:03d}.npz",
                x=x[step],
                timestep=TIMESTEPS[step],
                sigma=SIGMAS[step],
                step_index=np.int32(step),
                image_id=np.int32(image),
                is_final=np.bool_(step == STEPS),
            )
        final = (x[-1] / np.float32(1.5305) + np.float32(0.0609)).astype(np.float16)
        np.save(folder / "latents" / f"{image:04d}.npy", final)
    dump(folder / "manifest.json", manifest(images))
    return truth


def manifest(images: tuple[int, ...] = IMAGES) -> dict[str, Any]:
    """A manifest whose list is in another order than the ids."""
    return {
        "num_steps": STEPS,
        "cfg_scale": 7.5,
        "prompt_path": "/Users/me/all prompts.csv",
        "images": [
            {
                "image_id": image,
                "prompt": f"prompt ünï {image}",
                "seed": 42 + image,
                "cfg_weight": 7.5,
                "num_steps": STEPS,
                "filename": f"{image:04d}.png",
                "latent_filename": f"{image:04d}.npy",
            }
            for image in images
        ],
    }


BLOCKS = 3
CACHE_STEPS = (0, 5)


def block_cache(folder: Path, *, images: tuple[int, ...] = (7, 2)) -> dict[Any, np.ndarray]:
    """An `adaround_cache` of 3 blocks; returns `(stream, image, step) -> list of boundaries`."""
    rng = np.random.default_rng(21)
    (folder / "samples").mkdir(parents=True)
    truth: dict[Any, Any] = {}
    for image in images:
        for step in CACHE_STEPS:
            img = [rng.normal(size=(2, 6, 1, 4)).astype(np.float32) for _ in range(BLOCKS + 1)]
            txt = [rng.normal(size=(2, 3, 1, 4)).astype(np.float32) for _ in range(BLOCKS)]
            img[0] = img[0].astype(np.float16)
            truth["img", image, step], truth["txt", image, step] = img, txt
            arrays = {}
            for i in range(BLOCKS):
                arrays[f"mm{i}__arg0"], arrays[f"mm{i}__arg1"] = img[i], txt[i]
                arrays[f"mm{i}__arg2"] = np.full(2, 1000 - 100 * step, np.float16)
                arrays[f"mm{i}__out0"] = img[i + 1]
                if i < BLOCKS - 1:
                    arrays[f"mm{i}__out1"] = txt[i + 1]
            np.savez_compressed(folder / "samples" / f"{image:04d}_{step:03d}.npz", **arrays)
    dump(folder / "metadata.json", cache_metadata(images))
    return truth


def cache_metadata(images: tuple[int, ...]) -> dict[str, Any]:
    samples = [
        {"img_idx": image, "step_idx": step, "file": f"{image:04d}_{step:03d}.npz"}
        for image in sorted(images)
        for step in CACHE_STEPS
    ]
    return {
        "format": "adaround_cache_v1",
        "block_names": [f"mm{i}" for i in range(BLOCKS)],
        "n_samples": len(samples),
        "samples": samples,
        "calib_dir": "C:\\runs\\calibration_data",
    }


STAT_STEPS = (0, 3, 10)
WIDTHS = {"attn.q_proj": 4, "attn.k_proj": 4, "attn.v_proj": 4, "attn.o_proj": 4,
          "mlp.fc1": 4, "mlp.fc2": 9}  # fmt: skip


def layer_names(blocks: int = 2) -> list[str]:
    """Linears of a small model, the last text block without FFN, in an order nobody sorts by."""
    names = [f"mm{i}.{s}.{p}" for i in range(blocks) for s in ("txt", "img") for p in WIDTHS]
    missing = {f"mm{blocks - 1}.txt.{p}" for p in ("attn.o_proj", "mlp.fc1", "mlp.fc2")}
    return [name for name in names if name not in missing][::-1]


def activations_run(
    folder: Path, *, schema: str = "per_timestep_npz_v2", bins: int = 8
) -> tuple[dict[int, dict[str, np.ndarray]], dict[int, dict[str, Any]]]:
    """An `activations` folder; returns arrays and index entries by step."""
    rng = np.random.default_rng(22)
    first = schema == "activation_stats_v1"
    arrays: dict[int, dict[str, np.ndarray]] = {}
    indexes: dict[int, dict[str, Any]] = {}
    (folder / "timestep_stats").mkdir(parents=True)
    for step in STAT_STEPS:
        arrays[step], indexes[step] = {}, {}
        for name in layer_names():
            part = name.split(".", 2)[2]
            shared = np.random.default_rng([step, hash_name(name)])
            low, high = np.sort(shared.normal(size=(2, WIDTHS[part])).astype(np.float32), axis=0)
            own = {"avg_min": low.astype(np.float64), "avg_max": high.astype(np.float64)}
            has_shift = part == "mlp.fc2" and not first
            if has_shift:
                own["shift"] = ((low + high) / 2).astype(np.float64)
            if not first:
                own["hist_counts"] = rng.integers(0, 1 << 20, bins)
                edges = float(low.min()) - 0.1, float(high.max()) + 0.1
                own["hist_edges"] = np.linspace(*edges, bins + 1)
            raw = name.replace(".", "_")
            arrays[step] |= {f"{raw}__{key}": value for key, value in own.items()}
            entry = {
                "n_batches": 3,
                "tensor_absmax": float(max(-low.min(), high.max())),
                "tensor_min": float(low.min()),
                "tensor_max": float(high.max()),
                "has_shift": has_shift,
                "has_hist": True,
                "hist_p999": float(rng.normal()),
            }
            indexes[step][name] = entry | ({"shift_absmax": 0.1 + step} if has_shift else {})
        np.savez_compressed(folder / "timestep_stats" / f"step_{step}.npz", **arrays[step])
        dump(folder / "timestep_stats" / f"step_{step}_index.json", indexes[step])
    document = {
        "format": schema,
        "timestep_dir": "/Users/me/activations/timestep_stats",
        "sigma_map": {str(s): float(np.float32(1 - s / 11)) for s in STAT_STEPS},
        "step_keys": [str(s) for s in STAT_STEPS],
    }
    dump(folder / "layer_statistics.json", document)
    return arrays, indexes


def hash_name(name: str) -> int:
    """One number per tensor: q, k and v of a layer share it, as they read one tensor."""
    shared = name.replace("q_proj", "qkv").replace("k_proj", "qkv").replace("v_proj", "qkv")
    return int.from_bytes(shared.encode(), "little") % (1 << 61)
