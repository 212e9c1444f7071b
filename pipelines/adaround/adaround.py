"""AdaRound: cached streams of a store -> integer weights, steps and errors of each block."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, MisuseError, TaqError, problem
from taqstore.kinds import nonfinite
from taqstore.kinds.weight_sets import ADAROUND, check_set, folder_of, reconstruction_path
from taqstore.kinds.weights import INPUTS, START
from taqstore.names import ACTIVATIONS, BLOCKS, STREAMS, WEIGHTS, Block
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.query.sites import paths_of
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store, open_store

from ..models.adapter import fetching
from ..models.backend import LIBRARIES
from ..models.inputs import check_floats, every_reader
from ..models.layers import blocks, chosen_blocks
from ..models.load import LoadedModel
from ..models.rounding import Settings
from ..run.dry import ITERATIONS, Clock, laid_out, open_writer, work_done
from ..run.groups import RUN, open_groups
from ..run.record import record_run
from ..run.trajectories import load_model_of
from ..tasks.units import Call
from .activation_inputs import ActivationPlan, read_inputs
from .job import Job
from .one_block import NEAREST_BY_CLIP, check_samples, fitting_batch
from .planned import planned
from .prefix import PrefixWriter
from .result_groups import RoundingWriter, rounding_templates
from .rolled import Rolled
from .rolled import RollingInputs as RollingInputs
from .rolling import Rolling
from .weight_start import WeightSet

_CHECKPOINT_SECONDS = 60.0


@takes_storage_options
def adaround(
    store: Store | str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    plan: ActivationPlan | None = None,
    chosen: Sequence[str] | None = None,
    prefix: bool = False,
    rolling: RollingInputs | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = _CHECKPOINT_SECONDS,
    set: str = ADAROUND,
    start: str | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
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
    rolling
        Latents or samples to run in the place of cached blocks: what a block is given and puts out
        is computed when its turn comes and dropped when it is done, so that two boundaries of each
        stream are kept at most. Blocks are quantized in order; the result is, to the bit, that of
        blocks cached before.
    model, local_ckpt
        As of `cache`.
    checkpoint_seconds
        How often the state of a block is put beside the store, to go on from.
    set
        Name of the weight set to write; others are left alone. The set `adaround` of an older
        version is gone on with where it lies.
    start
        Weight set to begin from, such as `gptq`, whose grids are kept: bits, group size and clip of
        `settings` are then not used. Each weight chooses between its integer there and the
        neighbour on the side of the floating-point weight.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        No set can be called so.
    MissingError
        Streams, activations or conditioning that are needed are not in the store.
    TaqError
        The model cannot run, options do not fit it, or the store holds other weights.
    """
    mode, outcome = mode or Mode(), Outcome()
    check_set(set)
    _check_in_order("a prefix", prefix, mode)
    _check_in_order("rolling boundaries", rolling is not None, mode)
    settings = settings or Settings()
    plan = plan or ActivationPlan()
    opened = open_store(store, chunks=None, checksum=True)
    made_by = None if rolling else _run_of(opened, model)
    rolled = None
    with fetching(not mode.dry_run):
        if rolling is not None:
            rolled = Rolled.open(opened, rolling, model=model, local_ckpt=local_ckpt, set=set)
        loaded = rolled.model if rolled else load_model_of(made_by or {}, local_ckpt=local_ckpt)
    check_floats(every_reader(loaded.mmdit))
    names = _chosen(opened, loaded, chosen, cached=rolled is None)
    inputs = read_inputs(open_store(opened), plan, bits=settings.activation_bits)
    if settings.activation_bits:
        outcome.notes += nonfinite.notes(opened, paths_of(opened, ACTIVATIONS))
    count = None if rolled is None else len(rolled)
    settings, notes = fitting_batch(opened, names, settings, samples=count)
    outcome.notes += notes
    if rolled is None:
        for name in names:
            check_samples(opened, name, settings, loaded)
    else:
        rolled.check(names, settings.batch)
    folder = folder_of(opened.paths, set)
    begun_from = _start(opened, loaded, start, names, set=set)
    if begun_from is not None:
        settings = begun_from.settings(settings)
    streams = _run_of_streams(opened) if rolled is None else rolled.found.summary()
    run = _summary(settings, plan, loaded, streams or {}) | {"prefix": prefix}
    # A group that an older version began is gone on with as it is.
    run |= {} if folder == WEIGHTS else {"method": ADAROUND, "grid": "symmetric"}
    if begun_from is not None:
        told = begun_from.summary()
        run |= {"start": told, "grid": told.get("grid", "symmetric")}
    path = reconstruction_path(set)
    begun = opened[path] if path in opened and not mode.force else None
    compared = begun is None or "method_error" in begun
    templates = rounding_templates(
        loaded, settings, inputs, run, compared=compared, set=set, folder=folder, start=begun_from
    )
    parameters = {**run, "set": set, "blocks": names}
    if rolling is not None:
        parameters["rolling"] = {**asdict(rolling), "stride": rolled and rolled.stride(rolling)}
    with open_writer(opened.location, mode) as writer:
        groups = open_groups(writer, templates, mode)
        results = RoundingWriter(groups, inputs, settings, outcome)
        own = "adaround" if set == ADAROUND else f"adaround-{set}"
        states = writer.location.folder and writer.location.beside(own)
        boundaries = Rolling(rolled, writer, opened, mode) if rolled else None
        labels = boundaries.labels if boundaries else None
        fed = PrefixWriter(writer, opened, run, mode.force, outcome, set, labels)
        job = Job(
            opened,
            loaded,
            settings,
            results,
            fed if prefix else None,
            states,
            checkpoint_seconds,
            mode,
            begun_from,
            boundaries,
        )
        if mode.dry_run:
            outcome.plan = planned(job, writer, names, run, parameters)
            return outcome
        if mode.groups_only:
            amount = len(job.pending(names)) * settings.iterations
            outcome.plan = laid_out(writer, groups, unit=ITERATIONS, amount=amount)
            return outcome
        again = {
            "settings": settings,
            "plan": plan,
            "chosen": names,
            "model": model,
            "local_ckpt": local_ckpt,
            "checkpoint_seconds": checkpoint_seconds,
            "set": set,
            "start": start,
        }
        called = Call(adaround, (opened.location,), again)
        clock = Clock()
        job.run_blocks(names, run, called, writer.close_flags)
        ran = outcome.count(path).written * settings.iterations
        record_run(
            writer,
            "adaround",
            outcome,
            parameters=parameters,
            libraries=LIBRARIES,
            mode=mode,
            # A plateau ends a block where it likes: no pace is told by it.
            work=work_done(ITERATIONS, 0 if settings.patience else ran, clock.lap()),
        )
    opened.refresh(*outcome.groups, *groups)
    return outcome


def _check_in_order(what_it_has: str, given_in_order: bool, mode: Mode) -> None:
    """Refuse to share out blocks that wait for each other."""
    for name, given in (("shard", mode.shard), ("scheduler", mode.scheduler)):
        if given_in_order and given is not None:
            waits = "each block waits for the one before it"
            what = f"with {what_it_has} {waits}: no {name} goes faster"
            raise MisuseError(problem(what, remedy=f"leave --{name} out"))


def _start(
    store: Store, model: LoadedModel, start: str | None, names: Sequence[str], *, set: str
) -> WeightSet | None:
    if start is None:
        return None
    if start == set:
        what = f"the set {set} cannot start from itself"
        raise MisuseError(problem(what, remedy="write another --set"))
    chosen = [block for block in blocks(model.mmdit) if block.name in names]
    return WeightSet.open(open_store(store), start, chosen, model)


def _run_of(store: Store, model: str | None) -> dict[str, Any]:
    """What `load_model_of` wants; text encoders beyond CLIP are not needed here."""
    recorded = _run_of_streams(store)
    if recorded is None and model is None:
        what = "these streams do not say which model made them"
        raise MissingError(problem(what, remedy="name it with --model"))
    run = {"model": model, "weights": None, "dtype": None} if recorded is None else recorded
    return {**run, "use_t5": False, "shift": None}


def _run_of_streams(store: Store) -> dict[str, Any] | None:
    """What made the cached streams; None where they do not say.

    Raises
    ------
    MissingError
        There are none.
    TaqError
        They were not made by one run.
    """
    paths = [path for path in (f"{BLOCKS}/{name}" for name in STREAMS) if path in store]
    if not paths:
        what, remedy = "no residual streams of blocks", "taqstore cache keeps them"
        raise MissingError(problem(what, where=str(store.location), remedy=remedy))
    runs: dict[str, dict[str, Any] | None] = {p: attribute_of(store[p], RUN) for p in paths}
    first, *others = runs
    for path in others:
        if runs[path] != runs[first]:
            what = f"{first} and {path} were not made by one run"
            remedy = "cache them together into another store, or here with --force"
            raise TaqError(problem(what, where=str(store.location), remedy=remedy))
    return runs[first]


def _chosen(
    store: Store, model: LoadedModel, chosen: Sequence[str] | None, *, cached: bool
) -> list[str]:
    names = chosen_blocks(model.mmdit, chosen, model=model.row.name)
    asked = chosen is not None or not cached
    return [name for name in names if asked or _is_cached(store, name)]


def _is_cached(store: Store, block: str) -> bool:
    known = Block.parse(block)
    path = f"{BLOCKS}/{known.streams[0]}"
    ends = {known.index, known.index + 1}
    return path in store and ends <= set(store[path]["boundary"].values.tolist())


def _summary(
    settings: Settings, plan: ActivationPlan, model: LoadedModel, streams: Mapping[str, Any]
) -> dict[str, Any]:
    """What groups made by this run must agree in."""
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
        "blocks": dict(streams),
    }


def block_errors(
    store: Store | str | os.PathLike[str],
    *,
    chosen: Sequence[str] | None = None,
    set: str = ADAROUND,
) -> list[dict[str, Any]]:
    """What each complete block's output lost, a row for each stream and kind of inputs.

    `adaround`, `rtn` and `clipped` are mean squared errors by the mean square of the output, all
    with the same `inputs` of linears: `float` (weights alone), `first` (quantized as the
    optimisation began) or `learned` (as it ended). `adaround/rtn` and `adaround/clipped` are
    quotients of these. `against` is which of them has the weight steps that AdaRound had,
    `clipped` where its bounds were those of least squared error, and `start` where it began from
    another set. Where a store has no errors for
    each kind of inputs, `inputs` is `mixed`: AdaRound's are learned, the others' first. With
    `prefix`, what comes into the block is in all of them what the quantized blocks before it give.
    """
    found = open_store(store)[reconstruction_path(set)].compute()
    run: Mapping[str, Any] = attribute_of(found, RUN, {})
    methods = [str(name) for name in found["rounding_method"].values]
    against = START if START in methods else NEAREST_BY_CLIP[run.get("clip", "absmax")]
    rows = []
    for block, stream in product(found["block"].values, found["stream"].values):
        one = found.sel(block=block, stream=stream)
        power = float(one["output_power"])
        if np.isnan(power) or (chosen is not None and block not in chosen):
            continue
        for inputs, error in _by_inputs(one).items():
            rows.append(
                {"block": str(block), "stream": str(stream), "inputs": inputs}
                | {method: value / power for method, value in error.items()}
                | {f"adaround/{m}": _quotient(error["adaround"], error[m]) for m in methods[1:]}
                | {"against": against}
                | {"iterations": int(one["iterations"]), "seconds": float(one["seconds"])}
            )
    return rows


def _by_inputs(one: xr.Dataset) -> dict[str, dict[str, float]]:
    """Errors of a stream by inputs, then by method; without inputs of which none is known."""
    if "method_error" not in one:
        return {"mixed": _by_method(one["output_error"])}
    found = {i: _by_method(one["method_error"].sel(inputs=i)) for i in INPUTS}
    return {i: errors for i, errors in found.items() if not all(map(np.isnan, errors.values()))}


def _by_method(errors: xr.DataArray) -> dict[str, float]:
    methods = map(str, errors["rounding_method"].values)
    return {method: float(errors.sel(rounding_method=method)) for method in methods}


def _quotient(error: float, other: float) -> float:
    return error / other if other else float("nan")
