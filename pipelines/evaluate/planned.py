"""`evaluate --dry-run`: what would be run and kept, and how long it would take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.plan import Plan
from taqstore.store.planned import plan_store
from taqstore.store.reader import Store, open_store

from ..judge.judged import choose
from ..judge.planned import plan_kept, time_forwards
from ..models.adapter import fetching
from ..run.dry import FORWARDS, new_plan
from .asked import ask, check
from .linears_of_variant import Options
from .variants import Variant


@takes_storage_options
def evaluate_costs(
    store: Store | str | os.PathLike[str],
    *,
    variants: Sequence[Variant] | None = None,
    images: Iterable[int] | None = None,
    stride: int = 1,
    options: Options | None = None,
    digits: int = 0,
    held_out: int = 0,
    prompts: str | os.PathLike[str] | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> Plan:
    """What `evaluate` would run, and keep of held-out images; parameters and errors as of it.

    Some forwards of the model as it is are run to time them; nothing is written.

    Parameters
    ----------
    storage_options
        As of `taqstore.open_store`.
    """
    opened, options = open_store(store), options or Options()
    check(opened, variants, options, images=images, held_out=held_out, prompts=prompts)
    with fetching(False):
        asked = ask(
            opened,
            list(variants or ()),
            options,
            images=images,
            stride=stride,
            model=model,
            local_ckpt=local_ckpt,
        )
    found, steps = asked.found, asked.schedule.steps
    with plan_store(opened.location, writable=False) as writer:
        plan = new_plan(writer, FORWARDS)
        if held_out:
            chosen = choose(
                opened, count=held_out, prompts=prompts, model=model, loaded=asked.model
            )
            plan_kept(plan, writer, chosen)
            # Those of the model as it is are read.
            plan.amount -= held_out * steps
    count = held_out or len(found.images)
    sampled = count + (digits if asked.model.row.judge else 0)
    plan.amount += len(asked.ways) * (count * len(found.steps) + sampled * steps)
    first = found.prepare(asked.model, found.images[0], asked.schedule)
    seed, shape = found.seeds[0], found.latent_shape
    time_forwards(plan, asked.model, first, asked.schedule, seed=seed, shape=shape)
    return plan
