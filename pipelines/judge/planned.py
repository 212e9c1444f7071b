"""What judged images would take: trajectories that would be kept, and the time of a forward."""

from __future__ import annotations

from itertools import islice
from statistics import median

from taqstore.kinds.trajectories import FLOAT
from taqstore.run.plan import Plan
from taqstore.store.writer import StoreWriter

from ..models.load import LoadedModel, Prompt
from ..models.sampling import Schedule, trajectory
from ..run.dry import Clock, add_group, timed
from .judged import Chosen, prepared
from .kept import Kept, open_kept

_TIMED = 3


def plan_kept(
    plan: Plan,
    writer: StoreWriter,
    chosen: Chosen,
    *,
    name: str = FLOAT,
    digest: str = "",
    average_bits: float | None = None,
) -> Kept:
    """Add the trajectories of a variant, or of the model as it is, and their forwards to a plan.

    Parameters
    ----------
    name, digest, average_bits
        As of `open_kept`; none: the model as it is.
    """
    kept = open_kept(
        writer,
        chosen.asked,
        chosen.schedule,
        shape=chosen.found.latent_shape,
        run=chosen.run,
        variant=name,
        digest=digest,
        average_bits=average_bits,
    )
    add_group(plan, kept.group)
    plan.group(kept.path).of = name
    plan.amount += len(kept.absent()) * chosen.schedule.steps
    return kept


def plan_time(plan: Plan, chosen: Chosen) -> None:
    """Time forwards of the model as it is, if there are any to come."""
    if plan.amount:
        prompt = prepared(chosen.found, chosen.model, chosen.schedule, chosen.asked, 0)
        seed, shape = chosen.asked.seeds[0], chosen.found.latent_shape
        time_forwards(plan, chosen.model, prompt, chosen.schedule, seed=seed, shape=shape)


def time_forwards(
    plan: Plan,
    model: LoadedModel,
    prompt: Prompt,
    schedule: Schedule,
    *,
    seed: int,
    shape: tuple[int, int, int],
) -> None:
    """Time the first steps of an image of this seed and shape; variants take as long."""
    clock, laps = Clock(), list[float]()
    steps = trajectory(model, prompt, schedule, seed=seed, latent_size=shape[:2])
    for _ in islice(steps, _TIMED + 1):
        laps.append(clock.lap())
    # Before the first x there is no forward, and the first forward is slower than others.
    forward = median(laps[2:] or laps[1:])
    timed(plan, plan.amount * forward, f"{len(laps) - 1} forwards of the model as it is timed")
