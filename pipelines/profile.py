"""Profile: post-GELU diagnostics of a store, collected first where they are missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from taqstore.names import ACTIVATIONS, LATENTS
from taqstore.plot.draw import draw
from taqstore.statistics.observation import MANTISSA_BITS
from taqstore.store.reader import Store, open_store

from .collect.collect import collect
from .run.live import Mode, Progress

KINDS = ("summary", "range", "histogram", "channels", "heatmap", "negative")
SITE = "mlp.fc2"
GROUP = f"{ACTIVATIONS}/{SITE}"


@dataclass
class Profile:
    """Files written, and notes on what was done or passed over."""

    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def profile(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: Iterable[int] | None = None,
    stride: int = 2,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_progress: Progress | None = None,
) -> Profile:
    """Print the summary table of post-GELU tensors and draw the five figures into `out`.

    Parameters
    ----------
    images, stride, model, local_ckpt
        As of `collect`, which runs only for latents that have no statistics yet.
    on_start, on_progress
        As of `live.Mode`.

    Raises
    ------
    TaqError
        There is nothing to draw, or statistics are missing and the model cannot run.
    """
    result, opened = Profile(), open_store(store)
    chosen = None if images is None else tuple(images)
    if _lacking(opened, chosen):
        result.notes += collect(
            store,
            images=chosen,
            stride=stride,
            sites=[SITE],
            histogram_bits=_histogram_bits(opened),
            images_per_batch=opened[GROUP].sizes["slot"] if GROUP in opened else 1,
            model=model,
            local_ckpt=local_ckpt,
            mode=Mode(resume=True, on_start=on_start, on_progress=on_progress),
        ).notes
        opened = open_store(store)
    group = GROUP if GROUP in opened else None
    for kind in KINDS:
        written, notes = draw(kind, opened, Path(out), group=group)
        result.written += written
        result.notes += notes
    return result


def _lacking(store: Store, images: tuple[int, ...] | None) -> bool:
    """Whether there are latents whose post-GELU statistics are not complete."""
    if LATENTS not in store:
        return False
    wanted = store[LATENTS]["image"].values if images is None else np.array(images)
    if GROUP not in store:
        return True
    return not np.isin(wanted, store[GROUP]["image"].values).all()


def _histogram_bits(store: Store) -> int:
    if GROUP not in store:
        return MANTISSA_BITS
    return int(store[GROUP]["histogram"].attrs["mantissa_bits"])
