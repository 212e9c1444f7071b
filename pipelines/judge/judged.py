"""Judged images: prompts and seeds beyond the store's, sampled once by its model as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MissingError, TaqError, problem
from taqstore.kinds.trajectories import FLOAT, path_of
from taqstore.run.mode import Mode
from taqstore.run.progress import Progress
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter

from ..models.failures import each_placed, placed
from ..models.load import LoadedModel, Prompt, to_numpy
from ..models.sampling import Schedule, restored_schedule, trajectory_with_output
from ..run.trajectories import KEPT, Trajectories, load_model_of, read_trajectories
from ..sources.parts.prompt_files import read_prompts
from ..tasks.units import waited
from .asked import Asked, asked_images, numbered
from .kept import Kept, Sampled, listed, open_kept
from .place import keeping

_PROMPTS_HELD = 64
# Of trajectories that every variant is compared with, which cost more to open than to keep.
_HELD_BYTES = 64 << 20


@dataclass(frozen=True)
class Chosen:
    """Images to judge a model by. Places count from 0.

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
    """

    found: Trajectories
    model: LoadedModel
    schedule: Schedule
    asked: Asked

    @property
    def run(self) -> dict[str, Any]:
        """Settings that all trajectories share."""
        run = {name: self.found.run.get(name) for name in (*KEPT, "shift")}
        height, width, _ = self.found.latent_shape
        return run | {"weights": self.model.digest, "latent_size": [height, width]}


@dataclass(frozen=True)
class Judged(Chosen):
    """Images to judge a model by, and their trajectories by the model as it is.

    Parameters
    ----------
    kept
        Their trajectories by the model as it is, in the store.
    writer
        Where trajectories are kept, open while the images are judged.
    stored
        The store itself.
    """

    kept: Kept
    writer: StoreWriter
    stored: Store
    notes: list[str] = field(default_factory=list)
    _prompts: dict[int, Prompt] = field(default_factory=dict, repr=False)
    _held: dict[int, Sampled] = field(default_factory=dict, repr=False)

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

    def at(self, place: int) -> Sampled:
        """The trajectory of one image by the model as it is; small ones are held in memory."""
        if place in self._held:
            return self._held[place]
        found = self.kept.at(place)
        if sum(one.nbytes for one in self._held.values()) + found.nbytes <= _HELD_BYTES:
            self._held[place] = found
        return found

    @property
    def x(self) -> np.ndarray:
        """float32 ``(image, step + 1, height, width, channel)``: all latents, in memory."""
        return np.stack([self.at(place).x for place in range(len(self.images))])

    @property
    def output(self) -> np.ndarray:
        """float32 ``(image, step, height, width, channel)``: all guided outputs, in memory."""
        return np.stack([self.at(place).output for place in range(len(self.images))])

    def prepare(self, image: int) -> Prompt:
        """Conditioning of the image of this number, encoded from its prompt and kept for others."""
        if image not in self._prompts:
            place = self.images.index(image)
            made = prepared(self.found, self.model, self.schedule, self.asked, place)
            if len(self._prompts) >= _PROMPTS_HELD:
                self._prompts.clear()
            self._prompts[image] = made
        return self._prompts[image]


def run_beside(
    judged: Judged, model: LoadedModel, place: int, prompt: Prompt | None = None
) -> Sampled:
    """Sample the image at a place by another model, from the same noise and prompt.

    Parameters
    ----------
    prompt
        What `Judged.prepare` gave of the image; None: it is asked for.
    """
    image = judged.images[place]
    return sample(
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
    chosen = choose(
        opened, count=count, prompts=prompts, model=model, local_ckpt=local_ckpt, loaded=loaded
    )
    with keeping(opened, notes, mode) as writer:
        # Another process may have given numbers since, and a store of this run alone has none.
        asked = numbered(chosen.asked, chosen.found.latents, listed(writer))
        chosen = replace(chosen, asked=asked)
        kept = open_kept(
            writer,
            asked,
            chosen.schedule,
            shape=chosen.found.latent_shape,
            run=chosen.run,
            stored=opened,
        )
        one = Judged(
            chosen.found, chosen.model, chosen.schedule, asked, kept, writer, opened, notes
        )
        if made:
            mode.progress.start(len(kept.absent()) * chosen.schedule.steps)
            make_float(one, mode.progress)
        yield one


def choose(
    store: Store,
    *,
    count: int,
    prompts: str | os.PathLike[str] | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    loaded: LoadedModel | None = None,
) -> Chosen:
    """Choose images as `judged` does, and load the model; nothing is run and nothing written."""
    texts = () if prompts is None else read_prompts(Path(prompts)).texts
    found = read_trajectories(store, images=None, stride=1, model=model)
    first = max(found.seeds) + 1
    use = replace(found.use, seeds=(first, first + count - 1))
    loaded = loaded or load_model_of(found.run, local_ckpt=local_ckpt, use=use)
    every, path = open_store(store, incomplete=True), path_of(FLOAT)
    kept = every.get(path)
    asked = asked_images(loaded.row, count, texts, latents=found.latents, kept=kept)
    return Chosen(found, loaded, whole_schedule(found, loaded), asked)


def make_float(judged: Judged, progress: Progress, *, wait: float = 0.0) -> None:
    """Sample the images that were not yet sampled by the model as it is.

    Parameters
    ----------
    wait
        Seconds to wait for those that other processes are at, since the last one was finished;
        after that they are sampled here as well.

    Raises
    ------
    TaqError
        A latent is no finite number: there is nothing to judge by.
    """
    kept, steps = judged.kept, judged.schedule.steps

    def unheld(places: Iterable[int]) -> list[int]:
        return [place for place in places if not tell(place, kept.make_unheld(place, run(place)))]

    def run(place: int) -> Callable[[], Sampled]:
        return partial(_float_of, judged, place)

    def tell(place: int, made: Sampled | None) -> bool:
        if made is not None:
            progress.advance(f"image {judged.images[place]}, as it is", steps)
        return made is not None

    for place in waited(unheld, unheld(kept.absent()), wait):
        tell(place, kept.make(place, run(place)))


def _float_of(judged: Judged, place: int) -> Sampled:
    found = run_beside(judged, judged.model, place)
    if not (np.isfinite(found.x).all() and np.isfinite(found.output).all()):
        what = f"image {judged.images[place]} has non-finite latents by the model as it is"
        text = f"seed {judged.seeds[place]}, {judged.prompts[place]!r}"
        raise TaqError(problem(what, found=text, remedy="give other --prompts"))
    return found


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


def prepared(
    found: Trajectories, model: LoadedModel, schedule: Schedule, asked: Asked, place: int
) -> Prompt:
    """Conditioning of the judged image at a place, ready to be run at all steps."""
    with placed(f"image {asked.images[place]}"):
        conditioning = model.encode_text(
            asked.prompts[place],
            cfg_weight=asked.cfg_weight,
            negative=found.run["negative_prompt"],
        )
        return model.prepare(conditioning, schedule.timesteps)


def sample(
    model: LoadedModel,
    prompt: Prompt,
    schedule: Schedule,
    *,
    seed: int,
    latent_size: Sequence[int],
    where: str,
) -> Sampled:
    """A whole trajectory; `where` says whose, in errors."""
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
