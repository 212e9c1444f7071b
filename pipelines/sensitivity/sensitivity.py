"""Sensitivity: one target quantized at a time, and what it does to held-out images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.asked import whole_number, word_of
from taqstore.errors import StoreError, problem
from taqstore.kinds.sensitivity import UNITS, sensitivities
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.reader import Store, open_store

from ..evaluate.linears_of_variant import Planner
from ..judge.judged import choose, judged
from ..models.adapter import fetching
from ..models.backend import LIBRARIES
from ..run.dry import FORWARDS, laid_out
from ..run.record import record_run
from ..tasks.units import Call
from .formats import default_format, parse_format
from .job import Job
from .plans import Planning
from .targets import Asked

SEEDS = 4


@takes_storage_options
def sensitivity(
    store: Store | str | os.PathLike[str],
    *,
    unit: str = "linear",
    formats: Sequence[str] = (),
    seeds: int = SEEDS,
    targets: Sequence[str] = (),
    sites: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    prompts: str | os.PathLike[str] | None = None,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Quantize one target at a time, and keep what it does to trajectories of held-out images.

    A target's weights are in memory while it is measured, no others. Several processes may work on
    one store: each takes targets that no other is working on.

    Parameters
    ----------
    store
        Path or URL, or a store that is open, which sees afterwards what was written.
    unit
        `linear`, `block`, `site` or `step`.
    formats
        How targets are quantized, see `parse_format`; none: `default_format`.
    seeds
        How many images, beyond those of the store.
    targets, sites, blocks
        Which targets, see `Asked`.
    prompts
        File with prompts of the images; None: as of `judged`.
    model, local_ckpt
        As of `cache`.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        There is no such unit, format or target, or none of these is what is asked for.
    MissingError
        The store has no latents with a final step, or lacks what every target needs.
    TaqError
        The model does not load or run, is packed already, or the store holds sensitivities made
        otherwise.
    """
    mode, outcome = mode or Mode(), Outcome()
    word_of(unit, UNITS, "unit")
    whole_number(seeds, "seeds", least=1)
    chosen = Asked(targets, sites, blocks)
    chosen.check(unit)
    opened = open_store(store)
    asked = [parse_format(f, opened, unit=unit) for f in formats or [default_format(unit)]]
    asked = list({one.name: one for one in asked}.values())
    with fetching(not mode.dry_run):
        images = choose(opened, count=seeds, prompts=prompts, model=model, local_ckpt=local_ckpt)
    planner = Planner(images.model, opened)
    first = Planning(unit, images, planner, outcome, mode)
    plans = [first.plan(format, chosen) for format in asked]
    if mode.dry_run:
        outcome.plan = first.tell(plans)
        return outcome
    with judged(
        opened,
        count=seeds,
        prompts=prompts,
        model=model,
        loaded=images.model,
        made=False,
        mode=mode,
    ) as one:
        if one.writer.location.url != opened.location.url:
            raise StoreError(problem(one.notes[-1], remedy="copy the store"))
        # Numbers of images may be others by now.
        planning = Planning(unit, one, planner, outcome, mode)
        job, plans = Job(planning, one), [planning.again(plan) for plan in plans]
        if mode.groups_only:
            groups = job.groups(plans)
            scored = job.scores(plans)
            kept = {one.kept.path: one.kept.group}
            amount = job.forwards(plans, groups)
            outcome.plan = laid_out(
                one.writer, kept | groups | scored, unit=FORWARDS, amount=amount
            )
            return outcome
        again = {
            "unit": unit,
            "formats": [format.name for format in asked],
            "seeds": seeds,
            "targets": targets,
            "sites": sites,
            "blocks": blocks,
            "prompts": prompts,
            "model": model,
            "local_ckpt": local_ckpt,
        }
        job.run(plans, Call(sensitivity, (opened.location,), again))
        outcome.notes += one.notes
        record_run(
            one.writer,
            "sensitivity",
            outcome,
            parameters={"unit": unit, "formats": [f.name for f in asked], "seeds": seeds,
                        "targets": list(targets), "images": list(one.images)},
            inputs=[] if prompts is None else [Path(prompts)],
            libraries=LIBRARIES,
            mode=mode,
        )  # fmt: skip
    opened.refresh(*outcome.groups)
    return outcome


def rows_of(store: Store, paths: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each format and target of these groups that is whole, the worst target first.

    `latent_error` is the mean over images, `worst_error` the largest over steps and images, at
    `worst_step`, `worst_cosine` the least.
    """
    found = sensitivities({path: store[path] for path in paths if path in store})
    rows = []
    for (unit, format), dataset in found.items():
        worst = dataset["worst_error"].values.argmax(axis=0)
        columns = {
            "latent_error": dataset["latent_error"].values.mean(axis=0),
            "worst_error": dataset["worst_error"].values.max(axis=0),
            "worst_step": np.take_along_axis(dataset["worst_step"].values, worst[None], 0)[0],
            "worst_cosine": dataset["worst_cosine"].values.min(axis=0),
        }
        for place in np.argsort(-columns["latent_error"], kind="stable"):
            head = {"format": format, unit: str(dataset["target"].values[place])}
            rows.append(head | {name: values[place].item() for name, values in columns.items()})
    return rows
