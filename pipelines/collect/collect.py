"""Collect: statistics of every distinct linear input, a batch of images at a time. Wiring only."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.kinds import nonfinite
from taqstore.kinds.coverage import coverage_attrs
from taqstore.kinds.templates import activations_template, channel_histograms_template
from taqstore.layout.template import Template
from taqstore.names import ACTIVATIONS, CHANNEL_HISTOGRAMS, MODEL_SITES, SITES, split_group
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.statistics.bins import Layout
from taqstore.statistics.observation import MANTISSA_BITS, Observation
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import create_store

from ..models.backend import LIBRARIES, backend
from ..models.capture import watching_inputs
from ..models.failures import inside_model
from ..models.inputs import Input
from ..models.load import LoadedModel, Prompt, Tensor
from ..models.reducers import Reducer, default_reducer
from ..models.sampling import Schedule
from ..run.groups import RUN, open_groups
from ..run.inputs import Inputs, model_of, read_inputs, stride_of
from ..run.record import record_run
from .buffers import ChannelSink, Recorder, SiteBuffer

KNOWN = (*SITES, *MODEL_SITES)
# Every how many steps of latents.
STRIDE = 2
# Of one site: what is held of a batch before it is written.
SHARD_BYTES = 16 << 20
# 496 bins of float16: what thousands of channels can afford.
CHANNEL_MANTISSA_BITS = 3


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
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    reducer: Reducer | None = None,
    mode: Mode | None = None,
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
    local_ckpt
        Weights, where the latents were made with a checkpoint of the user's own.
    reducer
        What makes observations of tensors; None: as `default_reducer` chooses.

    Raises
    ------
    TaqError
        The model cannot run, a site is not known or not in the model, or histograms of channels
        are asked for batches with several images at a step.
    StoreError
        The store holds activations of another configuration.
    """
    mode, outcome = mode or Mode(), Outcome()
    opened = open_store(store, chunks=None, checksum=True)
    wanted, notes = _checked_sites(_begun(opened, sites, mode), sites)
    channel_sites = _checked_per_channel(per_channel or (), wanted, images_per_batch)
    found = read_inputs(
        opened,
        images=images,
        stride=stride,
        latents_stride=STRIDE,
        model=model,
        num_samples=num_samples,
        seed=seed,
    )
    batches = found.batches(images_per_batch)
    if channel_sites:
        _check_one_by_one(found, batches)
    loaded = model_of(found, local_ckpt=local_ckpt)
    inputs = _inputs_at(loaded, wanted, asked=sites is not None)
    templates = {
        site: _template(found, loaded, site, batches, histogram_bits, inputs) for site in inputs
    }
    channel_sites = tuple(site for site in channel_sites if site in inputs)
    coarse = Layout(_dtype(loaded), min(histogram_bits, CHANNEL_MANTISSA_BITS))
    channel = [channel_histograms_template(templates[site], coarse) for site in channel_sites]
    with create_store(opened.location.url) as writer:
        groups = open_groups(writer, [*templates.values(), *channel], mode)
        reduce = partial(reducer or default_reducer(), mantissa_bits=histogram_bits)
        job = _Job(found, loaded, reduce, found.schedule(loaded), groups, outcome, mode)
        pending = job.pending()
        mode.progress.start(job.forwards(batches[pending]))
        for batch in pending:
            job.one_batch(batch, [int(image) for image in batches[batch] if image >= 0])
        parameters = {
            **found.summary(),
            "stride": stride_of(found, stride, STRIDE),
            "num_samples": num_samples,
            "sites": list(inputs),
            "histogram_bits": histogram_bits,
            "per_channel": list(channel_sites),
            "images_per_batch": images_per_batch,
        }
        record_run(
            writer,
            "collect",
            outcome,
            parameters=parameters,
            libraries=LIBRARIES,
            resume=mode.resume,
        )
    opened.refresh(*groups)
    outcome.notes += [*notes, *nonfinite.notes(opened, groups)]
    return outcome


def _begun(store: Store, sites: Sequence[str] | None, mode: Mode) -> tuple[str, ...]:
    """Sites that a resumed run goes on with where none are named; none: it is no such run.

    All groups of a run are made before its first batch: with a batch, those there are are all.
    """
    if sites is not None or not mode.resume or mode.force:
        return ()
    every = [site for site in KNOWN if f"{ACTIVATIONS}/{site}" in store]
    return tuple(every) if any(store.mask(f"{ACTIVATIONS}/{s}").any() for s in every) else ()


def _checked_sites(
    begun: tuple[str, ...], sites: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Sites to observe, in store order, and what is to be said of them."""
    unknown = [site for site in sites or () if site not in KNOWN]
    if unknown:
        what = f"site {', '.join(unknown)} is not known"
        raise MisuseError(problem(what, remedy=f"choose {', '.join(KNOWN)}"))
    if begun and begun != KNOWN:
        others = ",".join(site for site in KNOWN if site not in begun)
        return begun, [f"the sites of the store were resumed; --sites {others} adds the others"]
    return tuple(site for site in KNOWN if sites is None or site in sites), []


def _inputs_at(model: LoadedModel, sites: Sequence[str], *, asked: bool) -> dict[str, list[Input]]:
    """Inputs of a model by site; of sites that were asked for by name, none may be missing."""
    every = model.inputs()
    found = {site: [one for one in every if one.site == site] for site in sites}
    lacking = [site for site, inputs in found.items() if not inputs]
    if lacking and asked:
        there = ", ".join(dict.fromkeys(one.site for one in every))
        what = f"{model.row.name} has no site {', '.join(lacking)}"
        raise MisuseError(problem(what, remedy=f"choose {there}"))
    return {site: inputs for site, inputs in found.items() if inputs}


def _checked_per_channel(
    per_channel: Sequence[str], sites: Collection[str], images_per_batch: int
) -> tuple[str, ...]:
    outside = [site for site in per_channel if site not in sites]
    if outside:
        what = f"histograms of channels are asked for {', '.join(outside)}, which is not observed"
        raise MisuseError(problem(what, found=f"sites {', '.join(sites)}"))
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
        attrs={RUN: found.summary(), **_coverage(model, inputs[site])},
    )


def _coverage(model: LoadedModel, inputs: Sequence[Input]) -> dict[str, Any]:
    """Which linears read a site's tensors, and how many weights the whole model has."""
    linears = {
        one.layer: {reader.name.full: reader.shape[0] for reader in one.readers} for one in inputs
    }
    return coverage_attrs(linears, sum(one.weights for one in model.inputs()))


def _dtype(model: LoadedModel) -> str:
    """Stored dtype of extrema: bfloat16 has no Zarr dtype and is observed as float32."""
    return "float16" if model.dtype == "float16" else "float32"


@dataclass(frozen=True)
class _Job:
    """One run of `collect`."""

    found: Inputs
    model: LoadedModel
    reduce: Callable[[Sequence[Tensor]], list[Observation]]
    schedule: Schedule
    groups: dict[str, GroupWriter]
    outcome: Outcome
    mode: Mode

    def pending(self) -> list[int]:
        """Batches that are not complete in every site."""
        done = np.all([group.written() for group in self.groups.values()], axis=0)
        for path in self.groups:
            self.outcome.count(path).skipped += int(done.sum())
        return [int(batch) for batch in np.flatnonzero(~done)]

    def forwards(self, batches: np.ndarray) -> int:
        """Model calls that batches (batch, slot) take."""
        return int(self.found.seen[np.isin(self.found.images, batches)].sum())

    def one_batch(self, batch: int, images: Sequence[int]) -> None:
        """Observe a batch at every step and write it."""
        label = f"{self.found.word} {', '.join(map(str, images))}"
        with ExitStack() as stack:
            groups = self.groups.values()
            held = [stack.enter_context(group.claim((batch,))) for group in groups]
            if not all(held) or all(group.written()[batch] for group in groups):
                self.outcome.notes.append(f"{label}: left to another process that is writing it")
                self.mode.progress.advance(label, self.forwards(np.array([images])))
                return
            # Claimed before, so shut down first: no thread writes what is no longer held. A thread
            # per group, for what they do is wait for the disk.
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(groups)))
            buffers, sinks = self._buffers(batch, pool)
            self._fill(buffers, sinks, images)
            targets: list[SiteBuffer | ChannelSink] = [*buffers.values(), *sinks.values()]
            for target in targets:
                target.commit()
                self.outcome.wrote(target.template.path, size=target.bytes_out)

    def _buffers(
        self, batch: int, pool: Executor
    ) -> tuple[dict[str, SiteBuffer], dict[str, ChannelSink]]:
        """Where a batch's statistics and channel histograms go that are not there, by site."""
        by_kind: tuple[dict[str, SiteBuffer], dict[str, ChannelSink]] = {}, {}
        for path, group in self.groups.items():
            if group.written()[batch]:
                continue
            root, site = split_group(path)
            if root == CHANNEL_HISTOGRAMS:
                by_kind[1][site] = ChannelSink(group, batch)
            else:
                by_kind[0][site] = SiteBuffer(group, batch, pool)
        return by_kind

    def _fill(
        self,
        buffers: Mapping[str, SiteBuffer],
        sinks: Mapping[str, ChannelSink],
        images: Sequence[int],
    ) -> None:
        found = self.found
        prompts = found.prepare_all(self.model, images, self.schedule)
        seen = dict(zip(found.images, found.seen, strict=True))
        recorder = Recorder(self.reduce, sinks)
        with watching_inputs(self.model, {*buffers, *sinks}, recorder.take):
            for position, step in enumerate(found.steps):
                recorder.begin(position)
                for image, prompt in prompts.items():
                    if seen[image][position]:
                        self._forward(image, position, prompt)
                        self.mode.progress.advance(f"{found.word} {image}, step {step}")
                for site, buffer in buffers.items():
                    buffer.add(recorder.seen[site])

    def _forward(self, image: int, position: int, prompt: Prompt) -> None:
        x = self.found.latent(self.model, image, self.found.steps[position])
        timestep, sigma = self.schedule.timesteps[position], self.schedule.sigmas[position]
        with inside_model(f"image {image}, step {self.found.steps[position]}", self.model.mmdit):
            backend().mx.eval(self.model.denoise(x, timestep, sigma, prompt))
