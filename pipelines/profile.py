"""Profile: post-GELU diagnostics of a store, collected first where they are missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.names import ACTIVATIONS, LATENTS
from taqstore.run.extras import extra
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.progress import SILENT, Progress
from taqstore.statistics.observation import MANTISSA_BITS
from taqstore.store.reader import Store, open_store

from .collect.collect import collect

KINDS = ("summary", "range", "histogram", "channels", "heatmap", "negative")
SITE = "mlp.fc2"
GROUP = f"{ACTIVATIONS}/{SITE}"


def profile(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: Iterable[int] | None = None,
    stride: int = 2,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Outcome:
    """Print the summary table of post-GELU tensors and draw the five figures into `out`.

    Parameters
    ----------
    store, images, stride, model, local_ckpt
        As of `collect`, which runs only for latents that have no statistics yet.
    progress
        Told how far collecting is.

    Raises
    ------
    TaqError
        There is nothing to draw, or statistics are missing and the model cannot run.
    """
    outcome, opened = Outcome(), open_store(store)
    chosen = None if images is None else tuple(images)
    if _lacking(opened, chosen):
        outcome.notes += collect(
            opened,
            images=chosen,
            stride=stride,
            sites=[SITE],
            histogram_bits=_histogram_bits(opened),
            images_per_batch=opened[GROUP].sizes["slot"] if GROUP in opened else 1,
            model=model,
            local_ckpt=local_ckpt,
            mode=Mode(resume=True, progress=progress),
        ).notes
    group = GROUP if GROUP in opened else None
    for kind in KINDS:
        with extra(f"figure {kind}", outcome.notes):
            _draw(kind, opened, Path(out), group, outcome)
    if not outcome.files:
        raise TaqError(problem("nothing could be drawn", found=outcome.notes[-1]))
    # Figures are drawn from what was collected, and say so again.
    outcome.notes[:] = dict.fromkeys(outcome.notes)
    return outcome


def _draw(kind: str, store: Store, out: Path, group: str | None, outcome: Outcome) -> None:
    from taqstore.plot.draw import draw  # needs matplotlib, which what was collected does not

    written, notes = draw(kind, store, out, group=group)
    outcome.files += written
    outcome.notes += notes


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
