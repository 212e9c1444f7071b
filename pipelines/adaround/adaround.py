"""AdaRound: cached streams of a store -> integer weights, steps and errors of each block."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from taqstore.errors import MissingError, problem
from taqstore.kinds import nonfinite
from taqstore.kinds.weights import METHODS
from taqstore.names import ACTIVATIONS, BLOCKS, RECONSTRUCTION, Block
from taqstore.query.sites import paths_of
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import create_store

from ..models.backend import LIBRARIES
from ..models.layers import blocks, chosen_blocks
from ..models.load import LoadedModel
from ..models.rounding import Settings
from ..run.groups import RUN, open_groups
from ..run.record import record_run
from ..run.trajectories import load_model_of
from .activation_inputs import ActivationPlan, read_inputs
from .one_block import NEAREST_BY_CLIP, BlockWork, Checkpoint, check_samples
from .prefix import PrefixWriter, prefix_streams
from .result_groups import BlockResult, RoundingWriter, rounding_templates

_CHECKPOINT_SECONDS = 60.0


def adaround(
    store: Store | str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    plan: ActivationPlan | None = None,
    chosen: Sequence[str] | None = None,
    prefix: bool = False,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = _CHECKPOINT_SECONDS,
    mode: Mode | None = None,
) -> Outcome:
    """Quantize the weights of a store's model, block by block, from its cached streams.

    Several processes may work on one store: each takes blocks that no other is working on.

    Parameters
    ----------
    store
        Path or URL, or a store that is open, which sees afterwards what was written.
    settings, plan
        Of weights and optimiser, and of activations.
    chosen
        Blocks (`mm0`, `uni4`); None: all whose inputs and outputs are cached.
    prefix
        Give each block what the quantized blocks before it put out, in place of the cached input;
        blocks are then quantized in order. Targets stay those of the floating-point model.
    model, local_ckpt
        As of `cache`.
    checkpoint_seconds
        How often the state of a block is put beside the store, to go on from.

    Raises
    ------
    MissingError
        Streams, activations or conditioning that are needed are not in the store.
    TaqError
        The model cannot run, options do not fit it, or the store holds other weights.
    """
    mode, outcome = mode or Mode(), Outcome()
    settings = settings or Settings()
    plan = plan or ActivationPlan()
    opened = open_store(store, chunks=None, checksum=True)
    made_by = _run_of(opened, model)
    loaded = load_model_of(made_by, local_ckpt=local_ckpt)
    names = _chosen(opened, loaded, chosen)
    inputs = read_inputs(open_store(opened), plan, bits=settings.activation_bits)
    if settings.activation_bits:
        outcome.notes += nonfinite.notes(opened, paths_of(opened, ACTIVATIONS))
    for name in names:
        check_samples(opened, name, settings)
    run = _summary(settings, plan, loaded, opened) | {"prefix": prefix}
    templates = rounding_templates(loaded, settings, inputs, run)
    with create_store(opened.location.url) as writer:
        groups = open_groups(writer, templates, mode)
        results = RoundingWriter(groups, inputs, settings.activation_bits, outcome)
        folder = writer.location.folder and writer.location.beside("adaround")
        fed = PrefixWriter(writer, opened, run, mode.force, outcome) if prefix else None
        job = _Job(opened, loaded, settings, results, fed, folder, checkpoint_seconds, mode)
        job.run_blocks(names, run)
        record_run(
            writer, "adaround", outcome, parameters={**run, "blocks": names}, libraries=LIBRARIES
        )
    opened.refresh(*outcome.groups, *groups)
    return outcome


def _run_of(store: Store, model: str | None) -> dict[str, Any]:
    """What `load_model_of` wants; text encoders beyond CLIP are not needed here."""
    streams = [path for path in store if path.startswith(f"{BLOCKS}/")]
    if not streams:
        what, remedy = "no residual streams of blocks", "taqstore cache keeps them"
        raise MissingError(problem(what, where=str(store.location), remedy=remedy))
    recorded = store[streams[0]].attrs.get(RUN)
    if recorded is None and model is None:
        what = "these streams do not say which model made them"
        raise MissingError(problem(what, remedy="name it with --model"))
    run = {"model": model, "weights": None, "dtype": None} if recorded is None else recorded
    return {**run, "use_t5": False, "shift": None}


def _chosen(store: Store, model: LoadedModel, chosen: Sequence[str] | None) -> list[str]:
    names = chosen_blocks(model.mmdit, chosen, model=model.row.name)
    return [name for name in names if chosen is not None or _is_cached(store, name)]


def _is_cached(store: Store, block: str) -> bool:
    known = Block.parse(block)
    path = f"{BLOCKS}/{known.streams[0]}"
    ends = {known.index, known.index + 1}
    return path in store and ends <= set(store[path]["boundary"].values.tolist())


def _summary(
    settings: Settings, plan: ActivationPlan, model: LoadedModel, store: Store
) -> dict[str, Any]:
    """What groups made by this run must agree in."""
    blocks_run: dict[str, Any] = next(
        (
            store[p].attrs[RUN]
            for p in store
            if p.startswith(f"{BLOCKS}/") and RUN in store[p].attrs
        ),
        {},
    )
    return {
        **asdict(settings),
        "beta": list(settings.beta),
        "rule": plan.rule,
        "time_groups": plan.groups,
        "activation_clip": plan.clip,
        "shifted": list(plan.shifted),
        "model": model.row.name,
        "weights": model.digest,
        "dtype": model.dtype,
        "blocks": blocks_run,
    }


def block_errors(
    store: Store | str | os.PathLike[str], *, chosen: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """What each complete block's output lost, a row for each stream.

    `adaround`, `rtn` and `clipped` are mean squared errors by the mean square of the output.
    `against` is which of the other two has the weight steps that AdaRound had, `clipped` where its
    bounds were those of least squared error, and `ratio` is the error of AdaRound by that one's.
    `inputs` says what all three were given: `cached` streams, or, with `prefix`, `quantized` ones,
    whose error is then part of theirs.
    """
    found = open_store(store)[RECONSTRUCTION].compute()
    run: Mapping[str, Any] = found.attrs.get(RUN, {})
    against = NEAREST_BY_CLIP[run.get("clip", "absmax")]
    rows = []
    for block, stream in product(found["block"].values, found["stream"].values):
        one = found.sel(block=block, stream=stream)
        power = float(one["output_power"])
        if np.isnan(power) or (chosen is not None and block not in chosen):
            continue
        error = {m: float(one["output_error"].sel(rounding_method=m)) for m in METHODS}
        rows.append(
            {"block": str(block), "stream": str(stream)}
            | {method: value / power for method, value in error.items()}
            | {"against": against, "ratio": error["adaround"] / error[against]}
            | {"inputs": "quantized" if run.get("prefix") and block != "mm0" else "cached"}
            | {"iterations": int(one["iterations"]), "seconds": float(one["seconds"])}
        )
    return rows


@dataclass(frozen=True)
class _Job:
    """One run of `adaround`."""

    store: Store
    model: LoadedModel
    settings: Settings
    results: RoundingWriter
    prefix: PrefixWriter | None
    folder: Path | None
    checkpoint_seconds: float
    mode: Mode

    def run_blocks(self, names: Sequence[str], run: Mapping[str, Any]) -> None:
        """Quantize the blocks that are not complete."""
        group, outcome = self.results.blocks, self.results.outcome
        done = group.written()
        every = [(i, b) for i, b in enumerate(blocks(self.model.mmdit)) if b.name in names]
        pending = [(i, block) for i, block in every if not done[i]]
        outcome.count(RECONSTRUCTION).skipped += len(every) - len(pending)
        self.mode.progress.start(len(pending) * self.settings.iterations)
        for place, block in pending:
            if self.prefix and place and not group.written()[place - 1]:
                outcome.notes.append(f"{block.name}: the block before it is not complete")
                return
            with group.claim((place,)) as held:
                if held and not group.written()[place]:
                    self._one_block(place, {**run, "block": block.name})
                    continue
            outcome.notes.append(f"{block.name}: left to another process that is working on it")

    def _one_block(self, place: int, about: Mapping[str, Any]) -> None:
        begun, every = monotonic(), blocks(self.model.mmdit)
        block = every[place]
        given = prefix_streams(block) if self.prefix and place else {}
        # Written since the store was opened, by the block before, in this process or another.
        self.store.refresh(*(f"{BLOCKS}/{name}" for name in given.values()))
        work = BlockWork.open(
            self.store, self.model, block, self.settings, self.results.inputs, given=given
        )
        checkpoint = None
        if self.folder is not None:
            path = self.folder / f"{block.name}.safetensors"
            checkpoint = Checkpoint(path, about, self.checkpoint_seconds)
        rounding = work.learn(checkpoint, self.mode.progress)
        result = BlockResult(
            work.optimiser.rounded(),
            work.errors(),
            work.optimiser.losses,
            rounding,
            monotonic() - begun,
        )
        if self.prefix and place + 1 < len(every):
            self.prefix.write(every[place + 1], work.samples, work.outputs())
        self.results.write(block.name, result)
        if checkpoint is not None:
            checkpoint.remove()
