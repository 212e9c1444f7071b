"""`manifest.json` of a run: prompt, seed and guidance of every image, by image id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taqstore.errors import SourceError
from taqstore.files.refusal import problem

from .json_fields import checked_text, field, read_document

MANIFEST = "manifest.json"
MINIMAL = (
    '{"num_steps": 50, "images": '
    '[{"image_id": 0, "prompt": "a cat", "seed": 42, "cfg_weight": 7.5}]}'
)
FIELDS = ("image_id", "prompt", "seed", "cfg_weight", "num_steps", "filename", "latent_filename")


@dataclass(frozen=True)
class Entry:
    """One image: its prompt, the seed of its noise, its guidance weight."""

    prompt: str
    seed: int
    cfg_weight: float


@dataclass(frozen=True)
class Manifest:
    """A manifest, entry by entry.

    Parameters
    ----------
    document
        The JSON object as it is.
    steps
        Model calls per image; there is one more file, the result.
    entries
        Good entries by image id.
    errors
        Why an image id has no good entry.
    extra
        Fields of entries that the format does not know, and known ones with unusual values.
    """

    document: Mapping[str, Any]
    steps: int
    entries: Mapping[int, Entry]
    errors: Mapping[int, str]
    extra: tuple[str, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Image ids that the manifest names, good or not."""
        return (*self.entries, *self.errors)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder.

    Raises
    ------
    SourceError
        It is missing, not JSON, without `num_steps` or `images`, or an entry has no image id.
    """
    path = folder / MANIFEST
    if not path.exists():
        what = "prompts and seeds of the samples are unknown without it"
        remedy = f"write at least {MINIMAL}"
        raise SourceError(problem(what, where=f"{path} is missing", remedy=remedy))
    document = read_document(path)
    steps = field(document, "num_steps", int, where=str(path))
    if not 0 < steps < 100_000:
        raise SourceError(problem("num_steps is no number of steps", where=str(path)))
    listed = field(document, "images", list, where=str(path))
    ids = [_image_id(entry, f"{path}: images[{i}]") for i, entry in enumerate(listed)]
    counts = Counter(ids)
    entries, errors = {}, {}
    for image, entry in zip(ids, listed, strict=True):
        where = f"{path}: image {image}"
        try:
            if counts[image] > 1:
                what = f"image_id {image} is there {counts[image]} times"
                raise SourceError(problem(what, where=str(path), remedy="keep the true entry"))
            entries[image] = _entry(entry, steps, where)
        except SourceError as error:
            errors[image] = str(error)
    extra = sorted({name for entry in listed for name in _extra(entry)})
    return Manifest(document, steps, entries, errors, tuple(extra))


def _image_id(entry: Any, where: str) -> int:
    if not isinstance(entry, dict):
        raise SourceError(problem("not an object", where=where))
    image = field(entry, "image_id", int, where=where)
    if not 0 <= image < 10**9:
        raise SourceError(problem("image_id is out of range", where=where, found=str(image)))
    return image


def _entry(entry: Mapping[str, Any], steps: int, where: str) -> Entry:
    if entry.get("num_steps", steps) != steps:
        what = f"num_steps is not the run's {steps}"
        found = repr(entry["num_steps"])
        raise SourceError(problem(what, where=where, found=found, remedy="generate it again"))
    return Entry(
        checked_text(field(entry, "prompt", str, where=where), where=where),
        field(entry, "seed", int, where=where),
        field(entry, "cfg_weight", float, where=where),
    )


def _extra(entry: Mapping[str, Any]) -> set[str]:
    """Fields that cannot be written again from what is stored."""
    image = int(entry["image_id"])
    usual = {"filename": f"{image:04d}.png", "latent_filename": f"{image:04d}.npy"}
    odd = {name for name, value in usual.items() if entry.get(name, value) != value}
    return odd | (set(entry) - set(FIELDS))
