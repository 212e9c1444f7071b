"""Rounds of `collect`: batches of statistics that are run together, for their second moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from statistics import median

import numpy as np

from taqstore.layout.item_records import Item
from taqstore.names import CHANNEL_HISTOGRAMS, SECOND_MOMENTS, split_group
from taqstore.place.location import Location
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.statistics.observation import Observation
from taqstore.store.group_writer import GroupWriter
from taqstore.store.planned import PlannedGroup

from ..models.backend import backend
from ..models.capture import Seen, watching_inputs
from ..models.failures import inside_model
from ..models.inputs import Input
from ..models.load import LoadedModel, Prompt, Tensor
from ..models.reducers import numpy_reducer
from ..models.sampling import Schedule
from ..run.dry import Clock
from ..run.inputs import Inputs
from ..run.side_by_side import READYING, is_overlapped, side_by_side
from ..run.space import free_bytes
from .beside import Beside, as_arrays, beside
from .buffers import ChannelSink, Recorder, Shelf, SiteBuffer
from .finishing import Finishing
from .second_moments import MomentSpace, SecondMoments, Sums, Unit, item_bytes, passes_of

Images = tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """What is run together.

    Parameters
    ----------
    batches
        Images of the batches of statistics that are not complete, by number of the batch.
    number, images, groups
        Batch of second moments, its images and the groups of steps that are not complete; no
        images and groups where there is nothing to sum. Of a run without second moments, `number`
        is that of the batch.
    """

    batches: Mapping[int, Images]
    number: int = 0
    images: Images = ()
    groups: Images = ()

    @property
    def everything(self) -> Images:
        """All images that are run."""
        return self.images or _all_of(self.batches)


@dataclass(frozen=True)
class Laps:
    """Seconds of getting a prompt ready, and of each of some forwards."""

    prompt: float
    forwards: list[float]

    @property
    def forward(self) -> float:
        """Of a forward; the first of all is left out, which is slower."""
        return median(self.forwards[1:] or self.forwards)


class Target:
    """One batch of statistics: its buffers, and what records its images."""

    def __init__(
        self,
        reduce: Callable[[Sequence[Tensor]], list[Observation]],
        buffers: Mapping[str, SiteBuffer],
        sinks: Mapping[str, ChannelSink],
    ) -> None:
        self.buffers, self.sinks = buffers, sinks
        self.recorder = Recorder(reduce, sinks)

    @property
    def sites(self) -> set[str]:
        """Sites that the batch lacks statistics or histograms of."""
        return {*self.buffers, *self.sinks}

    def take(self, inputs: Sequence[tuple[Input, Tensor]]) -> None:
        """Record the tensors of these sites."""
        wanted = self.sites
        self.recorder.take([(one, tensor) for one, tensor in inputs if one.site in wanted])

    def add(self) -> None:
        """Take over the step that was recorded."""
        for site, buffer in self.buffers.items():
            buffer.add(self.recorder.seen[site])

    def commit(self, outcome: Outcome) -> None:
        """Flag the batch."""
        targets: list[SiteBuffer | ChannelSink] = [*self.buffers.values(), *self.sinks.values()]
        GroupWriter.commit_all({group: [item] for group, item in (t.finish() for t in targets)})
        for target in targets:
            outcome.wrote(target.template.path, size=target.bytes_out)


@dataclass(frozen=True)
class Job:
    """One run of `collect`."""

    found: Inputs
    model: LoadedModel
    reduce: Callable[[Sequence[Tensor]], list[Observation]]
    groups: Mapping[str, GroupWriter]
    outcome: Outcome
    mode: Mode
    asked: SecondMoments | None = None
    finishing: Finishing = field(default_factory=Finishing)

    @property
    def reads_arrays(self) -> bool:
        """Whether tensors are reduced as arrays, by whatever thread."""
        return isinstance(self.reduce, partial) and self.reduce.func is numpy_reducer

    @cached_property
    def overlaps(self) -> bool:
        """Whether a forward is begun while the one before is under way."""
        return self.reads_arrays and is_overlapped(self.model, self.found)

    @cached_property
    def shelf(self) -> Shelf:
        """Memory of what was written, for what comes next."""
        return Shelf()

    @cached_property
    def schedule(self) -> Schedule:
        """Of the steps that are run."""
        return self.found.schedule(self.model)

    @cached_property
    def observed(self) -> dict[str, GroupWriter]:
        """Groups of statistics, by path."""
        return {p: g for p, g in self.groups.items() if split_group(p)[0] != SECOND_MOMENTS}

    @cached_property
    def moments(self) -> dict[str, GroupWriter]:
        """Groups of second moments, by site."""
        split = {path: split_group(path) for path in self.groups}
        return {
            split[path][1]: group
            for path, group in self.groups.items()
            if split[path][0] == SECOND_MOMENTS
        }

    @cached_property
    def passes(self) -> list[tuple[Unit, ...]]:
        """Tensors that are summed in each run over the steps of a group."""
        if self.asked is None:
            return []
        return passes_of((g.template for g in self.moments.values()), self.asked.memory)

    @cached_property
    def group_of(self) -> np.ndarray:
        """Group of each step; all in one where there are no second moments."""
        for group in self.moments.values():
            return np.asarray(group.template.coords["step_group_of"][1])
        return np.zeros(len(self.found.steps), np.int64)

    def rounds(self, batches: np.ndarray, *, again: bool = False) -> list[Round]:
        """What is not complete in every site, of batches (batch, slot) of images.

        Parameters
        ----------
        again
            Fewer of these batches were run before: what is complete of them was counted.
        """
        done, ours = _complete(self.observed), self._ours(batches)
        for path in self.observed:
            count, there = self.outcome.count(path), int((done & ours).sum())
            count.skipped = there - count.written if again else there
        pending = {int(i): _members(batches[i]) for i in np.flatnonzero(~done)}
        if not self.moments:
            return [Round({batch: images}, batch) for batch, images in pending.items()]
        found, finished = [], _complete(self.moments)
        places = self.mode.mine(range(len(finished)))
        for group in self.moments.values():
            self.outcome.count(group.template.path).skipped += int(finished[places].sum())
        template = next(iter(self.moments.values())).template
        for number, row in enumerate(template.coords["image"][1]):
            images = _members(row)
            some = {b: members for b, members in pending.items() if set(members) <= set(images)}
            groups = tuple(map(int, np.flatnonzero(~finished[number])))
            if groups:
                found.append(Round(some, number, images, groups))
            else:
                found += [Round({batch: members}, number) for batch, members in some.items()]
        return found

    def _ours(self, batches: np.ndarray) -> np.ndarray:
        """(batch,) which batches (batch, slot) belong to rounds of this process."""
        numbers, joined = np.arange(len(batches)), 1
        for group in self.moments.values():
            joined = group.template.coords["image"][1].shape[1] // batches.shape[1]
        return np.isin(numbers // joined, self.mode.mine(np.unique(numbers // joined)))

    def wanted(self, group: GroupWriter, batches: np.ndarray) -> np.ndarray:
        """Mask over the items of a group of those that this process is to write."""
        if group.template.path in self.observed:
            return self._ours(batches)
        rows = group.written().shape[0]
        return np.isin(np.arange(rows), self.mode.mine(range(rows)))[:, None]

    def mine(self, rounds: Sequence[Round]) -> dict[int, list[Round]]:
        """Those of these rounds that this process is to run, by number."""
        found: dict[int, list[Round]] = {}
        for one in rounds:
            found.setdefault(one.number, []).append(one)
        return {number: found[number] for number in self.mode.mine(found)}

    def space(self, rounds: Sequence[Round], location: Location) -> MomentSpace:
        """What second moments of these rounds will take."""
        items = sum(len(one.groups) for one in rounds)
        memory = max(sum(unit.memory for unit in units) for units in self.passes)
        size = item_bytes(group.template for group in self.moments.values())
        return MomentSpace(items * size, free_bytes(location), memory, len(self.passes))

    def forwards(self, one: Round) -> int:
        """Model calls that a round takes."""
        return sum(
            int(self._seen[image][self.group_of == group].sum())
            for group in range(int(self.group_of[-1]) + 1)
            for images, _ in self._runs(one, group)
            for image in images
        )

    @cached_property
    def _seen(self) -> dict[int, np.ndarray]:
        return dict(zip(self.found.images, self.found.seen, strict=True))

    def _runs(self, one: Round, group: int) -> list[tuple[Images, tuple[Unit, ...]]]:
        """Of each run over the steps of a group its images, and the tensors to sum.

        Statistics are observed in the first.
        """
        passes: list[tuple[Unit, ...]] = self.passes if group in one.groups else [()]
        return [
            (one.images if units else () if number else _all_of(one.batches), units)
            for number, units in enumerate(passes)
        ]

    def run(self, one: Round) -> int | None:
        """Observe the images of a round at every step and write what is missing.

        Its batches may still be under way to the disk afterwards: see `finishing`. Returns the
        forwards that it took; None where another process holds some of it.
        """
        label = f"{self.found.word} {', '.join(map(str, one.everything))}"
        with ExitStack() as stack:
            claimed, there = self._claimed(one, stack), _written(self.observed)
            left = self._left(one, there)
            if left.everything and not claimed:
                return None
            if left != one:
                self.mode.progress.advance(label, self.forwards(one) - self.forwards(left))
            if not left.everything:
                return 0
            # Claimed before, so shut down first: no thread writes what is no longer held. A thread
            # per group, for what they do is wait for the disk.
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(self.observed) + 1))
            targets = {batch: self._target(batch, pool, there) for batch in left.batches}
            self._fill(left, targets)
            finish = partial(self._commit, list(targets.values()))
            if any(group.backend.remote for group in self.groups.values()):
                finish()  # here, where it is known which batch another writer has taken over
            else:
                self.finishing.begin(finish, pool.submit, stack.pop_all())
            return self.forwards(left)

    def _commit(self, targets: Sequence[Target]) -> None:
        for target in targets:
            target.commit(self.outcome)
            for buffer in target.buffers.values():
                self.finishing.sound[buffer.template.path] += buffer.is_sound

    def timed(self, one: Round, *, most: int) -> Laps:
        """Observe some steps of the first image of a round, in groups that are planned."""
        clock, image = Clock(), one.everything[0]
        batches = {b: (image,) for b, members in one.batches.items() if image in members}
        some = replace(one, batches=batches, images=(image,) if one.images else ())
        prompts = self.found.prepare_all(self.model, some.everything, self.schedule)
        prompt, laps = clock.lap(), list[float]()
        with ThreadPoolExecutor(max_workers=len(self.observed)) as pool:
            there = _written(self.observed)
            targets = {batch: self._target(batch, pool, there) for batch in batches}
            sums = Sums(self.moments, self.passes[0] if one.groups else ())
            quiet = replace(self, mode=Mode(), outcome=Outcome())
            runner = _Runner(quiet, prompts, some, targets, sums)
            for position in np.flatnonzero(self._seen[image])[:most]:
                runner.steps((image,), np.array([position]))
                laps.append(clock.lap())
            for target in targets.values():
                for buffer in target.buffers.values():
                    group = self.groups[buffer.template.path]
                    assert isinstance(group, PlannedGroup)
                    buffer.measure(group)
        return Laps(prompt, laps)

    def _claimed(self, one: Round, stack: ExitStack) -> bool:
        """Whether all items of a round are held."""
        items: list[tuple[GroupWriter, Item]] = [
            (writer, (batch,)) for batch in one.batches for writer in self.observed.values()
        ]
        for group in one.groups:
            items += [(writer, (one.number, group)) for writer in self.moments.values()]
        return all(stack.enter_context(writer.claim(item)) for writer, item in items)

    def _left(self, one: Round, there: Mapping[str, np.ndarray]) -> Round:
        """What no other process has finished meanwhile."""
        done = np.all(list(there.values()), axis=0)
        batches = {batch: images for batch, images in one.batches.items() if not done[batch]}
        if not one.groups:
            return replace(one, batches=batches)
        finished = _complete(self.moments)[one.number]
        groups = tuple(group for group in one.groups if not finished[group])
        return replace(one, batches=batches, groups=groups, images=one.images if groups else ())

    def _target(self, batch: int, pool: Executor, there: Mapping[str, np.ndarray]) -> Target:
        """Where a batch's statistics and channel histograms go."""
        buffers: dict[str, SiteBuffer] = {}
        sinks: dict[str, ChannelSink] = {}
        for path, group in self.observed.items():
            if there[path][batch]:
                continue
            root, site = split_group(path)
            if root == CHANNEL_HISTOGRAMS:
                sinks[site] = ChannelSink(group, batch)
            else:
                buffers[site] = SiteBuffer(group, batch, pool, self.shelf)
        return Target(self.reduce, buffers, sinks)

    def _fill(self, one: Round, targets: Mapping[int, Target]) -> None:
        prompts = self.found.prepare_all(self.model, one.everything, self.schedule)
        for group in range(int(self.group_of[-1]) + 1):
            positions, written = np.flatnonzero(self.group_of == group), Counter[str]()
            for number, (images, units) in enumerate(self._runs(one, group)):
                sums = Sums(self.moments, units)
                runner = _Runner(self, prompts, one, {} if number else targets, sums)
                runner.steps(images, positions)
                written += sums.write(one.number, group)
            if group in one.groups:
                for writer in self.moments.values():
                    writer.commit([(one.number, group)])
                    self.outcome.wrote(writer.template.path, size=written[writer.template.path])


@dataclass(frozen=True)
class _Runner:
    """Runs images at some steps and shows their tensors to whom they concern."""

    job: Job
    prompts: Mapping[int, Prompt]
    round: Round
    targets: Mapping[int, Target]
    sums: Sums

    def steps(self, images: Collection[int], positions: np.ndarray) -> None:
        """Run these images, at the steps at these positions at which they are seen."""
        if not images:
            return
        owners = {
            image: self.targets[batch]
            for batch, members in self.round.batches.items()
            if batch in self.targets
            for image in members
        }
        with beside(self.job.reads_arrays) as behind:
            self._run(images, list(map(int, positions)), owners, behind)

    def _run(
        self,
        images: Collection[int],
        positions: Sequence[int],
        owners: Mapping[int, Target],
        behind: Beside,
    ) -> None:
        job, current = self.job, list[Target]()
        places = [[(i, p) for i in images if job._seen[i][p]] for p in positions]

        def take(inputs: Seen) -> None:
            behind.take(partial(self._record, tuple(current)), inputs)

        take_at_once = None if job.overlaps else take
        with (
            watching_inputs(job.model, self._sites, take_at_once) as seen,
            side_by_side(
                partial(self._forward, seen), chain.from_iterable(places), overlap=job.overlaps
            ) as forwards,
        ):
            for position, some in zip(positions, places, strict=True):
                behind.then(partial(self._begin, position))
                for image, _ in some:
                    current[:] = [owners[image]] if image in owners else []
                    if left := next(forwards):
                        take(left)
                    step = job.found.steps[position]
                    job.mode.progress.advance(f"{job.found.word} {image}, step {step}")
                behind.then(self._end)

    def _begin(self, position: int) -> None:
        for target in self.targets.values():
            target.recorder.begin(position)

    def _record(self, targets: Sequence[Target], inputs: Sequence[tuple[Input, Tensor]]) -> None:
        for target in targets:
            target.take(inputs)
        self.sums.take(inputs)

    def _end(self) -> None:
        for target in self.targets.values():
            target.add()

    @property
    def _sites(self) -> set[str]:
        """Sites whose tensors are wanted."""
        return self.sums.sites.union(*(target.sites for target in self.targets.values()))

    def _forward(self, seen: Callable[[], Seen], place: tuple[int, int]) -> Seen:
        """Run an image at a step; what was seen of it and not taken, as arrays."""
        job, (image, position) = self.job, place
        step, timestep = job.found.steps[position], job.schedule.timesteps[position]
        with inside_model(f"image {image}, step {step}", job.model.mmdit):
            with READYING:
                x, sigma = job.found.latent(job.model, image, step), job.schedule.sigmas[position]
                denoised = job.model.denoise(x, timestep, sigma, self.prompts[image])
                left = seen()
            backend().mx.eval([tensor for _, tensor in left], denoised)
            return as_arrays(left)


def _complete(groups: Mapping[str, GroupWriter]) -> np.ndarray:
    """Items that are complete in every one of these groups."""
    return np.asarray(np.all(list(_written(groups).values()), axis=0))


def _written(groups: Mapping[str, GroupWriter]) -> dict[str, np.ndarray]:
    """Masks of the items that are flagged by now, by path."""
    return {path: group.written() for path, group in groups.items()}


def _members(row: np.ndarray) -> Images:
    return tuple(int(image) for image in row if image >= 0)


def _all_of(batches: Mapping[int, Images]) -> Images:
    return tuple(image for images in batches.values() for image in images)
