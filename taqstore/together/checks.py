"""What has to hold before several runs are one: equal settings, different images, distinct ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from taqstore.asked import word_of
from taqstore.errors import LayoutError, TaqError, problem
from taqstore.names import MODEL_LAYERS, MODULATION, site_of
from taqstore.together.parts import Part, differences

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
        Groups differ; the stores and every field are named.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for path, (first, *others) in parts.items():
        for other in others:
            if fields := differences(first.template, other.template):
                pair = first.store, other.store
                found.setdefault(pair, []).append(f"{path}: {', '.join(fields)}")
    if found:
        told = [
            f"{first} and {other} are not of one configuration: they differ in {'; '.join(each)}"
            for (first, other), each in found.items()
        ]
        raise LayoutError(
            problem(". ".join(told), remedy="only runs that differ in their images merge")
        )


class Known:
    """What tells each image or batch from others, of all parts that were seen."""

    def __init__(self) -> None:
        self._first: dict[str, dict[Any, str]] = {}

    def doubles(self, parts: Mapping[str, Part], *, trust: bool) -> tuple[set[int], str]:
        """Image ids of one more store that show what an earlier one has, and which one has it.

        Parameters
        ----------
        trust
            Leave observations unread of images whose prompts and seeds the store has.
        """
        found, where = set[int](), ""
        told = [part.images for part in parts.values() if trust and _has_prompts(part)]
        for path, part in parts.items():
            known = self._first.setdefault(path, {})
            if not _has_prompts(part) and any(_covers(images, part.images) for images in told):
                continue
            each = _identities(part)
            same = [known.get(one, "") for one in each]
            where = where or next(filter(None, same), "")
            if any(same):
                images = part.images[np.array([bool(one) for one in same])]
                found |= {int(i) for i in images.ravel() if i >= 0}
            for one in each:
                known.setdefault(one, part.store)
        return found, where


def without_doubles(
    parts: Mapping[str, Part], same: set[int], where: str, duplicates: Duplicates
) -> dict[str, Part]:
    """Parts of one store without images that an earlier store has too, if they are to be skipped.

    Parameters
    ----------
    same, where
        What `Known.doubles` found.

    Raises
    ------
    TaqError
        There are some, and they are to be refused.
    """
    word_of(duplicates, ("refuse", "skip", "keep"), "duplicates")
    if same and duplicates == "refuse":
        images = ", ".join(map(str, sorted(same)[:8]))
        store = next(iter(parts.values())).store
        remedy = "--duplicates skip leaves it out, keep counts it twice"
        raise TaqError(problem(f"image {images} of {store} is in {where} too", remedy=remedy))
    if duplicates != "skip":
        return dict(parts)
    return {path: part.taking(_fresh(path, part, same)) for path, part in parts.items()}


def first_free(parts: Iterable[Part]) -> int:
    """The least number that no image and no batch of the parts has, nor a larger one."""
    numbers = (each for part in parts for each in (part.images, part.labels))
    return 1 + max((int(each.max(initial=-1)) for each in numbers), default=-1)


def check_distinct(path: str, earlier: Sequence[Part], part: Part) -> None:
    """Refuse a part whose numbers an earlier one has.

    Raises
    ------
    TaqError
        Both stores are named.
    """
    for other in earlier:
        clash = np.intersect1d(other.labels, part.labels)
        if len(clash):
            numbers = ", ".join(map(str, clash[:8]))
            what = f"both {other.store} and {part.store} have {part.grows} {numbers}"
            raise TaqError(problem(what, where=path, remedy="--renumber, if they are other images"))


def _fresh(path: str, part: Part, same: set[int]) -> np.ndarray:
    """Mask of the items that hold other images than the duplicates."""
    taken = part.images < 0
    double = np.isin(part.images, sorted(same)) | taken
    some = (double & ~taken).any(axis=1)
    if (some & ~double.all(axis=1)).any():
        raise TaqError(problem("a batch holds duplicates and other images", where=path))
    return np.asarray(~some)


def _identities(part: Part) -> Sequence[Any]:
    """What makes an item itself, whatever its number; nothing where the group does not tell."""
    coords = part.template.coords
    if _has_prompts(part):
        told = [name for name in ("prompt", "seed", "cfg_weight") if name in coords]
        return list(zip(*(coords[name][1].tolist() for name in told), strict=True))
    there = {array.name for array in part.template.arrays}
    names = next((names for names in _TELLING if there.issuperset(names)), None)
    if names is None or site_of(part.template.path) in _SILENT:
        return []
    columns = [part.array(name).read((part.places,)) for name in names]
    # A digest: extrema of all steps and layers, of every batch of every store, would fill memory.
    return [
        sha256(b"".join(column[i].tobytes() for column in columns)).digest()
        for i in range(len(part.places))
    ]


def _has_prompts(part: Part) -> bool:
    return {"prompt", "seed"} <= set(part.template.coords)


def _covers(images: np.ndarray, others: np.ndarray) -> bool:
    """Whether all of some images, empty slots left out, are among others."""
    return bool(np.isin(others[others >= 0], images).all())
