"""Judged images: prompts and seeds beyond the store's, sampled once by its model as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MissingError, problem
from taqstore.run.mode import Mode
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter

from ..models.failures import each_placed, placed
from ..models.load import LoadedModel, Prompt, to_numpy
from ..models.sampling import Schedule, restored_schedule, trajectory_with_output
from ..run.trajectories import KEPT, Trajectories, load_model_of, read_trajectories
from ..sources.parts.prompt_files import read_prompts
from .asked import Asked, asked_images
from .kept import Kept, Sampled, listed, open_kept
from .place import keeping


@dataclass(frozen=True)
class Judged:
    """Images to judge a model by, beside the model as it is. Places count from 0.

    Parameters
    ----------
    found
        Latents of the store, their run and shape.
    model
        The model as it is.
    schedule
        All steps.
    asked
        Numbers, prompts, seeds and guidance weight of the images.
    kept
        Their trajectories by the model as it is, in the store.
    writer
        Where trajectories are kept, open while the images are judged.
    """

    found: Trajectories
    model: LoadedModel
    schedule: Schedule
    asked: Asked
    kept: Kept
    writer: StoreWriter
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> tuple[int, ...]:
        """Numbers of the images."""
        return self.asked.images

    @property
    def prompts(self) -> tuple[str, ...]:
        """Their prompts."""
        return self.asked.prompts

    @property
    def seeds(self) -> tuple[int, ...]:
        """What their noise is made from."""
        return self.asked.seeds

    @property
    def run(self) -> dict[str, Any]:
        """Settings that all trajectories share."""
        return _run(self.found, self.model)

    def at(self, place: int) -> Sampled:
        """The trajectory of one image by the model as it is; memory is that of one."""
        return self.kept.at(place)

    @property
    def x(self) -> np.ndarray:
        """float32 ``(image, step + 1, height, width, channel)``: all latents, in memory."""
        return np.stack([self.at(place).x for place in range(len(self.images))])

    @property
    def output(self) -> np.ndarray:
        """float32 ``(image, step, height, width, channel)``: all guided outputs, in memory."""
        return np.stack([self.at(place).output for place in range(len(self.images))])

    def prepare(self, image: int) -> Prompt:
        """Conditioning of the image of this number, encoded anew from its prompt."""
        return _prepared(self.found, self.model, self.schedule, self.asked, self._place(image))

    def _place(self, image: int) -> int:
        return self.images.index(image)


def run_beside(
    judged: Judged, model: LoadedModel, place: int, prompt: Prompt | None = None
) -> Sampled:
    """Sample the image at a place by another model, from the same noise and prompt.

    Parameters
    ----------
    prompt
        What `Judged.prepare` gave of the image; None: it is encoded anew.
    """
    image = judged.images[place]
    return _sampled(
        model,
        judged.prepare(image) if prompt is None else prompt,
        judged.schedule,
        seed=judged.seeds[place],
        latent_size=judged.found.latent_shape[:2],
        where=f"image {image}",
    )


@contextmanager
def judged(
    store: Store | str | os.PathLike[str],
    *,
    count: int,
    prompts: str | os.PathLike[str] | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    mode: Mode | None = None,
    loaded: LoadedModel | None = None,
    made: bool = True,
) -> Iterator[Judged]:
    """Choose images to judge by, and sample those that were not yet sampled by the model as it is.

    Trajectories are kept in `trajectories/float` while the block lasts and after it; where the
    store cannot be written, they are gone then, and a note says it.

    Parameters
    ----------
    store
        Path or URL, or a store that is open.
    count
        How many images.
    prompts
        File with their prompts; None: the model's own, else those of the store in turn.
    model, local_ckpt
        As of `cache`.
    mode
        Whom to tell.
    loaded
        The store's model, where it is loaded already.
    made
        False: nothing is sampled, `Judged.kept` tells what is there.

    Raises
    ------
    MissingError
        The store has no latents with a final step.
    TaqError
        The model cannot run.
    """
    mode, notes = mode or Mode(), list[str]()
    opened = open_store(store, chunks=None, checksum=True)
    texts = () if prompts is None else read_prompts(Path(prompts)).texts
    found = read_trajectories(opened, images=None, stride=1, model=model)
    first = max(found.seeds) + 1
    use = replace(found.use, seeds=(first, first + count - 1))
    loaded = loaded or load_model_of(found.run, local_ckpt=local_ckpt, use=use)
    schedule = whole_schedule(found, loaded)
    with keeping(opened, notes) as writer:
        asked = asked_images(
            loaded.row, count, texts, latents=found.latents, kept=listed(writer)
        )  # fmt: skip
        kept = open_kept(
            writer,
            asked,
            schedule,
            shape=found.latent_shape,
            run=_run(found, loaded),
        )
        one = Judged(found, loaded, schedule, asked, kept, writer, notes)
        if made:
            make_float(one, mode)
        yield one


def make_float(judged: Judged, mode: Mode) -> None:
    """Sample the images that were not yet sampled by the model as it is."""
    absent, steps = judged.kept.absent(), judged.schedule.steps
    mode.progress.start(len(absent) * steps)
    for place in absent:
        judged.kept.make(place, partial(run_beside, judged, judged.model, place))
        mode.progress.advance(f"image {judged.images[place]}, as it is", steps)


def whole_schedule(found: Trajectories, model: LoadedModel) -> Schedule:
    """All steps of a store's latents.

    Raises
    ------
    MissingError
        They have no final step.
    """
    latents = found.latents
    if not bool(latents["is_final"].values[-1]):
        what = "the latents have no final step, so the schedule cannot be sampled again"
        raise MissingError(problem(what, remedy="generate them, or ingest whole trajectories"))
    return restored_schedule(model, latents["sigma"].values, latents["timestep"].values)


def _run(found: Trajectories, model: LoadedModel) -> dict[str, Any]:
    """What all trajectories of a group share, as `latents` says it."""
    run = {name: found.run.get(name) for name in (*KEPT, "shift")}
    height, width, _ = found.latent_shape
    return run | {"weights": model.digest, "latent_size": [height, width]}


def _prepared(
    found: Trajectories, model: LoadedModel, schedule: Schedule, asked: Asked, place: int
) -> Prompt:
    with placed(f"image {asked.images[place]}"):
        conditioning = model.encode_text(
            asked.prompts[place],
            cfg_weight=asked.cfg_weight,
            negative=found.run["negative_prompt"],
        )
        return model.prepare(conditioning, schedule.timesteps)


def _sampled(
    model: LoadedModel,
    prompt: Prompt,
    schedule: Schedule,
    *,
    seed: int,
    latent_size: Sequence[int],
    where: str,
) -> Sampled:
    height, width = latent_size
    steps = trajectory_with_output(
        model, prompt, schedule, seed=seed, latent_size=(height, width)
    )  # fmt: skip
    latents, outputs = [], []
    for x, output in each_placed(steps, where):
        latents.append(np.array(model.to_store(x), np.float32))
        if output is not None:
            outputs.append(np.array(to_numpy(output)[0], np.float32))
    return Sampled(np.stack(latents), np.stack(outputs))
