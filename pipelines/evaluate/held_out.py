"""Images that nothing was observed of, in the place of the store's; which of those judged were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from taqstore.names import ACTIVATIONS, BLOCKS, LATENTS, SAMPLES, SECOND_MOMENTS, split_group
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store, open_store

from ..judge.judged import Judged
from ..run.groups import RUN
from ..run.trajectories import ID, Trajectories

_OBSERVING = (ACTIVATIONS, SECOND_MOMENTS, BLOCKS)


def observed_images(store: Store, latents: xr.Dataset) -> set[int]:
    """Images of these latents that activations, second moments or cached streams hold."""
    found: set[int] = set()
    for path in store.paths:
        if split_group(path)[0] not in _OBSERVING:
            continue
        group = store[path]
        run: dict[str, Any] = attribute_of(group, RUN, {})
        theirs, ours = run.get(LATENTS), latents.attrs.get(ID)
        if SAMPLES in run or (theirs and ours and theirs != ours):
            continue  # numbers of samples, or images of other latents
        if "image" in group.coords:
            found |= {int(image) for image in np.unique(group["image"].values) if image >= 0}
    return found


def held_out(beside: Judged) -> Trajectories:
    """Judged images in the place of the store's, their latents as they are kept."""
    store = open_store(beside.writer.location, chunks=None, checksum=True)
    latents = store[beside.kept.path].sel(image=list(beside.images))
    return replace(beside.found, latents=latents, images=beside.images)


def judged_text(images: Iterable[int], observed: set[int], *, made: bool) -> str:
    """A line that says which images were judged, and which of them were observed."""
    judged = list(images)
    seen = [image for image in judged if image in observed]
    kind = "held-out images" if made else "images"
    which = f"judged on {kind} {ranges_text(judged)}"
    if not seen:
        return f"{which}: none of them was observed"
    told = "all of them were" if len(seen) == len(judged) else f"{ranges_text(seen)} of them were"
    return f"{which}: {told} observed; --held-out N judges others"


def ranges_text(numbers: Sequence[int]) -> str:
    """Numbers as `--images` takes them.

    >>> ranges_text([0, 1, 2, 5])
    '0-2,5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
