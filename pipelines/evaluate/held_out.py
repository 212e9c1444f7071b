"""Images that nothing was observed of, made for `evaluate`; and which of those judged were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.names import (
    ACTIVATIONS,
    BLOCKS,
    LATENTS,
    SAMPLES,
    SECOND_MOMENTS,
    split_group,
)
from taqstore.run.progress import Progress
from taqstore.store.reader import Store

from ..models.failures import placed
from ..models.load import LoadedModel, to_numpy
from ..models.sampling import Schedule, trajectory
from ..models.table import ModelRow, resolve
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
        run: dict[str, Any] = group.attrs.get(RUN) or {}
        theirs, ours = run.get(LATENTS), latents.attrs.get(ID)
        if SAMPLES in run or (theirs and ours and theirs != ours):
            continue  # numbers of samples, or images of other latents
        if "image" in group.coords:
            found |= {int(image) for image in np.unique(group["image"].values) if image >= 0}
    return found


def held_out_prompts(row: ModelRow, count: int, texts: Sequence[str], *, seed: int) -> list[str]:
    """Prompts of images that are made to be judged.

    Parameters
    ----------
    texts
        Of a file; none: the model's own.
    seed
        Of the model's own.

    Raises
    ------
    MissingError
        The model makes no prompts, and none are given.
    """
    if texts:
        return [texts[index % len(texts)] for index in range(count)]
    if not row.prompts:
        what = f"{row.name} makes no prompts for --held-out"
        raise MissingError(problem(what, remedy="give them with --prompts FILE"))
    return list(resolve(row.prompts)(count, seed=seed))


def held_out(
    found: Trajectories,
    model: LoadedModel,
    schedule: Schedule,
    prompts: Sequence[str],
    *,
    progress: Progress,
) -> Trajectories:
    """Sample further images with the store's schedule and guidance; they are not stored.

    Their numbers go on after those of the store, and so do their seeds, so that none is an image of
    the store.
    """
    latents = found.latents
    first, seed = (int(latents[name].values.max()) + 1 for name in ("image", "seed"))
    weight = float(latents["cfg_weight"].values[0])
    images = [first + index for index in range(len(prompts))]
    made = [
        _trajectory(found, model, schedule, text, seed + place, weight, images[place], progress)
        for place, text in enumerate(prompts)
    ]
    dims = ("image", "step", "height", "width", "latent_channel")
    along = {name: latents[name] for name in ("step", "sigma", "timestep", "is_final")}
    dataset = xr.Dataset(
        {"x": (dims, np.stack(made))},
        {
            "image": images,
            "prompt": ("image", np.array(list(prompts), dtype=object)),
            "seed": ("image", seed + np.arange(len(prompts))),
            "cfg_weight": ("image", np.full(len(prompts), weight)),
            **along,
        },
        latents.attrs,
    )
    return replace(found, latents=dataset, images=tuple(images))


def _trajectory(
    found: Trajectories,
    model: LoadedModel,
    schedule: Schedule,
    prompt: str,
    seed: int,
    weight: float,
    image: int,
    progress: Progress,
) -> np.ndarray:
    """Latents (step, height, width, channel) of one image, the final one last."""
    height, width, _ = found.latent_shape
    with placed(f"held-out image {image}"):
        text = model.encode_text(prompt, cfg_weight=weight, negative=found.run["negative_prompt"])
        prepared = model.prepare(text, schedule.timesteps)
        steps = trajectory(model, prepared, schedule, seed=seed, latent_size=(height, width))
        made = [np.array(to_numpy(x))[0] for x in steps]
    progress.advance(f"held-out image {image}", schedule.steps)
    return np.stack(made)


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
