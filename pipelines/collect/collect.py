"""Collect: statistics of every distinct linear input, a batch of images at a time. Wiring only."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from taqstore.asked import meant, words_of
from taqstore.errors import MisuseError, TaqError, problem
from taqstore.kinds import nonfinite
from taqstore.kinds import second_moments as moment_groups
from taqstore.kinds.coverage import coverage_attrs
from taqstore.kinds.templates import activations_template, channel_histograms_template
from taqstore.layout.template import Template
from taqstore.names import ACTIVATIONS, EVERY_SITE
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.statistics.bins import Layout
from taqstore.statistics.observation import MANTISSA_BITS
from taqstore.store.reader import Store, open_store

from ..models.adapter import fetching
from ..models.backend import LIBRARIES
from ..models.inputs import Input
from ..models.load import LoadedModel
from ..models.reducers import Reducer, default_reducer
from ..run.dry import FORWARDS, Clock, laid_out, open_writer, work_done
from ..run.groups import RUN, open_groups
from ..run.inputs import Inputs, Samples, model_of, read_inputs, stride_of
from ..run.record import record_run
from ..tasks.units import Call, run_units
from .finishing import Finishing
from .planned import planned
from .rounds import Job, Round
from .second_moments import MomentSpace, check_space, joined_batches
from .second_moments import SecondMoments as SecondMoments
from .until_enough import Stop
from .until_enough import UntilEnough as UntilEnough

# Every how many steps of latents.
STRIDE = 2
# Of one site: what is held of a batch before it is written.
SHARD_BYTES = 16 << 20
# 496 bins of float16: what thousands of channels can afford.
CHANNEL_MANTISSA_BITS = 3


@takes_storage_options
def collect(
    store: Store | str | os.PathLike[str],
    *,
    images: Iterable[int] | None = None,
    stride: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    sites: Sequence[str] | None = None,
    histogram_bits: int = MANTISSA_BITS,
    per_channel: Sequence[str] | None = None,
    images_per_batch: int = 1,
    second_moments: SecondMoments | None = None,
    until_enough: UntilEnough | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    reducer: Reducer | None = None,
    on_space: Callable[[MomentSpace], None] | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Run latents or samples of a store through their model and keep statistics of linear inputs.

    Parameters
    ----------
    store, images, stride, num_samples, seed, model
        As of `read_inputs`, every second step of latents; a store that is open sees afterwards
        what was written.
    sites
        Out of `names.SITES` and `names.MODEL_SITES`; None: all that the model has, and in a resumed
        run those that the store has statistics of.
    histogram_bits
        Mantissa bits of the histograms.
    per_channel
        Sites that also get a histogram of every channel, with up to 3 mantissa bits.
    images_per_batch
        Images whose statistics are merged into one batch; of samples, how many a batch has at
        every step at least.
    second_moments
        Sums of x x^T of the same tensors; None: none. What is complete is not run again, so that
        a store that has statistics gets these alone, with `Mode.resume`.
    until_enough
        Stop as soon as so many batches are enough: those after them are not there, and can be
        added with `Mode.resume`. None: all.
    local_ckpt
        Weights, where the latents were made with a checkpoint of the user's own.
    reducer
        What makes observations of tensors; None: as `default_reducer` chooses.
    on_space
        Told, before anything is written, what second moments will take.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    TaqError
        The model cannot run, a site is not known or not in the model, or histograms of channels
        are asked for batches with several images at a step.
    StoreError
        The store holds activations of another configuration, or second moments would not fit.
    """
    mode, outcome = mode or Mode(), Outcome()
    opened = open_store(store, chunks=None, checksum=True)
    begun = _begun(opened, sites, mode)
    wanted, notes = _checked_sites(begun, sites)
    channel_sites = _checked_per_channel(per_channel or (), wanted, images_per_batch)
    every = _stride_begun(opened, begun) or STRIDE
    found = read_inputs(
        opened,
        images=images,
        stride=stride,
        latents_stride=every,
        model=model,
        num_samples=num_samples,
        seed=seed,
    )
    batches = found.batches(images_per_batch)
    _check_until(until_enough, found, second_moments, mode)
    if channel_sites:
        _check_one_by_one(found, batches)
    with fetching(not mode.dry_run):
        loaded = model_of(found, local_ckpt=local_ckpt)
    inputs = _inputs_at(loaded, wanted, asked=sites is not None)
    channel_sites = tuple(site for site in channel_sites if site in inputs)
    coarse = Layout(_dtype(loaded), min(histogram_bits, CHANNEL_MANTISSA_BITS))
    reduce = partial(reducer or default_reducer(), mantissa_bits=histogram_bits)

    weights = sum(one.weights for one in loaded.inputs())

    def templates_of(some: np.ndarray) -> list[Template]:
        observed = {
            site: _template(found, loaded, site, some, histogram_bits, inputs, weights)
            for site in inputs
        }
        channel = [channel_histograms_template(observed[site], coarse) for site in channel_sites]
        moments = _moment_templates(second_moments, observed, some, images_per_batch)
        return [*observed.values(), *channel, *moments]

    stop, said = Stop(until_enough, batches), dict[str, Any]()
    again = {
        # Those of now: a task may find more that are complete.
        "images": None if isinstance(found, Samples) else found.images,
        "stride": stride_of(found, stride, every),
        "num_samples": num_samples,
        "seed": seed,
        "sites": tuple(inputs),
        "histogram_bits": histogram_bits,
        "per_channel": channel_sites,
        "images_per_batch": images_per_batch,
        "second_moments": second_moments,
        "model": model,
        "local_ckpt": local_ckpt,
        "reducer": reducer,
    }
    parameters = {
        **found.summary(),
        "stride": stride_of(found, stride, every),
        "num_samples": num_samples,
        "sites": list(inputs),
        "histogram_bits": histogram_bits,
        "per_channel": list(channel_sites),
        "images_per_batch": images_per_batch,
        **({} if second_moments is None else {"second_moments": asdict(second_moments)}),
    }
    with open_writer(opened.location, mode) as writer:
        if mode.dry_run:
            groups = open_groups(writer, templates_of(batches), mode)
            job = Job(found, loaded, reduce, groups, outcome, mode, second_moments)
            outcome.plan = planned(job, writer, batches, parameters)
            bound = ["--until-enough may stop before all of this"] if until_enough else []
            outcome.notes += [*bound, *notes]
            return outcome
        if mode.groups_only:
            groups = open_groups(writer, templates_of(batches), mode)
            job = Job(found, loaded, reduce, groups, outcome, mode, second_moments)
            forwards = sum(map(job.forwards, job.rounds(batches)))
            outcome.plan = laid_out(writer, groups, unit=FORWARDS, amount=forwards)
            return outcome
        ran, clock, finishing = list[int](), Clock(), Finishing()
        for part in stop.portions:
            how = mode if part.first else replace(mode, resume=True, force=False)
            groups = open_groups(writer, templates_of(part.batches), how)
            job = Job(found, loaded, reduce, groups, outcome, mode, second_moments, finishing)
            units = job.mine(job.rounds(part.batches, again=not part.first))
            rounds = [one for some in units.values() for one in some]
            if second_moments is not None and mode.only is None:
                space = job.space(rounds, writer.location)
                if on_space:
                    on_space(space)
                check_space(space, writer.location)
            if part.first or rounds:
                mode.progress.start(stop.total + sum(map(job.forwards, rounds)))
                stop.total += sum(map(job.forwards, rounds))
            run_units(
                units,
                partial(_run_rounds, job, ran),
                called=Call(collect, (opened.location,), again),
                mode=mode,
                outcome=outcome,
                left_note=partial(_left_note, found.word),
                close=writer.close_flags,
                attempt=finishing.settled,
            )
            opened.refresh(*groups)
            said = stop.said(opened, list(inputs), part)
            if said.get("enough"):
                break
        record_run(
            writer,
            "collect",
            outcome,
            parameters={**parameters, **({"until_enough": said} if said else {})},
            libraries=LIBRARIES,
            mode=mode,
            work=work_done(FORWARDS, sum(ran), clock.lap()),
        )
        sound = finishing.all_sound(job.observed)
    outcome.notes += [said["note"]] if said else []
    outcome.notes += [*notes, *([] if sound else nonfinite.notes(opened, groups))]
    outcome.notes += moment_groups.notes(opened, groups)
    return outcome


def _left_note(word: str, rounds: Sequence[Round]) -> str:
    some = ", ".join(str(image) for one in rounds for image in one.everything)
    return f"{word} {some}: left to another process that is writing it"


def _run_rounds(job: Job, ran: list[int], rounds: Sequence[Round]) -> bool:
    """Run rounds and keep how many forwards each took; False where another process holds one."""
    taken = [job.run(one) for one in rounds]
    ran += [forwards for forwards in taken if forwards is not None]
    return None not in taken


def _check_until(
    asked: UntilEnough | None,
    found: Inputs,
    second_moments: SecondMoments | None,
    mode: Mode,
) -> None:
    """Refuse what cannot stop early."""
    if asked is None:
        return
    if mode.shard is not None or mode.groups_only:
        what = "whether statistics are enough is seen of all batches, not of a shard or a plan"
        raise MisuseError(problem(what, remedy="leave --until-enough out"))
    if second_moments is not None:
        what = "second moments are summed over several images, and stop at no image"
        remedy = "collect until enough first, then second moments with --resume"
        raise MisuseError(problem(what, remedy=remedy))
    if isinstance(found, Samples):
        what = "samples of a Phase 1 file are dealt to batches before the first is run"
        raise MisuseError(problem(what, remedy="leave --until-enough out"))


def _begun(store: Store, sites: Sequence[str] | None, mode: Mode) -> tuple[str, ...]:
    """Sites that a resumed run goes on with where none are named; none: it is no such run.

    All groups of a run are made before its first batch: with a batch, those there are are all.
    """
    if sites is not None or not mode.resume or mode.force:
        return ()
    every = [site for site in EVERY_SITE if f"{ACTIVATIONS}/{site}" in store]
    return tuple(every) if any(store.mask(f"{ACTIVATIONS}/{s}").any() for s in every) else ()


def _stride_begun(store: Store, begun: Sequence[str]) -> int:
    """Every how many steps a run that is gone on with has; 0: there is none, or a single step."""
    if not begun:
        return 0
    steps = store[f"{ACTIVATIONS}/{begun[0]}"]["step"].values
    return int(steps[1] - steps[0]) if len(steps) > 1 else 0


def _checked_sites(
    begun: tuple[str, ...], sites: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Sites to observe, in store order, and what is to be said of them."""
    words_of(sites or (), EVERY_SITE, "site")
    if begun and begun != EVERY_SITE:
        others = ",".join(site for site in EVERY_SITE if site not in begun)
        return begun, [f"the sites of the store were resumed; --sites {others} adds the others"]
    return tuple(site for site in EVERY_SITE if sites is None or site in sites), []


def _inputs_at(model: LoadedModel, sites: Sequence[str], *, asked: bool) -> dict[str, list[Input]]:
    """Inputs of a model by site; of sites that were asked for by name, none may be missing."""
    every = model.inputs()
    found = {site: [one for one in every if one.site == site] for site in sites}
    lacking = [site for site, inputs in found.items() if not inputs]
    if lacking and asked:
        there = dict.fromkeys(one.site for one in every)
        what = f"{model.row.name} has no site {', '.join(lacking)}"
        raise MisuseError(problem(what, remedy=meant(lacking[0], there)))
    return {site: inputs for site, inputs in found.items() if inputs}


def _checked_per_channel(
    per_channel: Sequence[str], sites: Collection[str], images_per_batch: int
) -> tuple[str, ...]:
    outside = [site for site in per_channel if site not in sites]
    if outside:
        what = f"histograms of channels are asked for {', '.join(outside)}, which is not observed"
        raise MisuseError(problem(what, remedy=meant(outside[0], sites)))
    if per_channel and images_per_batch > 1:
        what = "histograms of channels are written tensor by tensor"
        remedy = "leave --images-per-batch at 1; batches add exactly"
        raise MisuseError(problem(what, remedy=remedy))
    return tuple(dict.fromkeys(per_channel))


def _check_one_by_one(found: Inputs, batches: np.ndarray) -> None:
    """Refuse batches of samples that have several at a step: their tensors are written alone."""
    seen = dict(zip(found.images, found.seen, strict=True))
    most = max(int(sum(seen[i] for i in row if i >= 0).max()) for row in batches.tolist())
    if most > 1:
        what = f"histograms of channels are written tensor by tensor, a batch has {most} at a step"
        remedy = "draw as many samples at every timestep with --num-samples, or leave them out"
        raise TaqError(problem(what, remedy=remedy))


def _template(
    found: Inputs,
    model: LoadedModel,
    site: str,
    batches: np.ndarray,
    histogram_bits: int,
    inputs: Mapping[str, Sequence[Input]],
    weights: int,
) -> Template:
    return activations_template(
        site,
        layers=[one.layer for one in inputs[site]],
        channels=inputs[site][0].channels,
        steps=found.steps,
        sigmas=found.sigmas,
        timesteps=found.timesteps,
        images=batches,
        layout=Layout(_dtype(model), histogram_bits),
        dtype=_dtype(model),
        shard_bytes=SHARD_BYTES,
        attrs={RUN: found.summary(), **_coverage(inputs[site], weights)},
    )


def _moment_templates(
    asked: SecondMoments | None,
    observed: Mapping[str, Template],
    batches: np.ndarray,
    images_per_batch: int,
) -> list[Template]:
    if asked is None:
        return []
    joined = joined_batches(batches, asked.batches_of(images_per_batch))
    group_of = asked.groups_of(next(iter(observed.values())).sizes["step"])
    return [asked.template(t, site, joined, group_of) for site, t in observed.items()]


def _coverage(inputs: Sequence[Input], weights: int) -> dict[str, Any]:
    """Which linears read a site's tensors, and how many weights the whole model has."""
    linears = {
        one.layer: {reader.name.full: reader.shape[0] for reader in one.readers} for one in inputs
    }
    return coverage_attrs(linears, weights)


def _dtype(model: LoadedModel) -> str:
    """Stored dtype of extrema: bfloat16 has no Zarr dtype and is observed as float32."""
    return "float16" if model.dtype == "float16" else "float32"
