"""Cache: residual streams at block boundaries of each (image, step), for block reconstruction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from statistics import median
from typing import Any

import numpy as np

from taqstore.kinds.float16 import as_float16
from taqstore.kinds.templates import blocks_template, pooled_conditioning_template
from taqstore.layout.template import Template, nbytes
from taqstore.names import BLOCKS, site_of
from taqstore.place.location import Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter

from .collect.finishing import Finishing
from .models.adapter import fetching
from .models.backend import LIBRARIES, backend
from .models.capture import watching_blocks
from .models.failures import inside_model, placed
from .models.layers import chosen_blocks
from .models.load import LoadedModel, Prompt, Tensor, to_numpy
from .models.sampling import Schedule
from .run.dry import (
    FORWARDS,
    Clock,
    add_group,
    laid_out,
    new_plan,
    open_writer,
    paced,
    recorded_pace,
    refuse,
    timed,
    work_done,
)
from .run.groups import RUN, open_groups
from .run.inputs import Inputs, Samples, model_of, read_inputs, stride_of
from .run.record import record_run
from .run.side_by_side import READYING, is_overlapped, side_by_side
from .run.space import check_fits, free_bytes
from .tasks.units import Call, run_units

POOLED = f"{BLOCKS}/pooled"
# Every how many steps of latents.
STRIDE = 5
# Steps of an image that one process claims at once, each with an open lock file per stream.
CLAIMED = 32
# Written steps are flagged this often: a flush costs more than a small model's forward.
FLAG_SECONDS = 2.0
# Bytes of streams that are written while the model runs the next step; larger ones would be held
# twice, and take less to be written than to be made.
_BESIDE = 64 << 20
# Steps of a small model that are written at once: each waits for the disk.
_WRITERS = 2
_TIMED = 3
# By name and boundary: tensors, or arrays of them.
Streams = dict[str, dict[int, Any]]
# Bytes that each stream took.
Sizes = dict[str, int]
# What a forward takes does not depend on these.
_BESIDE_PACE = ("stride", "num_samples", "latents", "samples", "negative_prompt", "weights")


@dataclass(frozen=True)
class Space:
    """Bytes that a cache will write, and bytes free where it will write them (None: not known)."""

    needed: int
    free: int | None


@takes_storage_options
def cache(
    store: Store | str | os.PathLike[str],
    *,
    images: Iterable[int] | None = None,
    stride: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    chosen: Sequence[str] | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    on_space: Callable[[Space], None] | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Run latents or samples of a store through their model and keep the residual streams.

    Parameters
    ----------
    store, images, stride, num_samples, seed, model
        As of `read_inputs`, every fifth step of latents; a store that is open sees afterwards what
        was written. Each sample takes the place of an image and is there at one step.
    chosen
        Blocks whose inputs and outputs are kept (`mm0`, `uni4`); None: all.
    local_ckpt
        Weights, where the latents were made with a checkpoint of the user's own.
    on_space
        Told, before anything is written, how much will be.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    TaqError
        The model cannot run, a block is not known, or a stream does not fit float16.
    StoreError
        The space does not suffice, or the store holds blocks of another configuration.
    """
    mode, outcome = mode or Mode(), Outcome()
    opened = open_store(store, chunks=None, checksum=True)
    found = read_inputs(
        opened,
        images=images,
        stride=stride,
        latents_stride=STRIDE,
        model=model,
        num_samples=num_samples,
        seed=seed,
    )
    with fetching(not mode.dry_run):
        loaded = model_of(found, local_ckpt=local_ckpt)
    names = chosen_blocks(loaded.mmdit, chosen, model=loaded.row.name)
    schedule = found.schedule(loaded)
    first = found.prepare(loaded, found.images[0], schedule)
    templates = _templates(found, loaded, schedule, first, names)
    parameters = {
        **found.summary(),
        "stride": stride_of(found, stride, STRIDE),
        "num_samples": num_samples,
        "blocks": list(names),
    }
    with open_writer(opened.location, mode) as writer:
        groups = open_groups(writer, templates, mode)
        job = _Job(found, loaded, schedule, names, groups, outcome, mode)
        chosen_images = set(mode.mine(found.images))
        mine = [position for position in found.order if found.images[position] in chosen_images]
        pending = {position: job.pending(position, count=True) for position in mine}
        if mode.groups_only:
            forwards = sum(map(len, pending.values()))
            outcome.plan = laid_out(
                writer, groups, unit=FORWARDS, amount=forwards, seen=job.seen_of(groups)
            )
            return outcome
        if mode.dry_run:
            outcome.plan = _planned(job, writer, pending, parameters, first)
            return outcome
        if mode.only is None:
            _check_space(writer.location, found, groups, on_space, mine)
        mode.progress.start(sum(map(len, pending.values())))
        clock = Clock()
        named = {
            # Those of now: a task may find more that are complete.
            "images": None if isinstance(found, Samples) else found.images,
            "stride": stride,
            "num_samples": num_samples,
            "seed": seed,
            "chosen": chosen,
            "model": model,
            "local_ckpt": local_ckpt,
        }
        run_units(
            {found.images[position]: position for position in mine if job.lacks(position)},
            lambda position: job.one_image(position, first if position == 0 else None),
            called=Call(cache, (opened.location,), named),
            mode=mode,
            outcome=outcome,
            left_note=lambda position: (
                f"{found.word} {found.images[position]}: "
                "steps are left to another process that is writing them"
            ),
            close=writer.close_flags,
            attempt=job.finishing.settled,
        )
        forwards = max(outcome.count(path).written for path in groups if path != POOLED)
        record_run(
            writer,
            "cache",
            outcome,
            parameters=parameters,
            libraries=LIBRARIES,
            mode=mode,
            work=work_done(FORWARDS, forwards, clock.lap()),
        )
    opened.refresh(*groups)
    return outcome


def _templates(
    found: Inputs,
    model: LoadedModel,
    schedule: Schedule,
    prompt: Prompt,
    names: tuple[str, ...],
) -> list[Template]:
    """Templates of streams that have these blocks, their shapes seen in one unevaluated forward."""
    with watching_blocks(model.mmdit, names) as streams:
        at = int(np.flatnonzero(found.seen[0])[0])
        x = found.latent(model, found.images[0], found.steps[at])
        with placed(f"{found.word} {found.images[0]}, step {found.steps[at]}"):
            model.denoise(x, schedule.timesteps[at], schedule.sigmas[at], prompt)
    summary = found.summary()
    templates = [
        blocks_template(
            name,
            images=found.images,
            steps=found.steps,
            sigmas=found.sigmas,
            timesteps=found.timesteps,
            boundaries=sorted(stream),
            shape=_shape(next(iter(stream.values()))),
            attrs={RUN: summary, "singleton_axis": 2},
        )
        for name, stream in streams.by_name().items()
    ]
    pooled = to_numpy(prompt.conditioning.pooled)
    return [
        *templates,
        pooled_conditioning_template(
            images=found.images, shape=pooled.shape, dtype=pooled.dtype.name, attrs={RUN: summary}
        ),
    ]


def _shape(tensor: Tensor) -> tuple[int, int, int]:
    row, token, _, channel = tensor.shape
    return row, token, channel


def _check_space(
    location: Location,
    found: Inputs,
    groups: dict[str, GroupWriter],
    on_space: Callable[[Space], None] | None,
    mine: Sequence[int],
) -> None:
    ours = np.isin(np.arange(len(found.images)), mine)
    needed = sum(
        _bytes_to_come(group, ours if path == POOLED else found.seen & ours[:, None])
        for path, group in groups.items()
    )
    space = Space(needed, free_bytes(location))
    if on_space:
        on_space(space)
    remedy = "choose fewer --images, --num-samples or --blocks, or a larger --stride"
    check_fits(space.needed, space.free, location, what="bytes", remedy=remedy)


def _planned(
    job: _Job,
    writer: StoreWriter,
    pending: Mapping[int, Sequence[int]],
    parameters: Mapping[str, Any],
    first: Prompt,
) -> Plan:
    """What would be written, and how long it would take: forwards of one image are timed."""
    plan = new_plan(writer, FORWARDS, sum(map(len, pending.values())))
    ours = np.isin(np.arange(len(job.found.images)), list(pending))
    for path, group in job.groups.items():
        wanted = ours if path == POOLED else job.found.seen & ours[:, None]
        add_group(plan, group, wanted=wanted)
    refuse(plan, partial(_check_space, writer.location, job.found, job.groups, None, list(pending)))
    pace = recorded_pace(writer, "cache", FORWARDS, parameters, beside=_BESIDE_PACE)
    if pace is not None:
        paced(plan, pace)
    elif plan.amount:
        laps = job.timed(first)
        timed(plan, plan.amount * median(laps[1:] or laps), f"{len(laps)} forwards timed")
    return plan


def _bytes_to_come(group: GroupWriter, wanted: np.ndarray) -> int:
    template = group.template
    missing = ~group.written()
    items = int((missing & wanted).sum())
    array = template.arrays[0]
    per_item = tuple(1 if d in template.item_dims else template.sizes[d] for d in array.dims)
    return items * nbytes(per_item, array.dtype)


@dataclass(frozen=True)
class _Job:
    """One run of `cache`."""

    found: Inputs
    model: LoadedModel
    schedule: Schedule
    names: tuple[str, ...]
    groups: dict[str, GroupWriter]
    outcome: Outcome
    mode: Mode
    finishing: Finishing = field(default_factory=Finishing)

    @cached_property
    def overlaps(self) -> bool:
        """Whether a forward is begun while the one before is under way."""
        return is_overlapped(self.model, self.found)

    @property
    def streams(self) -> dict[str, GroupWriter]:
        """Groups of residual streams, by name of the stream."""
        return {site_of(path): g for path, g in self.groups.items() if path != POOLED}

    def seen_of(self, paths: Iterable[str]) -> dict[str, np.ndarray]:
        """Masks of the items that there will be, by path of the groups that leave some out."""
        return {path: self.found.seen for path in paths if path != POOLED}

    def pending(self, position: int, *, count: bool = False) -> list[int]:
        """Positions of the steps of an image that are not complete in every stream.

        With `count`, those that are complete are counted as skipped.
        """
        lacking = self._lacking(position)
        if count:
            self.outcome.count(POOLED).skipped += bool(self.groups[POOLED].written()[position])
            for name, group in self.streams.items():
                self.outcome.count(group.template.path).skipped += int((~lacking[name]).sum())
        wanted = self.found.seen[position] & np.any(list(lacking.values()), axis=0)
        return [int(step) for step in np.flatnonzero(wanted)]

    def _lacking(self, position: int) -> dict[str, np.ndarray]:
        """Masks over the steps of an image of those that a stream does not hold, by its name."""
        return {name: ~group.written()[position] for name, group in self.streams.items()}

    def lacks(self, position: int) -> bool:
        """Whether anything of an image is missing."""
        return bool(self.pending(position)) or not self.groups[POOLED].written()[position]

    def one_image(self, position: int, prompt: Prompt | None) -> bool:
        """Write what is missing of an image: pooled conditioning, then step by step.

        False where another process holds some of it.
        """
        pooled, image = self.groups[POOLED], self.found.images[position]
        steps = self.pending(position)
        complete = bool(pooled.written()[position])
        if complete and not steps:
            return True
        if prompt is None:
            prompt = self.found.prepare(self.model, image, self.schedule)
        with pooled.claim((position,)) as held:
            complete = bool(pooled.written()[position])
            if held and not complete:
                complete = True
                values = to_numpy(prompt.conditioning.pooled)[None]
                size = pooled.put("pooled_conditioning", (position, 0, 0), values)
                pooled.commit([(position,)])
                self.outcome.wrote(POOLED, size=size)
        for start in range(0, len(steps), CLAIMED):
            some = steps[start : start + CLAIMED]
            complete &= self._some_steps(position, some, image, prompt)
        return complete

    def _some_steps(self, position: int, steps: Sequence[int], image: int, prompt: Prompt) -> bool:
        """Write steps of an image, flagging together those that took less than a flush is worth.

        False where another process holds one of them.
        """
        writers = _WRITERS if self.overlaps else 1
        with ExitStack() as stack:
            mine = {s for s in steps if self._claimed(stack, (position, s))}
            # Claimed before, so shut down first: no thread writes what is no longer held. One
            # thread more waits for the others and flags.
            pool = stack.enter_context(ThreadPoolExecutor(writers + 1))
            # What one stream holds already is not put in its place once more: a kill before the
            # flags of the others would leave a flagged file that is not the one recorded.
            lacking = self._lacking(position)
            wanted = np.any(list(lacking.values()), axis=0)
            unflagged = dict[int, Future[Sizes]]()
            flagged = time.monotonic()
            run = [step for step in steps if step in mine and wanted[step]]
            left = [step for step in steps if step not in mine and wanted[step]]
            forward = partial(self._forward, image, prompt)
            with side_by_side(forward, run, overlap=self.overlaps) as forwards:
                for step in steps:
                    label = f"{self.found.word} {image}, step {self.found.steps[step]}"
                    if step in left:
                        continue
                    if wanted[step]:
                        made = next(forwards)
                        streams = {name: made[name] for name, mask in lacking.items() if mask[step]}
                        for writing in [*unflagged.values()][: len(unflagged) - writers + 1]:
                            writing.result()
                        unflagged[step] = self._begun(pool, position, step, streams, label)
                    if time.monotonic() - flagged >= FLAG_SECONDS:
                        self.finishing.settle()  # counts are of one thread at a time
                        self._flag(position, unflagged)
                        flagged = time.monotonic()
                    self.mode.progress.advance(label)
            finish = partial(self._flag, position, unflagged)
            if any(group.backend.remote for group in self.groups.values()):
                finish()  # here, where it is known which step another writer has taken over
            else:
                self.finishing.begin(finish, pool.submit, stack.pop_all())
        return not left

    def timed(self, prompt: Prompt) -> list[float]:
        """Seconds of some forwards of the first image, written to groups that are planned."""
        laps, clock = list[float](), Clock()
        for step in np.flatnonzero(self.found.seen[0])[:_TIMED]:
            streams = self._forward(self.found.images[0], prompt, int(step))
            self._write(0, int(step), streams, f"step {self.found.steps[int(step)]}")
            laps.append(clock.lap())
        return laps

    def _claimed(self, claims: ExitStack, item: tuple[int, int]) -> bool:
        return all(claims.enter_context(g.claim(item)) for g in self.streams.values())

    def _begun(
        self, pool: Executor, position: int, step: int, streams: Streams, label: str
    ) -> Future[Sizes]:
        """The writing of one (image, step): under way where it is small, else done."""
        size = sum(x.nbytes for stream in streams.values() for x in stream.values())
        if size > _BESIDE:
            done = Future[Sizes]()
            done.set_result(self._write(position, step, streams, label))
            return done
        return pool.submit(self._write, position, step, _arrays(streams), label)

    def _write(self, position: int, step: int, streams: Streams, label: str) -> Sizes:
        """Put an (image, step) of these streams."""
        start = (position, step, 0, 0, 0, 0)
        return {
            name: self.streams[name].put("x", start, _chunks(stream, f"{name} at {label}"))
            for name, stream in streams.items()
        }

    def _flag(self, position: int, steps: dict[int, Future[Sizes]]) -> None:
        """Flag these steps of an image, once they are written, and forget them."""
        sizes = {step: writing.result() for step, writing in steps.items()}
        written = {
            group: {step: found[name] for step, found in sizes.items() if name in found}
            for name, group in self.streams.items()
        }
        some = {group: mine for group, mine in written.items() if mine}
        GroupWriter.commit_all({g: [(position, step) for step in mine] for g, mine in some.items()})
        for group, mine in some.items():
            path, size = group.template.path, sum(mine.values())
            self.outcome.wrote(path, items=len(mine), size=size)
        steps.clear()

    def _forward(self, image: int, prompt: Prompt, step: int) -> Streams:
        """Residual streams of one (image, step), evaluated in one go; arrays where they overlap."""
        number, model = self.found.steps[step], self.model
        with inside_model(f"image {image}, step {number}", model.mmdit):
            with READYING, watching_blocks(model.mmdit, self.names) as streams:
                x, sigma = self.found.latent(model, image, number), self.schedule.sigmas[step]
                model.denoise(x, self.schedule.timesteps[step], sigma, prompt)
            found = streams.by_name()
            backend().mx.eval(list(chain.from_iterable(s.values() for s in found.values())))
        return _arrays(found) if self.overlaps else found


def _arrays(streams: Streams) -> Streams:
    """The same as arrays. MLX is asked by the thread that evaluated them alone."""
    return {name: {i: to_numpy(x) for i, x in s.items()} for name, s in streams.items()}


def _chunks(stream: dict[int, Any], where: str) -> Iterator[np.ndarray]:
    """Boundaries in order as float16 ``(1, 1, 1, row, token, channel)``, freed when written."""
    for boundary in sorted(stream):
        values: Any = stream.pop(boundary)
        values = values if isinstance(values, np.ndarray) else to_numpy(values)
        what = f"boundary {boundary} of stream {where}"
        half = as_float16(values, what, remedy="leave its blocks out with --blocks")
        yield half[:, :, 0][None, None, None]
