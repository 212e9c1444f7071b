"""Static scores of targets put into a store: no forward is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.kinds.sensitivity import STATIC, scores_template
from taqstore.names import ACTIVATIONS, SECOND_MOMENTS
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store
from taqstore.store.writer import StoreWriter

from ..models.inputs import Reader
from ..run.groups import RUN, open_groups
from .formats import of_kinds, statistics
from .static_scores import Statistics, scores_of
from .targets import Target

Parts = Callable[[Target], Iterator[tuple[Reader, NDArray[np.float32]]]]


@dataclass(frozen=True)
class Scoring:
    """What is scored, in one format.

    Parameters
    ----------
    run
        Settings of the sensitivities.
    every, chosen
        All targets of the group, and those that are scored.
    parts
        Linears of a target, with their weights quantized.
    """

    unit: str
    format: str
    run: Mapping[str, Any]
    every: Sequence[Target]
    chosen: Sequence[Target]
    parts: Parts


def open_scores(writer: StoreWriter, store: Store, asked: Scoring, *, force: bool) -> GroupWriter:
    """The group of scores; a new one in its place where they are of statistics that are no more."""
    seen = statistics(store, of_kinds(store, ACTIVATIONS, SECOND_MOMENTS))
    run = {**asked.run, "scored": seen}
    template = scores_template(
        asked.unit,
        asked.format,
        targets=[target.name for target in asked.every],
        weights=[target.weights for target in asked.every],
        attrs={RUN: run},
    )
    node: Any = writer.node(template.path)
    stale = node is not None and node.attrs.get(RUN) != run
    replaced = {template.path} if stale or force else set[str]()
    return open_groups(writer, [template], Mode(resume=True), replaced=replaced, makes_way=True)[
        template.path
    ]


def score(
    writer: StoreWriter, store: Store, asked: Scoring, outcome: Outcome, *, force: bool
) -> None:
    """Score the targets that have no scores, or had them of statistics that are others now."""
    group = open_scores(writer, store, asked, force=force)
    template, done, known = group.template, group.written(), Statistics(store)
    columns = {target.name: place for place, target in enumerate(asked.every)}
    for target in asked.chosen:
        item = (columns[target.name],)
        if done[item]:
            outcome.count(template.path).skipped += 1
            continue
        with group.claim(item) as held:
            if held and not group.complete([item]):
                _put(group, item, scores_of(asked.parts(target), known), outcome)


def _put(
    group: GroupWriter, item: tuple[int], found: Mapping[str, float], outcome: Outcome
) -> None:
    values = {name: np.array([found[name]]) for name in STATIC}
    size = sum(group.put(name, item, value) for name, value in values.items())
    group.commit([item])
    outcome.wrote(group.template.path, size=size)
