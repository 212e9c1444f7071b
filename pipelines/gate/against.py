"""A gate beside the record of an earlier one: the same images, and which of the two is better."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, SourceError, problem
from taqstore.files.schema import validate
from taqstore.trajectory.bootstrap import Interval, paired_difference

from .record import BY_STEP, SCHEMA, as_float

_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Change:
    """A variant now, beside a variant of a record.

    Parameters
    ----------
    name, before
        The variant, and that of the record.
    cosine, latent_error, psnr
        Mean over images of now less before, with its interval.
    """

    name: str
    before: str
    cosine: Interval
    latent_error: Interval
    psnr: Interval

    @property
    def worse(self) -> bool:
        """Whether the mean cosine is below by more than chance explains, or no number any more."""
        return bool(self.cosine.upper < 0 or np.isnan(self.cosine.mean))


def read_record(path: Path) -> dict[str, Any]:
    """A record that `taqstore gate -o` wrote.

    Raises
    ------
    SourceError, DocumentError
        It is none.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        told = {"found": str(error), "remedy": "taqstore gate -o writes one"}
        raise SourceError(problem("no record of a gate", where=str(path), **told)) from error
    validate(SCHEMA, document, where=str(path))
    _check_whole(document, path)
    return document


def _check_whole(document: Mapping[str, Any], path: Path) -> None:
    """Refuse figures of other images or steps than the record says it has."""
    calls = len(document["schedule"]["sigmas"]) - 1
    for variant in document["variants"]:
        sizes = {len(image[figure]) for image in variant["images"] for figure in BY_STEP}
        found = f"{len(variant['images'])} images, {', '.join(map(str, sorted(sizes)))} steps"
        if len(variant["images"]) != len(document["images"]) or sizes != {calls}:
            what = f"no whole record of a gate: variant {variant['name']!r}"
            wanted = f"{len(document['images'])} images of {calls} steps are needed"
            raise SourceError(problem(f"{what}, {wanted}", where=str(path), found=found))


def check_comparable(now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Refuse records of other models, schedules or images.

    Raises
    ------
    MisuseError
        They differ in that.
    """
    for name, words in (("model", "models"), ("schedule", "schedules")):
        if now[name] != before[name]:
            both = dict.fromkeys([*now[name], *before[name]])
            keys = [key for key in both if now[name].get(key) != before[name].get(key)]
            found = f"they differ in {', '.join(keys) or name}"
            raise MisuseError(problem(f"the record is of other {words}", found=found))
    if _images(now) != _images(before):
        what = "the record is of other images: a comparison takes the same prompts and seeds"
        count = len(before["images"])
        raise MisuseError(problem(what, remedy=f"--seeds {count} and the same --prompts and store"))


def matched(names: Sequence[str], before: Mapping[str, Any]) -> dict[str, str]:
    """Names in the record by those of now: the same, or the one of a record beside the only one.

    Raises
    ------
    MisuseError
        None is in the record.
    """
    there = [variant["name"] for variant in before["variants"]]
    found = {name: name for name in names if name in there}
    if not found and len(set(there)) == len(set(names)) == 1:
        found = {names[0]: there[0]}
    if not found:
        raise MisuseError(problem("the record has none of these variants", found=", ".join(there)))
    return found


def changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[Change]:
    """Each variant beside that of the same name; one beside the one of a record, whatever its name.

    Raises
    ------
    MisuseError
        The two are not of the same images, or no variant is in both.
    """
    check_comparable(now, before)
    there = {variant["name"]: variant for variant in before["variants"]}
    names = matched([variant["name"] for variant in now["variants"]], before)
    return [
        _change(variant, there[names[variant["name"]]])
        for variant in now["variants"]
        if variant["name"] in names
    ]


def _change(now: Mapping[str, Any], before: Mapping[str, Any]) -> Change:
    def of(figure: str) -> Interval:
        return paired_difference(_column(now, figure), _column(before, figure))

    return Change(now["name"], before["name"], of("cosine"), of("error"), of("psnr"))


def _column(variant: Mapping[str, Any], figure: str) -> np.ndarray:
    """(image,): mean over steps of cosines, the final latent's error, PSNR."""
    rows = [image[figure] for image in variant["images"]]
    if figure == "psnr":
        return np.array([as_float(value) for value in rows])
    table = np.array([[as_float(value) for value in row] for row in rows])
    return np.asarray(table[:, -1] if figure == "error" else table.mean(axis=1))


def _images(record: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    return [(one["prompt"], one["seed"], one["cfg_weight"]) for one in record["images"]]
