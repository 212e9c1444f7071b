"""`collect --dry-run`: what would be written, and how long it would take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from taqstore.run.plan import Plan
from taqstore.store.writer import StoreWriter

from ..run.dry import (
    FORWARDS,
    add_group,
    new_plan,
    paced,
    recorded_pace,
    refuse,
    timed,
    unknown_shares,
)
from .rounds import Job
from .second_moments import check_space

# Forwards of one image that are timed, and whose histograms are compressed.
_TIMED = 4
# What a forward takes does not depend on these.
_BESIDE_PACE = ("stride", "num_samples", "images_per_batch", "until_enough", "latents", "samples",
                "negative_prompt", "weights")  # fmt: skip


def planned(
    job: Job, writer: StoreWriter, batches: np.ndarray, parameters: Mapping[str, Any]
) -> Plan:
    """Plan of batches (batch, slot) of images, of a job whose groups are planned."""
    rounds = [one for some in job.mine(job.rounds(batches)).values() for one in some]
    plan = new_plan(writer, FORWARDS, sum(map(job.forwards, rounds)))
    if job.asked is not None:
        refuse(plan, partial(check_space, job.space(rounds, writer.location), writer.location))
    pace = recorded_pace(writer, "collect", FORWARDS, parameters, beside=_BESIDE_PACE)
    groups, laps = job.groups.values(), None
    if rounds and plan.refused is None and (pace is None or unknown_shares(groups)):
        laps = job.timed(rounds[0], most=_TIMED)
    for group in groups:
        add_group(plan, group, wanted=job.wanted(group, batches))
    if pace is not None:
        paced(plan, pace)
    elif laps is not None:
        images = sum(len(one.everything) for one in rounds)
        seconds = images * laps.prompt + plan.amount * laps.forward
        timed(plan, seconds, f"{len(laps.forwards)} forwards timed")
    return plan
