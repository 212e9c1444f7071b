"""Ingest: a run folder into a new store, against reading the same files once with `np.load`."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .inputs import Inputs, remove
from .measure import Contender, Run
from .npz_folder import NpzFolder, member
from .question import Question
from .rows import Target

NPZ = "np.load of every member"
PEAK_LIMIT = 600e6

Digests = dict[tuple[Any, ...], Any]


def ingest_contenders(inputs: Inputs, kind: str) -> list[Contender]:
    """A new store each time, flushed to disk; the readers only read and drop what they read."""
    source = inputs.source(kind)
    target = inputs.folder / "ingested" / f"{kind}.zarr"

    def ours(workers: int | None) -> Contender:
        def setup() -> Run:
            from taqstore.pipelines.ingest import ingest

            def run(call: int) -> None:
                ingest([source], target, strict=True, workers=workers)

            return run

        name = "ingest" if workers is None else f"ingest, workers={workers}"
        return Contender(
            name,
            setup,
            ours=True,
            canonical=lambda answer: _IN_STORE[kind](target, inputs),
            prepare=lambda: remove(target),
        )

    files = inputs.source_files(kind)
    read = Contender(
        NPZ,
        lambda: lambda call: _read_all(files),
        canonical=lambda answer: _IN_FILES[kind](inputs),
        prepare=lambda: None,
    )
    return [ours(None), ours(1), read]


def _read_all(files: list[Path]) -> None:
    for path in files:
        with np.load(path) as file:
            for name in file.files:
                file[name]


def _digest(values: Any, dtype: str = "") -> int:
    array = np.asarray(values)
    return zlib.crc32(np.ascontiguousarray(array, dtype=dtype or array.dtype).tobytes())


def _latents_in_files(inputs: Inputs) -> Digests:
    found: Digests = {}
    for path in inputs.source_files("latents"):
        with np.load(path) as file:
            key = int(file["image_id"]), int(file["step_index"])
            clock = file["timestep"], file["sigma"]
            found[key] = _digest(file["x"]), *map(float, clock), bool(file["is_final"])
    return found


def _latents_in_store(store: Path, inputs: Inputs) -> Digests:
    from taqstore import open_store

    group = open_store(store, chunks=None)["latents"]
    clock = zip(group.timestep.values, group.sigma.values, group.is_final.values, strict=True)
    steps = [(float(t), float(s), bool(final)) for t, s, final in clock]
    return {
        (int(image), k): (_digest(group.x[i, k].values), *step)
        for i, image in enumerate(group.image.values)
        for k, step in enumerate(steps)
    }


_PARTS = ("avg_min", "avg_max", "shift", "hist_counts", "hist_edges")


def _statistics_in_files(inputs: Inputs) -> Digests:
    folder = NpzFolder(inputs.source("statistics"))
    found: Digests = {}
    for step in folder.steps:
        with np.load(folder.npz(step)) as file:
            present = set(file.files)
            for name in folder.linears:
                for part in _PARTS:
                    if member(name, part) in present:
                        found[step, name, part] = _digest(file[member(name, part)])
    return found


def _statistics_in_store(store: Path, inputs: Inputs) -> Digests:
    from taqstore import open_store

    opened = open_store(store, chunks=None)
    linears = NpzFolder(inputs.source("statistics")).linears
    found: Digests = {}
    for name in linears:
        group = opened.layer(name)
        for part in (p for p in _PARTS if p in group):
            original = group[part].attrs.get("original_dtype", group[part].dtype.str)
            values = group[part].values
            for step, row in zip(group.step.values, values, strict=True):
                found[int(step), name, part] = _digest(row, original)
    return found


def _blocks_in_files(inputs: Inputs) -> Digests:
    """Every residual stream, by where it lies: outputs under the boundary they lead to."""
    found: Digests = {}
    for path in inputs.source_files("blocks-24"):
        image, step = map(int, path.stem.split("_"))
        with np.load(path) as file:
            for key in file.files:
                block, slot = key.split("__")
                if slot == "arg2":
                    continue
                stream = "img" if slot.endswith("0") else "txt"
                boundary = int(block[2:]) + slot.startswith("out")
                place = (image, step, stream, boundary)
                digest = _digest(file[key])
                if found.setdefault(place, digest) != digest:
                    raise ValueError(f"{path}: {key} is not what the next block reads")
    return found


def _blocks_in_store(store: Path, inputs: Inputs) -> Digests:
    from taqstore import open_store

    opened = open_store(store, chunks=None)
    found: Digests = {}
    for stream in ("img", "txt"):
        x = opened[f"blocks/{stream}"].x
        for i, image in enumerate(x.image.values):
            for k, step in enumerate(x.step.values):
                for boundary in range(x.sizes["boundary"]):
                    key = (int(image), int(step), stream, boundary)
                    found[key] = _digest(x[i, k, boundary].values)
    return found


_IN_FILES: dict[str, Callable[[Inputs], Digests]] = {
    "latents": _latents_in_files,
    "statistics": _statistics_in_files,
    "blocks-24": _blocks_in_files,
}
_IN_STORE: dict[str, Callable[[Path, Inputs], Digests]] = {
    "latents": _latents_in_store,
    "statistics": _statistics_in_store,
    "blocks-24": _blocks_in_store,
}


def _question(kind: str, *, rounds: int) -> Question:
    judged = kind in ("latents", "statistics")
    return Question(
        f"ingest {kind}",
        lambda inputs: ingest_contenders(inputs, kind),
        lambda inputs: [inputs.source(kind)],
        {("ingest", NPZ): Target(1.0, at_least=False)} if judged else {},
        rounds=rounds,
        inverse=True,
        peak_limit=PEAK_LIMIT,
    )


INGEST = {
    "ingest-latents": _question("latents", rounds=5),
    "ingest-statistics": _question("statistics", rounds=3),
    "ingest-blocks": _question("blocks-24", rounds=3),
}
