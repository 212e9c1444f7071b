"""One block of `adaround`: its samples, its optimisation with checkpoints, its errors."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from taqstore.errors import MissingError, TaqError, problem
from taqstore.kinds.block_samples import Batch, BlockSamples, open_block
from taqstore.kinds.minibatches import batch_order, iter_batches
from taqstore.kinds.weights import INPUTS, START, time_group_of
from taqstore.names import BLOCKS, LATENTS, SAMPLES, LayerName
from taqstore.quantization.weight_grid import (
    WeightClip,
    dequantized,
    round_to_nearest,
    weight_steps,
)
from taqstore.run.progress import Progress
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store

from ..models.backend import backend
from ..models.failures import placed
from ..models.layers import ModelBlock
from ..models.load import LoadedModel, to_numpy
from ..models.rounding import (
    BlockRun,
    Errors,
    Minibatch,
    Optimiser,
    Settings,
    WeightStart,
    positions_of,
)
from ..models.rounding.checkpoint import Kept, load_state, save_state
from ..run.dry import Clock
from .activation_inputs import SiteInputs
from .result_groups import kept_iterations
from .weight_start import WeightSet

# Simpler roundings that AdaRound is measured against, and the rule of their step sizes.
_BASELINES: dict[str, WeightClip] = {"rtn": "absmax", "clipped": "mse"}
NEAREST_BY_CLIP = {str(clip): method for method, clip in _BASELINES.items()}
"""Which rounding to nearest has the steps that AdaRound has by a rule of `Settings.clip`."""
_HELD_BYTES = 256 << 20


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often the state of a block is kept.

    Parameters
    ----------
    path
        A file beside the store.
    about
        What is optimised and how; a state of anything else is not gone on from.
    seconds
        Between two writes.
    """

    path: Path
    about: Mapping[str, Any]
    seconds: float

    def save(self, optimiser: Optimiser, kept: Kept) -> None:
        """Write the state, with what is kept beside it."""
        save_state(self.path, optimiser, about=self.about, kept=kept)

    def load(self, optimiser: Optimiser) -> Kept:
        """Go on from the state, where there is one; what was kept so far."""
        return load_state(self.path, optimiser, about=self.about)

    def remove(self) -> None:
        """Remove it, and its folder with the last one."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # never made, or other blocks are at work
            self.path.parent.rmdir()


@dataclass(frozen=True)
class Laps:
    """Seconds of each of some iterations, and of the errors of a block over all samples."""

    iterations: list[float]
    errors: float


@dataclass(frozen=True)
class BlockWork:
    """A block with all that its optimisation needs; make it with `open`."""

    samples: BlockSamples
    store: Store
    settings: Settings
    inputs: Mapping[str, SiteInputs]
    given: Mapping[str, str]
    cached: Mapping[str, str]
    optimiser: Optimiser
    start: Mapping[LayerName, WeightStart] | None = None

    @classmethod
    def open(
        cls,
        store: Store,
        model: LoadedModel,
        block: ModelBlock,
        settings: Settings,
        inputs: Mapping[str, SiteInputs],
        *,
        given: Mapping[str, str],
        cached: Mapping[str, str] | None = None,
        start: WeightSet | None = None,
    ) -> BlockWork:
        """Find the samples of a block and start its optimiser.

        Parameters
        ----------
        given
            Streams that take the place of the cached inputs, by stream.
        cached
            What `open_block` calls the cached streams, by stream; None: as they are.
        start
            Set that roundings start from.

        Raises
        ------
        MissingError
            Samples or activations are not in the store.
        """
        cached = cached or {name: name for name in block.streams}
        samples = open_block(store, block.name, streams=[*cached.values(), *given.values()])
        samples = samples.held(_HELD_BYTES)
        first = samples.read([0])
        tokens = (
            first.inputs[cached["txt"]].shape[2]
            if "txt" in cached
            else _text_tokens(store, cached["uni"])
        )
        positions = positions_of(model, latent_size=_latent_size(store), text_tokens=tokens)
        run = BlockRun(model, block, positions)
        starts = {}
        if settings.activation_bits:
            starts = {name: inputs[name.site].start(name) for name, _ in run.linears}
        weights = None if start is None else {name: start.of(name) for name, _ in run.linears}
        optimiser = Optimiser(run, settings, starts, weights)
        return cls(samples, store, settings, inputs, given, cached, optimiser, weights)

    def learn(self, checkpoint: Checkpoint | None, progress: Progress, *, begun: float) -> Kept:
        """Optimise to the end.

        Parameters
        ----------
        begun
            When this session's work on the block did, on the clock of `monotonic`.

        Returns
        -------
        The rounding terms at the iterations that are kept, and the time of earlier sessions.
        """
        optimiser, settings = self.optimiser, self.settings
        found = checkpoint.load(optimiser) if checkpoint else Kept()
        kept, saved = kept_iterations(settings.iterations), monotonic()
        name = self.samples.block
        progress.advance(name, optimiser.iteration)
        with closing(self._minibatches(optimiser.iteration)) as minibatches:
            while not optimiser.done:
                if optimiser.iteration in kept:
                    found.rounding[optimiser.iteration] = optimiser.rounding_loss()
                with placed(f"{name}, iteration {optimiser.iteration}"):
                    loss = optimiser.learn(next(minibatches))
                progress.advance(f"{name}: loss {loss:.3g}")
                if checkpoint and monotonic() - saved >= checkpoint.seconds:
                    spent = found.seconds + monotonic() - begun
                    checkpoint.save(optimiser, Kept(found.rounding, spent))
                    saved = monotonic()
        progress.advance(name, settings.iterations - optimiser.iteration)
        return found

    def timed(self, most: int) -> Laps:
        """Run some iterations, and a batch of the errors, to see what they take."""
        optimiser, clock, laps = self.optimiser, Clock(), list[float]()
        with closing(self._minibatches(optimiser.iteration)) as minibatches:
            for minibatch in islice(minibatches, min(most, self.settings.iterations)):
                optimiser.learn(minibatch)
                laps.append(clock.lap())
        weights = optimiser.hard_weights()
        clock.lap()
        optimiser.errors([next(self._every())], weights, "float")
        kinds = len(INPUTS) if self.settings.activation_bits else 1
        methods = 1 + len(_BASELINES) + (self.start is not None)
        batches = -(-len(self.samples) // self.settings.batch)
        return Laps(laps, clock.lap() * kinds * methods * batches)

    def _minibatches(self, start: int) -> Generator[Minibatch, None, None]:
        with closing(self._batches(start)) as batches:
            for batch in batches:
                yield self._minibatch(batch, weighted=True)

    def _batches(self, start: int) -> Generator[Batch, None, None]:
        """Batches in random order, read ahead where they are not in memory."""
        size, seed = self.settings.batch, self.settings.seed
        if self.samples.in_memory:
            order = batch_order(len(self.samples), batch_size=size, seed=seed)
            return (self.samples.read(numbers) for numbers in islice(order, start, None))
        return iter_batches(
            self.store,
            self.samples.block,
            batch_size=size,
            seed=seed,
            start=start,
            streams=[*self.cached.values(), *self.given.values()],
        )

    def _minibatch(self, batch: Batch, *, weighted: bool) -> Minibatch:
        mx, model = backend().mx, self.optimiser.run.model
        sigma = batch.sigma
        assert sigma is not None
        dtype = model.pipeline.activation_dtype
        return Minibatch(
            {
                name: mx.array(batch.inputs[self.given.get(name, self.cached[name])])
                for name in self.optimiser.run.block.streams
            },
            {name: mx.array(x) for name, x in batch.targets.items()},
            mx.array(batch.pooled).astype(dtype),
            mx.array(batch.timestep).astype(dtype),
            {site: time_group_of(sigma, found.sigma_lower) for site, found in self.inputs.items()},
            self._weight(sigma) if weighted and self.settings.sigma_power else None,
        )

    def _weight(self, sigma: np.ndarray) -> np.ndarray:
        """What samples count: a power of sigma, scaled to a mean of 1 over the cached steps."""
        power, stream = self.settings.sigma_power, next(iter(self.cached.values()))
        every = self.store[f"{BLOCKS}/{stream}"]["sigma"].values.astype(np.float64)
        return np.asarray(sigma.astype(np.float64) ** power / np.mean(every**power))

    def errors(self) -> dict[str, dict[str, Errors]]:
        """Errors over all samples by method and inputs: each rounding with each of the same inputs.

        Without quantized inputs there is `float` alone.
        """
        optimiser, modules = self.optimiser, [module for _, module in self.optimiser.run.linears]
        weights = {"adaround": optimiser.hard_weights()}
        for method, clip in _BASELINES.items():
            weights[method] = [self._nearest(module.weight, clip) for module in modules]
        if self.start is not None:
            weights[START] = [self.start[name].weights() for name, _ in optimiser.run.linears]
        inputs = INPUTS if self.settings.activation_bits else INPUTS[:1]
        return {
            method: {kind: optimiser.errors(self._every(), given, kind) for kind in inputs}
            for method, given in weights.items()
        }

    def outputs(self) -> Iterator[dict[str, np.ndarray]]:
        """Outputs of the rounded block, sample by sample in their order."""
        return self.optimiser.outputs(self._every())

    def _nearest(self, weight: Any, clip: WeightClip) -> np.ndarray:
        values, settings = to_numpy(weight.astype(backend().mx.float32)), self.settings
        steps = weight_steps(values, bits=settings.bits, group_size=settings.group_size, clip=clip)
        return dequantized(round_to_nearest(values, steps, bits=settings.bits), steps)

    def _every(self) -> Iterator[Minibatch]:
        size = self.settings.batch
        for start in range(0, len(self.samples), size):
            stop = min(start + size, len(self.samples))
            yield self._minibatch(self.samples.read(np.arange(start, stop)), weighted=False)


def fitting_batch(
    store: Store, names: Iterable[str], settings: Settings, *, samples: int | None = None
) -> tuple[Settings, list[str]]:
    """Settings with a number of samples, and a note where the default is more than there are.

    Parameters
    ----------
    samples
        How many every block has, where they are not cached.
    """
    if settings.batch_size is not None:
        return settings, []
    fewest, block = min(
        (len(open_block(store, name)) if samples is None else samples, name) for name in names
    )
    size = min(settings.batch, fewest)
    told = f"a batch is {size} samples, all that {block} has; --batch-size takes fewer"
    return replace(settings, batch_size=size), [told] if size < settings.batch else []


def check_samples(
    store: Store,
    block: str,
    settings: Settings,
    model: LoadedModel,
    *,
    streams: Sequence[str] | None = None,
) -> None:
    """Refuse, before anything is written, a block that cannot be optimised.

    Raises
    ------
    MissingError
        Samples or their conditioning are not in the store.
    TaqError
        There are fewer than a batch, batches do not fit the memory budget, or they are no streams
        of this model.
    """
    first = open_block(store, block, streams=streams).read([0])
    if first.pooled is None or first.timestep is None or first.sigma is None:
        what = f"blocks need pooled conditioning, timestep and sigma to run {block}"
        remedy = "taqstore cache keeps them"
        raise MissingError(problem(what, where=str(store.location), remedy=remedy))
    config, (_, rows, pooled) = model.mmdit.config, first.pooled.shape
    widths = {name: (x.shape[1], x.shape[3]) for name, x in first.inputs.items()}
    if {*widths.values(), (rows, config.hidden_size)} != {(model.rows, config.hidden_size)} or (
        pooled != config.pooled_text_embed_dim
    ):
        what = f"streams of {block} are none of {model.row.name}"
        found = f"(row, channel) {widths}, pooled conditioning {(rows, pooled)}"
        where, remedy = str(store.location), "name the model that made them"
        raise TaqError(problem(what, where=where, found=found, remedy=remedy))
    iter_batches(store, block, batch_size=settings.batch, streams=streams)


def _latent_size(store: Store) -> tuple[int, int] | None:
    made = [attribute_of(store[p], "run", {}) for p in store if p.startswith(f"{BLOCKS}/")]
    path = SAMPLES if any(SAMPLES in run for run in made) else LATENTS
    if path not in store:
        return None
    sizes = store[path].sizes
    return sizes["height"], sizes["width"]


def _text_tokens(store: Store, stream: str) -> int:
    """Text tokens of a model whose unified blocks hold text and image in one stream."""
    path, alone = f"{BLOCKS}/txt", store[f"{BLOCKS}/{stream}"].attrs.get("text_tokens")
    if alone is not None:
        return int(alone)
    return int(store[path].sizes["token"]) if path in store else 0
