"""Generate: prompts -> latents of every step, an image at a time. Wiring only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.files.remote import output_path
from taqstore.kinds.templates import latents_template
from taqstore.layout.template import Template
from taqstore.names import LATENTS
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import StoreWriter

from .models.adapter import fetching
from .models.backend import LIBRARIES
from .models.failures import each_placed, placed
from .models.limits import Use, check_use
from .models.load import LoadedModel, load_pipeline
from .models.sampling import Schedule, make_schedule, trajectory
from .models.table import find_model, resolve
from .run.dry import (
    FORWARDS,
    Clock,
    add_group,
    laid_out,
    new_plan,
    open_writer,
    paced,
    recorded_pace,
    timed,
    work_done,
)
from .run.groups import RUN, open_groups
from .run.merged_latents import as_merged, merged_images, refuse_again
from .run.pictures import Pictures, forget_pictures
from .run.record import record_run
from .run.trajectories import ID
from .sources.parts.prompt_files import read_prompts
from .tasks.units import Call, run_units

LATENT_CHANNELS = 16
# What a forward takes does not depend on these.
_TIMED = 3
_BESIDE_PACE = ("images", "seed", "steps", "shift", "negative_prompt", "weights", "prompts")


@dataclass(frozen=True)
class Request:
    """What to generate; None where the model's row decides.

    Parameters
    ----------
    model
        Name in the model table.
    prompts
        Text file with a prompt per line, or CSV file with a prompt column; image i takes prompt i,
        starting over where there are fewer. None: the prompts that come with the model.
    images
        How many; image i is made from seed + i.
    steps, cfg_weight, seed, latent_size, shift, negative_prompt
        Of sampling; latent_size is (height, width), both even.
    dtype, use_t5, local_ckpt
        As of `load_pipeline`.
    """

    model: str
    prompts: Path | None
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


@takes_storage_options
def generate(
    store: str | os.PathLike[str],
    request: Request,
    *,
    save_images: str | os.PathLike[str] | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Write the latents of each image; one image, one commit.

    Parameters
    ----------
    save_images
        Folder for pictures of the final latents, ``0000.png``; the store keeps them too, in the
        group `pictures`, those of images that were there before among them. One that cannot be
        had is a note.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        No prompts are named, and none come with the model.
    TaqError
        The model or the prompts cannot be read, something is beyond the model's limits, or latents
        are not finite.
    StoreError
        The store cannot be written, or holds latents of another configuration.
    """
    mode, outcome = mode or Mode(), Outcome()
    source, notes = _prompts_file(request)
    read = read_prompts(source)
    prompts = list(read.texts)
    outcome.notes += [*notes, *read.notes]
    if request.images > len(prompts):
        outcome.notes.append(
            f"{len(prompts)} prompts for {request.images} images: they are taken in turn"
        )
    check_use(find_model(request.model), _use(request))
    with fetching(not mode.dry_run):
        model = load_pipeline(
            request.model,
            local_ckpt=request.local_ckpt,
            dtype=request.dtype,
            shift=request.shift,
            use_t5=request.use_t5,
        )
    run = _configuration(request, model)
    schedule = make_schedule(model, request.steps)
    outcome.notes += model.check_prompts([*prompts[: request.images], request.negative_prompt])
    with open_writer(store, mode) as writer:
        node: Any = None if mode.force else writer.node(LATENTS)
        made = {} if node is None else merged_images(writer)
        if made and node is not None:
            run = as_merged(run, node.attrs.get(RUN))
        attrs = {RUN: run, ID: _identity(node, run)}
        template = _template(request, attrs, prompts, schedule, made)
        group = open_groups(writer, [template], mode)[LATENTS]
        # Theirs, where another process made the group since we looked.
        attrs[ID] = str(group.zarr.attrs[ID]) if not mode.dry_run else attrs[ID]
        mine = mode.mine(range(request.images))
        done = group.written()
        pending = [position for position in mine if not done[position]]
        outcome.count(LATENTS).skipped = len(mine) - len(pending)
        mode.progress.start(len(pending) * schedule.steps)
        job = _Job(model, schedule, run, template, mode)
        kept = {name: run[name] for name in ("model", "weights", "dtype")} | {LATENTS: attrs[ID]}
        ids = range(request.images)
        if mode.force:
            forget_pictures(writer, ids, kept)
        pictures = None
        if save_images is not None:
            folder = output_path(save_images) if mode.only is None else None
            pictures = Pictures(writer, model, ids, kept, folder, outcome, mine)
        parameters = {**run, "images": request.images}
        if request.prompts is None:
            parameters["prompts"] = f"those that come with {request.model}"
        if mode.dry_run:
            outcome.plan = _planned(job, writer, group, parameters, pictures)
            return outcome
        if mode.groups_only:
            laid = {LATENTS: group} | ({} if pictures is None else pictures.make(job.noise))
            forwards = len(pending) * schedule.steps
            outcome.plan = laid_out(writer, laid, unit=FORWARDS, amount=forwards)
            return outcome
        clock = Clock()
        run_units(
            {position: position for position in pending},
            partial(_one_image, job, group, outcome=outcome, pictures=pictures),
            called=Call(generate, (writer.location, request), {"save_images": save_images}),
            mode=mode,
            outcome=outcome,
            left_note=lambda position: (
                f"image {position}: another process is writing it; left to that one"
            ),
            close=partial(writer.close_flags, LATENTS),
        )
        spent = clock.lap()
        if pictures is not None and mode.only is None:
            pictures.catch_up()
        forwards = outcome.count(LATENTS).written * schedule.steps
        record_run(
            writer,
            "generate",
            outcome,
            parameters=parameters,
            inputs=[source],
            libraries=LIBRARIES,
            mode=mode,
            work=work_done(FORWARDS, forwards, spent),
        )
    return outcome


def _prompts_file(request: Request) -> tuple[Path, list[str]]:
    """The prompts that are asked for, or come with the model, which is a note."""
    if request.prompts is not None:
        return Path(request.prompts), []
    row = find_model(request.model)
    if not row.shipped_prompts:
        remedy = "give --prompts FILE, a .txt file with one prompt per line"
        raise MisuseError(problem(f"no prompts come with {row.name}", remedy=remedy))
    path = Path(resolve(row.shipped_prompts)())
    return path, [f"prompts are those that come with {row.name}; --prompts FILE takes others"]


def _use(request: Request) -> Use:
    row = find_model(request.model)
    return Use(
        latent_size=request.latent_size or row.latent_size,
        steps=request.steps,
        cfg_weights=(row.cfg_weight if request.cfg_weight is None else request.cfg_weight,),
        negative=request.negative_prompt,
        seeds=(request.seed, request.seed + request.images - 1),
        dtype=request.dtype,
        shift=request.shift,
        use_t5=request.use_t5,
    )


def _configuration(request: Request, model: LoadedModel) -> dict[str, Any]:
    """What every image of a store shares."""
    row = model.row
    height, width = request.latent_size or row.latent_size
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


def _identity(node: Any, run: dict[str, Any]) -> str:
    """What tells these latents from others: theirs if there are any, else a new one."""
    same = node is not None and node.attrs.get(RUN) == run
    return str(node.attrs.get(ID, "") if same else uuid.uuid4())


def _template(
    request: Request,
    attrs: dict[str, Any],
    prompts: list[str],
    schedule: Schedule,
    made: Mapping[int, tuple[str, int]],
) -> Template:
    """Template of the images asked for; those of a merged store are what they are."""
    run, images = attrs[RUN], range(request.images)
    asked = {image: (prompts[image % len(prompts)], request.seed + image) for image in images}
    refuse_again(made, asked)
    told = [made.get(image, asked[image]) for image in images]
    height, width = run["latent_size"]
    sigmas, timesteps = schedule.arrays()
    return latents_template(
        images=images,
        prompts=[prompt for prompt, _ in told],
        seeds=[seed for _, seed in told],
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

    def noise(self) -> Any:
        """What an image begins as."""
        size = tuple(self.run["latent_size"])
        return self.model.noise(self.schedule.sigmas, seed=0, latent_size=size)


def _one_image(
    job: _Job,
    group: GroupWriter,
    position: int,
    *,
    outcome: Outcome,
    pictures: Pictures | None,
) -> bool:
    """Sample an image and write it; False where another process has it."""
    image = int(job.template.coords["image"][1][position])
    with ExitStack() as stack:
        # Looked at before it is claimed: what others have done costs no claim.
        done = group.complete([(position,)])
        held = not done and stack.enter_context(group.claim((position,)))
        if not held or group.complete([(position,)]):
            if done := group.complete([(position,)]):
                job.mode.progress.advance(f"image {image}", job.schedule.steps)
            return done
        latents = _Latents(job, position)
        size = group.put("x", (position, 0, 0, 0, 0), latents)
        group.commit([(position,)])
        outcome.wrote(LATENTS, size=size)
    if pictures is not None:
        pictures.keep(position, latents.last)
    return True


def _planned(
    job: _Job,
    writer: StoreWriter,
    group: GroupWriter,
    parameters: Mapping[str, Any],
    pictures: Pictures | None,
) -> Plan:
    """What would be written, and how long it would take: the first steps of an image are timed."""
    done, steps = group.written(), job.schedule.steps
    wanted = np.isin(np.arange(len(done)), job.mode.mine(range(len(done))))
    pending = np.flatnonzero(~done & wanted)
    plan = new_plan(writer, FORWARDS, len(pending) * steps)
    add_group(plan, group, wanted=wanted)
    pace = recorded_pace(writer, "generate", FORWARDS, parameters, beside=_BESIDE_PACE)
    if pace is not None:
        paced(plan, pace)
    elif len(pending):
        timed(plan, *_timed(job, int(pending[0]), len(pending)))
    if pictures is not None:
        pictures.plan(plan, job.noise())
    return plan


def _timed(job: _Job, position: int, images: int) -> tuple[float, str]:
    """Seconds of so many images, from the first forwards of one: the first of all is left out."""
    clock, latents = Clock(), iter(_Latents(job, position))
    next(latents)
    prompt = clock.lap()
    laps = [clock.lap() for _ in zip(range(_TIMED), latents, strict=False)]
    forward = median(laps[1:] or laps)
    seconds = images * (prompt + job.schedule.steps * forward)
    return seconds, f"{len(laps)} forwards timed"


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
        with placed(f"image {image}"):
            conditioning = job.model.encode_text(
                prompt, cfg_weight=job.run["cfg_weight"], negative=job.run["negative_prompt"]
            )
            prepared = job.model.prepare(conditioning, job.schedule.timesteps)
        height, width = job.run["latent_size"]
        steps = trajectory(
            job.model,
            prepared,
            job.schedule,
            seed=int(seed),
            latent_size=(height, width),
        )
        for step, self.last in enumerate(each_placed(steps, f"image {image}")):
            if step:
                job.mode.progress.advance(f"image {image}, step {step - 1}")
            latent = job.model.to_store(self.last)[None, None]
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
                remedy="it is not stored, images before it are; --resume tries it again, another "
                "--dtype, --cfg, --timestep-shift or --seed needs another store",
            )
        )
