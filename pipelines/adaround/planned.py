"""`adaround --dry-run`: what would be written, and how long it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from taqstore.kinds.block_samples import open_block
from taqstore.layout.template import Template
from taqstore.names import BLOCKS, RECONSTRUCTION
from taqstore.run.plan import Plan
from taqstore.store.writer import StoreWriter

from ..models.layers import ModelBlock, blocks
from ..models.rounding.checkpoint import iterations_saved
from ..run.dry import ITERATIONS, add_group, new_plan, paced, recorded_pace, timed
from .job import Job
from .prefix import prefix_streams

_TIMED = 5
# What an iteration takes, its share of the errors included, does not depend on these.
_BESIDE_PACE = ("set", "seed", "weights", "start", "chosen")


def planned(
    job: Job,
    writer: StoreWriter,
    names: Sequence[str],
    run: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> Plan:
    """Plan of these blocks, of a job whose groups are planned."""
    every, done = blocks(job.model.mmdit), job.results.blocks.written()
    names = [block.name for block in job.mine(names).values()]
    pending = _pending(job, every, names, done)
    left = {block.name: _left(job, block, run) for block in pending}
    plan = new_plan(writer, ITERATIONS, sum(left.values()))
    about = {block.name for block in pending} | {
        block.name for place, block in enumerate(every) if block.name in names and done[place]
    }
    for group in job.results.groups.values():
        add_group(plan, group, wanted=_of_blocks(group.template, about))
    if job.rolling is not None:
        job.rolling.add_to(plan, [every.index(block) for block in pending])
    elif job.prefix is not None:
        for block in pending:
            _add_prefix(plan, job, every, block)
    if job.settings.patience:
        job.results.outcome.notes.append("--patience may end blocks before all iterations")
    pace = recorded_pace(writer, "adaround", ITERATIONS, parameters, beside=_BESIDE_PACE)
    if pace is not None:
        paced(plan, pace)
    elif pending and job.rolling is None:  # no samples are there yet to be timed
        timed(plan, *_timed(job, pending, left))
    return plan


def _pending(
    job: Job, every: Sequence[ModelBlock], names: Sequence[str], done: np.ndarray
) -> list[ModelBlock]:
    """Blocks that would be rounded, in order."""
    found, ready = list[ModelBlock](), set(np.flatnonzero(done).tolist())
    for place, block in enumerate(every):
        if block.name not in names or place in ready:
            continue
        if job.prefix is not None and place and place - 1 not in ready:
            note = f"{block.name}: the block before it is not complete"
            job.results.outcome.notes.append(note)
            break
        ready.add(place)
        found.append(block)
    return found


def _left(job: Job, block: ModelBlock, run: Mapping[str, Any]) -> int:
    """Iterations of a block that are not behind its checkpoint."""
    about = {**run, "block": block.name}
    kept = job.checkpoint(about)
    saved = 0 if kept is None else iterations_saved(kept.path, about=about)
    return max(0, job.settings.iterations - saved)


def _of_blocks(template: Template, names: set[str]) -> np.ndarray:
    """Which items of a group are of these blocks."""
    label = "block"  # of each layer, or the items themselves
    assert template.kind == RECONSTRUCTION or template.item_dims == ("layer",)
    return np.isin(np.asarray(template.coords[label][1]).astype(str), sorted(names))


def _add_prefix(plan: Plan, job: Job, every: Sequence[ModelBlock], block: ModelBlock) -> None:
    """Outputs of a rounded block, which the block after it is given."""
    fed, place = job.prefix, every.index(block)
    if fed is None or place + 1 == len(every):
        return
    following, samples = every[place + 1], open_block(job.store, block.name)
    for stream in prefix_streams(following, set=fed.set):
        cached = job.store[f"{BLOCKS}/{stream}"]
        shape = tuple(cached.sizes[dim] for dim in ("row", "token", "channel"))
        group = fed.group(following, stream, shape)
        coords = group.template.coords
        wanted = np.zeros([len(coords[dim][1]) for dim in ("image", "step")], bool)
        at = [
            [np.flatnonzero(coords[dim][1] == label)[0] for label in labels]
            for dim, labels in (("image", samples.image), ("step", samples.step))
        ]
        wanted[tuple(at)] = True
        add_group(plan, group, wanted=wanted)


def _timed(job: Job, pending: Sequence[ModelBlock], left: Mapping[str, int]) -> tuple[float, str]:
    """Seconds of the blocks, from the first iterations of one of each kind."""
    seconds, count, known = 0.0, 0, dict[Any, tuple[float, float]]()
    for block in pending:
        kind = (block.unified, block.streams)
        if kind not in known:
            laps = job.open(block, {}).timed(_TIMED)
            known[kind] = median(laps.iterations[1:] or laps.iterations), laps.errors
            count += len(laps.iterations)
        iteration, errors = known[kind]
        seconds += left[block.name] * iteration + errors
    return seconds, f"{count} iterations timed"
