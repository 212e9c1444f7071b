"""Steps of an `activations/` folder: indexes and npz files, checked against each other.

Two schemas share the file names: `per_timestep_npz_v2` (running means of extrema, shift, sampled
histograms) and `activation_stats_v1` (true extrema under the names `avg_*`). A third, without a
`format`, measured layer outputs and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taqstore.errors import SourceError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.names import array_key

from .json_fields import field, majority, read_document

V1, V2 = "activation_stats_v1", "per_timestep_npz_v2"
STATISTICS = "layer_statistics.json"
FOLDER = "timestep_stats"
# Stored name of each extremum: its name in the file.
EXTREMA = {
    V1: {"min": "avg_min", "max": "avg_max"},
    V2: {"avg_min": "avg_min", "avg_max": "avg_max"},
}
# Stored name, what an index entry must say for it to be there, dimension of its elements.
OPTIONAL = {
    "shift": ("has_shift", "channel"),
    "hist_counts": ("has_hist", "bin"),
    "hist_edges": ("has_hist", "edge"),
}
FLAGS = ("has_shift", "has_hist")
REQUIRED = ("tensor_absmax", "tensor_min", "tensor_max")
ROLLUPS = {
    **dict.fromkeys(REQUIRED, "<f8"),
    "n_batches": "<i8",
    **dict.fromkeys(FLAGS, "|b1"),
    **dict.fromkeys(("shift_absmax", "hist_p999", "hist_p99", "hist_p01", "hist_p001"), "<f8"),
}

_KINDS: dict[str, type] = {"<f8": float, "<i8": int, "|b1": bool}


@dataclass(frozen=True)
class Step:
    """One step's files: the index by layer name, and the arrays."""

    index: Mapping[str, Mapping[str, Any]]
    file: NpzFile


@dataclass(frozen=True)
class Run:
    """All steps of a folder; None where a step cannot be used."""

    schema: str
    folder: Path
    document: Mapping[str, Any]
    keys: tuple[int, ...]
    sigmas: tuple[float, ...]
    steps: tuple[Step | None, ...]
    errors: Mapping[int, str]

    @property
    def reference(self) -> Step:
        """The first usable step."""
        return next(step for step in self.steps if step is not None)


def check_schema(document: Mapping[str, Any], path: Path) -> str:
    """The document's schema; SourceError naming what it is if it is not taken."""
    schema = document.get("format")
    if schema in (V1, V2):
        return str(schema)
    if schema is None and "num_layers" in document and "num_prompts" in document:
        what = "statistics of layer outputs (no `format`), not of the inputs of linears"
        remedy = f"collect inputs; {V2} and {V1} are read"
        raise SourceError(problem(what, where=str(path), remedy=remedy))
    remedy = f"{V2} and {V1} are read"
    raise SourceError(problem("unknown format", where=str(path), found=repr(schema), remedy=remedy))


def scan(folder: Path) -> Run:
    """Read every index and every npz directory; a step that does not fit becomes an error.

    Raises
    ------
    SourceError
        Unknown schema, malformed `layer_statistics.json`, or no usable step.
    """
    path = folder / STATISTICS
    document = read_document(path)
    schema = check_schema(document, path)
    keys = _step_keys(document, path)
    sigma_map = field(document, "sigma_map", dict, where=str(path))
    steps: list[Step | None] = []
    sigmas, errors = [], {}
    for position, key in enumerate(keys):
        steps.append(None)
        sigmas.append(float("nan"))
        try:
            sigmas[-1] = field(sigma_map, str(key), float, where=f"{path}: sigma_map")
            steps[-1] = _load_step(folder / FOLDER, key, schema)
        except SourceError as error:
            errors[position] = str(error)
    if not any(steps):
        raise SourceError(next(iter(errors.values()), problem("no steps", where=str(path))))
    layers = majority(frozenset(step.index) for step in steps if step)
    for position, step in enumerate(steps):
        if step and frozenset(step.index) != layers:
            errors[position] = _other_layers(step, layers)
            steps[position] = None
    return Run(schema, folder, document, keys, tuple(sigmas), tuple(steps), errors)


def _step_keys(document: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    keys = field(document, "step_keys", list, where=str(path))
    texts = [str(key) for key in keys]
    good = all(t.isascii() and t.isdigit() and str(int(t)) == t for t in texts if len(t) < 10)
    if not texts or not good or any(len(t) > 9 for t in texts) or len(set(texts)) != len(texts):
        what = "step_keys are not distinct step indices"
        raise SourceError(problem(what, where=str(path), found=repr(keys)[:80]))
    return tuple(sorted(map(int, texts)))


def _load_step(folder: Path, key: int, schema: str) -> Step:
    path = folder / f"step_{key}_index.json"
    step = Step(read_document(path), NpzFile(folder / f"step_{key}.npz"))
    if not step.index:
        raise SourceError(problem("no layers", where=str(path)))
    needed: set[str] = set()
    for name, entry in step.index.items():
        where = f"{path}: {name}"
        if not isinstance(entry, dict):
            raise SourceError(problem("not an object", where=where))
        for key_, dtype in ROLLUPS.items():
            if key_ in entry or key_ in REQUIRED or key_ == "n_batches":
                field(entry, key_, _KINDS[dtype], where=where)
        needed.update(f"{array_key(name)}__{variable}" for variable in _held(entry, schema))
    missing = needed - set(step.file.names)
    if missing:
        what = "missing, though the index lists its layer"
        raise SourceError(problem(what, where=step.file.where(min(missing))))
    layers = {name.rpartition("__")[0] for name in step.file.names}
    strangers = layers.difference(map(array_key, step.index))
    if strangers:
        what = f"arrays of a layer {min(strangers)!r} that the index does not list"
        raise SourceError(problem(what, where=str(step.file.path)))
    return step


def _held(entry: Mapping[str, Any], schema: str) -> tuple[str, ...]:
    """Names, in the file, of the arrays an index entry promises."""
    optional = () if schema == V1 else (n for n, (flag, _) in OPTIONAL.items() if entry.get(flag))
    return (*EXTREMA[schema].values(), *optional)


def _other_layers(step: Step, layers: frozenset[str]) -> str:
    odd = sorted(layers.symmetric_difference(step.index))
    what = "its layers are not those of the other steps"
    return problem(what, where=str(step.file.path), found=f"{len(odd)} differ, such as {odd[0]}")
