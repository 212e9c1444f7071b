"""Latents of merged runs, which go on growing: images keep what made them, new ones are added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taqstore.errors import TaqError, problem
from taqstore.names import LATENTS
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import open_store
from taqstore.store.writer import StoreWriter

from .groups import RUN

_SEED = "seed"


def merged_images(writer: StoreWriter) -> dict[int, tuple[str, int]]:
    """Prompt and seed of each whole image, by id, where no single run gives these; else nothing."""
    store = open_store(writer.location)
    if LATENTS not in store:
        return {}
    latents = store[LATENTS]
    run: Mapping[str, Any] = attribute_of(latents, RUN, {})
    told = (latents[name].values.tolist() for name in ("image", "prompt", "seed"))
    found = {int(i): (str(p), int(s)) for i, p, s in zip(*told, strict=True)}
    first = run.get(_SEED)
    alone = first is not None and all(seed == first + image for image, (_, seed) in found.items())
    return {} if alone or not run else found


def as_merged(run: dict[str, Any], stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """A configuration without what merged runs do not share: the seed of the first image."""
    if stored is None or _SEED in stored:
        return run
    return {name: value for name, value in run.items() if name != _SEED}


def refuse_again(made: Mapping[int, tuple[str, int]], asked: Mapping[int, tuple[str, int]]) -> None:
    """Refuse to make an image a second time under another id.

    Raises
    ------
    TaqError
        A new image has prompt and seed of one that is there.
    """
    known = {identity: image for image, identity in made.items()}
    for image, identity in asked.items():
        if image not in made and identity in known:
            what = f"image {image} would be image {known[identity]} again: prompt and seed are its"
            raise TaqError(problem(what, remedy="give another --seed"))
