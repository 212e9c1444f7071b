"""Which sources lie at a path, judged by content: file names only say where to look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taqstore.errors import SourceError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.names import is_block_key

from . import block_cache, manifest, postgelu, timestep_run
from . import latents as calibration_samples
from . import schedule as schedules
from .json_fields import read_document

ACCEPTED = (
    "a calibration_data folder or its samples, adaround_cache or activations part, "
    "DiT_cali_data.npz, activation_stats_postgelu.npz, a poly_v1 or lut_v1 schedule"
)


@dataclass(frozen=True)
class Source:
    """A source that was found: its kind (a key of `SOURCES`) and the folder or file to plan."""

    kind: str
    path: Path


def detect(path: Path) -> list[Source]:
    """Sources at `path`, a folder or a file; those of a folder's direct subfolders too.

    Raises
    ------
    SourceError
        Nothing there, or nothing that is known; the message says what it is and what is accepted.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise SourceError(problem("does not exist", where=str(path), remedy="check the path"))
    return [_npz(path) if path.suffix == ".npz" else _json(path)]


def _in_folder(path: Path) -> list[Source]:
    """Parts of a run; else the known files; else the run that this is a subfolder of."""
    subfolders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    found = _parts(path)
    found += [s for folder in subfolders for s in _parts(folder) if s.kind != "latents"]
    if found:
        return sorted(found, key=lambda source: _ORDER.index(source.kind))
    if path.name in (calibration_samples.FOLDER, timestep_run.FOLDER):
        found = _parts(path.parent)
        if found:
            return found
    unknown = ""
    for file in sorted(path.iterdir()):
        if file.suffix in (".npz", ".json"):
            try:
                found += detect(file)
            except SourceError as error:
                unknown = unknown or str(error)
    if not found:
        raise SourceError(
            unknown or problem("nothing to ingest here", where=str(path), remedy=f"give {ACCEPTED}")
        )
    return found


_ORDER = ("latents", "blocks", "activations")


def _parts(folder: Path) -> list[Source]:
    """Run parts whose own documents or samples lie directly in `folder`."""
    found = []
    cached = (folder / block_cache.METADATA).is_file()
    if cached:
        found.append(Source("blocks", folder))
    if (folder / timestep_run.STATISTICS).is_file():
        found.append(Source("activations", folder))
    if not cached and (folder / calibration_samples.FOLDER).is_dir():
        found.append(Source(_kind_of_samples(folder / calibration_samples.FOLDER), folder))
    return found


def _kind_of_samples(folder: Path) -> str:
    """Kind of a `samples` folder whose documents are missing or are a manifest: look into one."""
    for path in sorted(folder.glob("*.npz"))[:1]:
        try:
            if any(is_block_key(name) for name in NpzFile(path).names):
                return "blocks"
        except SourceError:
            break  # damaged: planning it says so
    return "latents"


def _npz(path: Path) -> Source:
    file = NpzFile(path)
    for kind, key in (("samples", "xs"), ("postgelu", postgelu.TIMESTEPS)):
        if key in file:
            return Source(kind, path)
    if {"x", "step_index"} <= set(file.names) or any(is_block_key(name) for name in file.names):
        remedy = f"give the folder, {path.parent.parent}"
        raise SourceError(problem("one sample of a run", where=str(path), remedy=remedy))
    found = f"keys {', '.join(file.names[:6])}"
    raise SourceError(
        problem("unknown npz", where=str(path), found=found, remedy=f"give {ACCEPTED}")
    )


def _json(path: Path) -> Source:
    document = read_document(path)
    named = document.get("format", document.get("version"))
    if named in (schedules.POLY, schedules.LUT):
        return Source("schedule", path)
    if named == block_cache.FORMAT:
        return Source("blocks", path.parent)
    if named in (timestep_run.V1, timestep_run.V2) or path.name == timestep_run.STATISTICS:
        return Source("activations", path.parent)
    if path.name == manifest.MANIFEST and "images" in document:
        return Source("latents", path.parent)
    raise SourceError(
        problem("unknown format", where=str(path), found=_name(named), remedy=f"give {ACCEPTED}")
    )


def _name(named: Any) -> str:
    return repr(named)[:80] if named is not None else "neither `format` nor `version`"
