"""What has to hold before two runs are made one: equal settings, different images, distinct ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from taqstore.asked import word_of
from taqstore.errors import LayoutError, TaqError, problem
from taqstore.names import MODEL_LAYERS, MODULATION, site_of
from taqstore.upkeep.merge_parts import Part, differences

Duplicates = Literal["refuse", "skip", "keep"]

# Variables that are equal throughout only where the same images were seen: observations, sums.
_TELLING = (("tensor_min", "tensor_max"), ("channel_sum", "count"))
# What these layers see is of the prompt and the step alone, and equal in images of other seeds.
_OF_THE_PROMPT = ("context_embedder", "y_embedder", "t_embedder", MODULATION)
_SILENT = {site for layer in _OF_THE_PROMPT for site in MODEL_LAYERS[layer]}


def check_alike(parts: Mapping[str, Sequence[Part]]) -> None:
    """Refuse runs of another layout, model or configuration.

    Raises
    ------
    LayoutError
        Groups differ; every field is named.
    """
    found = [
        f"{path}: {', '.join(fields)}"
        for path, (a, b) in parts.items()
        if (fields := differences(a.template, b.template))
    ]
    if found:
        what = f"the stores are not of one configuration: they differ in {'; '.join(found)}"
        raise LayoutError(problem(what, remedy="only runs that differ in their images merge"))


def numbered(
    parts: Mapping[str, Sequence[Part]], renumber: bool, duplicates: Duplicates, *, least: int = 0
) -> tuple[dict[str, tuple[Part, Part]], int]:
    """Parts without skipped duplicates, the second's ids moved past the first's if asked.

    `least` is the least that they are then moved by.

    Returns
    -------
    The parts by group, and what was added to the second's ids.

    Raises
    ------
    TaqError
        There are duplicates, or ids that collide.
    """
    word_of(duplicates, ("refuse", "skip", "keep"), "duplicates")
    same = _duplicates(parts)
    if same and duplicates == "refuse":
        listed = ", ".join(map(str, sorted(same)[:8]))
        raise TaqError(
            problem(
                f"image {listed} of the second store is in the first too",
                remedy="--duplicates skip leaves it out, keep counts it twice",
            )
        )
    pairs = {path: (a, b) for path, (a, b) in parts.items()}
    if duplicates == "skip":
        pairs = {path: (a, b.taking(_fresh(path, b, same))) for path, (a, b) in pairs.items()}
    offset = 0
    if renumber:
        ids = (ids for a, _ in pairs.values() for ids in (a.images, a.labels))
        top = max((int(each.max(initial=-1)) for each in ids), default=-1)
        offset = max(top + 1, least)
        pairs = {path: (a, b.renumbered(offset)) for path, (a, b) in pairs.items()}
    for path, (a, b) in pairs.items():
        clash = np.intersect1d(a.labels, b.labels)
        if len(clash):
            listed = ", ".join(map(str, clash[:8]))
            what = f"both stores have {a.grows} {listed}"
            raise TaqError(problem(what, where=path, remedy="--renumber, if they are other images"))
    return pairs, offset


def _fresh(path: str, part: Part, same: set[int]) -> np.ndarray:
    """Mask of the items that hold other images than the duplicates."""
    taken = part.images < 0
    double = np.isin(part.images, sorted(same)) | taken
    some = (double & ~taken).any(axis=1)
    if (some & ~double.all(axis=1)).any():
        raise TaqError(problem("a batch holds duplicates and other images", where=path))
    return np.asarray(~some)


def _duplicates(parts: Mapping[str, Sequence[Part]]) -> set[int]:
    """Image ids of the second store that show the same as one of the first's."""
    found: set[int] = set()
    for a, b in parts.values():
        known = set(_identities(a))
        same = np.array([identity in known for identity in _identities(b)], bool)
        if len(same):
            found |= {int(i) for i in b.images[same].ravel() if i >= 0}
    return found


def _identities(part: Part) -> Iterable[Any]:
    """What makes an item itself, whatever its number; nothing where the group does not tell."""
    coords = part.template.coords
    if {"prompt", "seed"} <= set(coords):
        told = [name for name in ("prompt", "seed", "cfg_weight") if name in coords]
        return list(zip(*(coords[name][1].tolist() for name in told), strict=True))
    there = {array.name for array in part.template.arrays}
    names = next((names for names in _TELLING if there.issuperset(names)), None)
    if names is None or site_of(part.template.path) in _SILENT:
        return []
    columns = [part.array(name).read((part.places,)) for name in names]
    return [tuple(column[i].tobytes() for column in columns) for i in range(len(part.places))]
