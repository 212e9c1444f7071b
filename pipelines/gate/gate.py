"""The gate: same prompts and seeds by the model as it is and by variants, judged step by step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, problem
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.extras import extra
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.run.progress import SILENT, Progress
from taqstore.store.reader import Store, open_store

from ..evaluate.asked import check_sets
from ..evaluate.linears_of_variant import Options
from ..evaluate.variants import Variant
from ..judge.figures import Picture, figures_of
from ..judge.judged import Chosen, Judged, choose, judged, make_float, run_beside
from ..judge.kept import Kept, Sampled, open_kept
from ..judge.place import planning
from ..judge.planned import plan_kept, plan_time
from ..models.adapter import fetching
from ..models.backend import LIBRARIES
from ..models.table import DIFFUSIONKIT
from ..run.dry import FORWARDS, new_plan
from ..run.record import record_run
from .against import Change, changes, check_comparable, matched
from .against import read_record as read_record
from .record import describe, make_record
from .subjects import Subject, packed_name, packed_subject, planner_of, subject_of
from .verdict import Bounds, Verdict

SEEDS = 25


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Parameters
    ----------
    verdicts
        Of each variant, in the order asked.
    prompts, seeds
        Of each image.
    record
        Document of `gate-record.schema.json`.
    changes
        Variants beside those of an earlier record.
    notes
        What the user should know, a line each.
    """

    verdicts: tuple[Verdict, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    record: dict[str, Any] = field(repr=False)
    changes: tuple[Change, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Whether all variants do, and none is worse than it was."""
        kept = all(verdict.passes for verdict in self.verdicts)
        return kept and not any(change.worse for change in self.changes)

    def reason(self, verdict: Verdict) -> str:
        """Why a variant fails, its worst prompt, seed and step named."""
        worst = verdict.worst
        where = f"worst: {self.prompts[worst.place]!r}, seed {self.seeds[worst.place]}"
        return (
            f"{verdict.name}: {'; '.join(verdict.failures)}; {where}, "
            f"step {worst.step}, cosine {worst.cosine:.6g}"
        )


@takes_storage_options
def gate(
    store: Store | str | os.PathLike[str],
    *,
    variants: Sequence[Variant] = (),
    packed: Sequence[str | os.PathLike[str]] = (),
    count: int = SEEDS,
    options: Options | None = None,
    bounds: Bounds | None = None,
    prompts: str | os.PathLike[str] | None = None,
    pictures: bool = False,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    against: dict[str, Any] | None = None,
    progress: Progress = SILENT,
    storage_options: StorageOptions | None = None,
) -> Gate:
    """Judge variants by their trajectories beside those of the model as it is.

    All trajectories are kept in the store, those of variants by what runs, so that nothing runs
    twice: not in another call, nor where a call was killed. One trajectory is in memory at a time.

    Parameters
    ----------
    store, model, local_ckpt
        As of `cache`.
    variants, packed
        What is judged: variants, and folders of `taqstore export mlx`.
    count
        How many images, each with a seed that the store does not have.
    options
        What names of variants leave open.
    bounds
        What they have to keep.
    prompts
        File with prompts; None: the model's own, else those of the store in turn.
    pictures
        Compare pictures also where they take the model's VAE.
    against
        Record of an earlier gate; see `read_record`.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        Nothing is to be judged, a variant is not known, or the record is of another model, schedule
        or of other images.
    MissingError
        The store lacks latents, or what a variant needs.
    """
    options, bounds = options or Options(), bounds or Bounds()
    opened = open_store(store)
    _check(opened, variants, packed, options)
    with judged(
        opened,
        count=count,
        prompts=prompts,
        model=model,
        local_ckpt=local_ckpt,
        made=False,
    ) as beside:
        read = (prompts, options.config, options.allocation, options.weights)
        files = [Path(path) for path in read if path]
        about = describe(beside, opened, bounds, files=files)
        if against is not None:
            check_comparable(about, against)
            matched([*(way.name for way in variants), *map(packed_name, packed)], against)
        job = _Job(beside, progress, pictures)
        subjects = partial(_subjects, beside, opened, variants, packed, options)
        job.make_float(len(variants) + len(packed))
        verdicts = tuple(job.judge(subject, bounds) for subject in subjects())
        notes = [*beside.notes, *job.notes]
        record = make_record(about, verdicts, beside)
        record_run(
            beside.writer,
            "gate",
            job.outcome,
            parameters={
                "variants": [verdict.name for verdict in verdicts],
                "seeds": count,
                "bounds": asdict(bounds),
                **beside.run,
            },
            inputs=files,
            libraries=LIBRARIES,
            resume=True,
        )
    compared = () if against is None else tuple(changes(record, against))
    return Gate(verdicts, beside.prompts, beside.seeds, record, compared, notes)


def _check(
    store: Store,
    variants: Sequence[Variant],
    packed: Sequence[str | os.PathLike[str]],
    options: Options,
) -> None:
    if not variants and not packed:
        remedy = "--variant NAME, or --packed DIR of export mlx"
        raise MisuseError(problem("nothing is to be judged", remedy=remedy))
    if variants:
        options.check(variants)
        check_sets([part for way in variants for part in options.parts(way)], store)


def _subjects(
    beside: Chosen,
    store: Store,
    variants: Sequence[Variant],
    packed: Sequence[str | os.PathLike[str]],
    options: Options,
) -> Iterator[Subject]:
    """One after the other, so that the weights of one are gone when the next is made."""
    ways = list(dict.fromkeys(variants))
    planner = planner_of(beside.model, store, options, ways)
    for way in ways:
        yield subject_of(way, planner)
    for folder in packed:
        yield packed_subject(Path(folder), beside.model, dict(beside.found.run))


@dataclass
class _Job:
    """One run of `gate`."""

    beside: Judged
    progress: Progress
    pictures: bool
    outcome: Outcome = field(default_factory=Outcome)
    notes: list[str] = field(default_factory=list)

    def make_float(self, subjects: int) -> None:
        """Sample what the model as it is has not sampled yet."""
        kept, steps = self.beside.kept, self.beside.schedule.steps
        self.progress.start((len(kept.absent()) + subjects * len(self.beside.images)) * steps)
        make_float(self.beside, self.progress)
        self._count(kept)

    def judge(self, subject: Subject, bounds: Bounds) -> Verdict:
        """Sample what of a variant is not kept, and measure all of it."""
        kept = kept_of(self.beside, subject)
        absent = set(kept.absent())
        model = subject.model() if absent else None

        def pairs() -> Iterator[tuple[Sampled, Sampled]]:
            for place, image in enumerate(self.beside.images):
                if model is not None and place in absent:
                    run = partial(run_beside, self.beside, model, place)
                    other = kept.make(place, run)
                else:
                    other = kept.at(place)
                self.progress.advance(f"{subject.name}, image {image}", self.beside.schedule.steps)
                yield self.beside.at(place), other

        figures = figures_of(pairs(), picture=self._picture())
        if kept is not self.beside.kept:
            self._count(kept)
        return Verdict(subject.name, subject.digest, kept.path, figures, bounds)

    def _count(self, kept: Kept) -> None:
        done, counts = kept.outcome.count(kept.path), self.outcome.count(kept.path)
        counts.written += done.written
        counts.bytes_out += done.bytes_out
        counts.skipped += len(self.beside.images) - done.written

    def _picture(self) -> Picture | None:
        """What decodes a latent; None where that takes a VAE and is not asked for, or not there."""
        model = self.beside.model
        if model.row.decoder == DIFFUSIONKIT and not self.pictures:
            return None
        found: list[Picture] = []
        with extra("PSNR of pictures", self.notes):
            np.asarray(model.picture(model.to_model(self.beside.at(0).x[-1])))
            found.append(lambda latent: np.asarray(model.picture(model.to_model(latent))))
        self.notes[:] = dict.fromkeys(self.notes)
        return found[0] if found else None


def kept_of(beside: Judged, subject: Subject) -> Kept:
    """Where trajectories of a variant are kept; of the model as it is, those there are."""
    if not subject.digest:
        return beside.kept
    return open_kept(
        beside.writer,
        beside.asked,
        beside.schedule,
        shape=beside.found.latent_shape,
        run=beside.run,
        variant=subject.name,
        digest=subject.digest,
        average_bits=subject.average_bits,
        stored=beside.stored,
    )


@takes_storage_options
def gate_costs(
    store: Store | str | os.PathLike[str],
    *,
    variants: Sequence[Variant] = (),
    packed: Sequence[str | os.PathLike[str]] = (),
    count: int = SEEDS,
    options: Options | None = None,
    bounds: Bounds | None = None,
    prompts: str | os.PathLike[str] | None = None,
    pictures: bool = False,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> Plan:
    """What `gate` would run and keep: images, forwards and bytes of each group of trajectories.

    Weights are rounded, which says what is kept already; some forwards of the model as it is are
    run to time them, and nothing is written. `bounds` and `pictures` cost nothing here. Raises as
    `gate`.

    Parameters
    ----------
    storage_options
        As of `taqstore.open_store`.
    """
    options, opened = options or Options(), open_store(store)
    _check(opened, variants, packed, options)
    with fetching(False):
        chosen = choose(opened, count=count, prompts=prompts, model=model, local_ckpt=local_ckpt)
    with planning(opened) as writer:
        plan = new_plan(writer, FORWARDS)
        plan_kept(plan, writer, chosen)
        for subject in _subjects(chosen, opened, variants, packed, options):
            if subject.digest:
                plan_kept(
                    plan,
                    writer,
                    chosen,
                    name=subject.name,
                    digest=subject.digest,
                    average_bits=subject.average_bits,
                )
    plan_time(plan, chosen)
    return plan
