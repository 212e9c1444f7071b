"""Which images are judged: prompts and seeds beyond those of the store, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ..models.table import ModelRow, resolve


@dataclass(frozen=True)
class Asked:
    """Images to judge by.

    Parameters
    ----------
    images
        Their numbers in `trajectories/float`.
    prompts, seeds
        What each is made from.
    cfg_weight
        Guidance weight of all.
    """

    images: tuple[int, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    cfg_weight: float

    def identity(self, place: int) -> tuple[str, int, float]:
        """What makes the image at a place itself, whatever its number."""
        return self.prompts[place], self.seeds[place], self.cfg_weight


def held_out_prompts(
    row: ModelRow, count: int, texts: Sequence[str], *, seed: int, stored: Sequence[str] = ()
) -> list[str]:
    """Prompts of images that are made to be judged.

    Parameters
    ----------
    texts
        Of a file; none: the model's own, and of a model that makes none those of the store.
    seed
        Of the model's own; of more prompts, the first are the same.
    stored
        Prompts of the store.
    """
    if not texts and row.prompts:
        return list(resolve(row.prompts)(count, seed=seed))
    turns = list(texts) or list(dict.fromkeys(stored))
    return [turns[index % len(turns)] for index in range(count)]


def asked_images(
    row: ModelRow,
    count: int,
    texts: Sequence[str],
    *,
    latents: xr.Dataset,
    kept: xr.Dataset | None,
) -> Asked:
    """So many images: seeds go on after the store's largest, so none is an image of the store.

    Parameters
    ----------
    latents
        Group `latents`.
    kept
        What `trajectories/float` lists, whole or not: a pair of prompt and seed that is there keeps
        its number, others go on after the largest.
    """
    first = int(latents["seed"].values.max()) + 1
    stored = [str(text) for text in latents["prompt"].values]
    prompts = held_out_prompts(row, count, texts, seed=first, stored=stored)
    weight = float(latents["cfg_weight"].values[0])
    seeds = [first + place for place in range(count)]
    asked = Asked(tuple(range(count)), tuple(prompts), tuple(seeds), weight)
    return numbered(asked, latents, kept)


def numbered(asked: Asked, latents: xr.Dataset, kept: Any) -> Asked:
    """The same images, with the numbers they have in a group, or get there.

    Parameters
    ----------
    latents
        Group `latents`, whose images have other numbers.
    kept
        What the group lists, whole or not; None: there is none yet.
    """
    known = {} if kept is None else numbers_of(kept)
    following = 1 + max([int(latents["image"].values.max()), *known.values()])
    images = []
    for place in range(len(asked.prompts)):
        number = known.get(asked.identity(place))
        if number is None:
            number, following = following, following + 1
        images.append(number)
    return replace(asked, images=tuple(images))


def numbers_of(kept: Any) -> dict[tuple[str, int, float], int]:
    """Image number of each prompt, seed and guidance weight of a group."""
    told = (np.asarray(kept[name][...]).tolist() for name in _IDENTITY)
    images = np.asarray(kept["image"][...]).tolist()
    return {
        (str(prompt), int(seed), float(weight)): int(image)
        for prompt, seed, weight, image in zip(*told, images, strict=True)
    }


_IDENTITY = ("prompt", "seed", "cfg_weight")
