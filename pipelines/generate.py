"""Generate: prompts -> latents of every step, an image at a time. Wiring only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.files.png import save_picture
from taqstore.kinds.templates import latents_template
from taqstore.layout.template import Template
from taqstore.names import LATENTS
from taqstore.run.extras import extra
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import StoreWriter, create_store

from .models.backend import LIBRARIES
from .models.load import LoadedModel, load_pipeline, to_numpy
from .models.sampling import Schedule, make_schedule, trajectory
from .run.groups import RUN, open_groups
from .run.record import record_run
from .run.trajectories import ID
from .sources.parts.prompts import prompt_file

LATENT_CHANNELS = 16


@dataclass(frozen=True)
class Request:
    """What to generate; None where the model's row decides.

    Parameters
    ----------
    model
        Name in the model table.
    prompts
        Text file with a prompt per line, or CSV file with a prompt column; image i takes prompt i,
        starting over where there are fewer.
    images
        How many; image i is made from seed + i.
    steps, cfg_weight, seed, latent_size, shift, negative_prompt
        Of sampling; latent_size is (height, width), both even.
    dtype, use_t5, local_ckpt
        As of `load_pipeline`.
    """

    model: str
    prompts: Path
    images: int
    steps: int = 50
    cfg_weight: float | None = None
    seed: int = 42
    latent_size: tuple[int, int] | None = None
    shift: float | None = None
    negative_prompt: str = ""
    dtype: str | None = None
    use_t5: bool | None = None
    local_ckpt: Path | None = None


def generate(
    store: str | os.PathLike[str],
    request: Request,
    *,
    save_images: str | os.PathLike[str] | None = None,
    mode: Mode | None = None,
) -> Outcome:
    """Write the latents of each image; one image, one commit.

    Parameters
    ----------
    save_images
        Folder for pictures of the final latents, ``0000.png``; one that cannot be had is a note.

    Raises
    ------
    TaqError
        The model or the prompts cannot be read, the latent size is odd, or latents are not finite.
    StoreError
        The store cannot be written, or holds latents of another configuration.
    """
    mode, outcome = mode or Mode(), Outcome()
    prompts = prompt_file(request.prompts)
    model = load_pipeline(
        request.model,
        local_ckpt=request.local_ckpt,
        dtype=request.dtype,
        shift=request.shift,
        use_t5=request.use_t5,
    )
    run = _configuration(request, model)
    schedule = make_schedule(model, request.steps)
    with create_store(store) as writer:
        attrs = {RUN: run, ID: _identity(writer, mode)}
        template = _template(request, attrs, prompts, schedule)
        group = open_groups(writer, [template], mode)[LATENTS]
        pending = np.flatnonzero(~group.written())
        outcome.count(LATENTS).skipped = request.images - len(pending)
        mode.progress.start(len(pending) * schedule.steps)
        job = _Job(model, schedule, run, template, mode)
        for position in pending:
            _one_image(job, group, int(position), outcome, save_images)
        parameters = {**run, "images": request.images}
        record_run(
            writer,
            "generate",
            outcome,
            parameters=parameters,
            inputs=[request.prompts],
            libraries=LIBRARIES,
        )
    return outcome


def _configuration(request: Request, model: LoadedModel) -> dict[str, Any]:
    """What every image of a store shares."""
    row = model.row
    height, width = request.latent_size or row.latent_size
    if height % 2 or width % 2:
        what = "the model folds latents two by two, so both sides must be even"
        raise TaqError(problem(what, found=f"{height} {width}", remedy="set --latent-size"))
    return {
        "model": row.name,
        "weights": model.digest,
        "dtype": row.dtype,
        "use_t5": row.use_t5,
        "steps": request.steps,
        "shift": row.shift,
        "cfg_weight": row.cfg_weight if request.cfg_weight is None else request.cfg_weight,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "latent_size": [height, width],
    }


def _identity(writer: StoreWriter, mode: Mode) -> str:
    """What tells these latents from others: theirs if there are any, else a new one."""
    node = None if mode.force else writer.node(LATENTS)
    return str(uuid.uuid4() if node is None else node.attrs.get(ID, ""))


def _template(
    request: Request, attrs: dict[str, Any], prompts: list[str], schedule: Schedule
) -> Template:
    run, images = attrs[RUN], range(request.images)
    height, width = run["latent_size"]
    sigmas, timesteps = schedule.arrays()
    return latents_template(
        images=images,
        prompts=[prompts[image % len(prompts)] for image in images],
        seeds=[request.seed + image for image in images],
        cfg_weight=run["cfg_weight"],
        sigmas=sigmas,
        timesteps=timesteps,
        shape=(height, width, LATENT_CHANNELS),
        attrs=attrs,
    )


@dataclass(frozen=True)
class _Job:
    """What is the same for every image."""

    model: LoadedModel
    schedule: Schedule
    run: dict[str, Any]
    template: Template
    mode: Mode


def _one_image(
    job: _Job,
    group: GroupWriter,
    position: int,
    outcome: Outcome,
    save_images: str | os.PathLike[str] | None,
) -> None:
    image = int(job.template.coords["image"][1][position])
    with group.claim((position,)) as held:
        if not held or group.written()[position]:
            outcome.notes.append(f"image {image}: another process is writing it; left to that one")
            job.mode.progress.advance(f"image {image}", job.schedule.steps)
            return
        latents = _Latents(job, position)
        size = group.put("x", (position, 0, 0, 0, 0), latents)
        group.commit([(position,)])
        outcome.wrote(LATENTS, size=size)
    if save_images is not None:
        with extra(f"the picture of image {image}", outcome.notes):
            save_picture(job.model.picture(latents.last), Path(save_images) / f"{image:04d}.png")


class _Latents:
    """Latents of one image as chunks ``(1, 1, height, width, channel)``, made while written."""

    def __init__(self, job: _Job, position: int) -> None:
        self._job, self._position = job, position
        self.last: Any = None

    def __iter__(self) -> Iterator[np.ndarray]:
        job, coords = self._job, self._job.template.coords
        image, prompt, seed = (
            coords[name][1][self._position] for name in ("image", "prompt", "seed")
        )
        conditioning = job.model.encode_text(
            prompt, cfg_weight=job.run["cfg_weight"], negative=job.run["negative_prompt"]
        )
        height, width = job.run["latent_size"]
        steps = trajectory(
            job.model,
            job.model.prepare(conditioning, job.schedule.timesteps),
            job.schedule,
            seed=int(seed),
            latent_size=(height, width),
        )
        for step, self.last in enumerate(steps):
            if step:
                job.mode.progress.advance(f"image {image}, step {step - 1}")
            latent = to_numpy(self.last)[None]
            _check_finite(latent, int(image), step)
            yield latent


def _check_finite(latent: np.ndarray, image: int, step: int) -> None:
    """Refuse an image whose latents are no numbers; it is never flagged.

    Raises
    ------
    TaqError
        They are not. The other images wait: what breaks one breaks many, and costs as long.
    """
    bad = int(latent.size - np.isfinite(latent).sum())
    if bad:
        raise TaqError(
            problem(
                f"image {image} has non-finite latents at step {step}",
                found=f"{bad} of {latent.size} values",
                remedy="it is not stored, images before it are; --resume tries it again, "
                "--force with another --dtype, --cfg, --shift or --seed starts anew",
            )
        )
