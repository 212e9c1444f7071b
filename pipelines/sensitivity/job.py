"""One run of `sensitivity`: what is to be measured, and the measuring, target by target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.names import LayerName
from taqstore.store.group_writer import GroupWriter

from ..judge.judged import Judged, make_float
from ..models.inputs import Reader
from ..models.quantized.quantized_model import LinearPlan, QuantizedModel, quantize
from ..run.groups import open_groups
from ..tasks.units import Call, run_attempts
from .effects import effects_of, put_effects, sampled
from .formats import Format
from .plans import Plan, Planning
from .scoring import open_scores, score
from .targets import Target

Groups = Mapping[str, GroupWriter]
# What of the model as it is may be held in memory for the next target.
_KEPT_BYTES = 512 << 20


@dataclass(frozen=True)
class Job:
    """One run of `sensitivity`.

    Parameters
    ----------
    planning
        What is measured.
    judged
        Images, and their trajectories by the model as it is.
    """

    planning: Planning
    judged: Judged
    _floats: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], QuantizedModel] = field(default_factory=dict)

    def groups(self, plans: Sequence[Plan]) -> dict[str, GroupWriter]:
        """The groups of these plans, by path."""
        templates = [plan.template for plan in plans]
        return open_groups(self.judged.writer, templates, self.planning.mode)

    def scores(self, plans: Sequence[Plan]) -> dict[str, GroupWriter]:
        """The groups of static scores of these plans, by path."""
        found, planning = dict[str, GroupWriter](), self.planning
        for plan in plans:
            if not plan.format.of_inputs:
                asked = plan.scoring(planning.unit, partial(self._weights, plan.format))
                store, force = planning.planner.store, planning.mode.force
                group = open_scores(self.judged.writer, store, asked, force=force)
                found[group.template.path] = group
        return found

    def units(self, plans: Sequence[Plan]) -> dict[int, tuple[Plan, Target]]:
        """Targets that this process is to measure, by their number over all formats."""
        found, first, columns = dict[int, tuple[Plan, Target]](), 0, self.planning.columns(plans)
        for plan in plans:
            found |= {first + i: (plan, plan.every[i]) for i in columns[id(plan)]}
            first += len(plan.every)
        return found

    def forwards(self, plans: Sequence[Plan], groups: Groups) -> int:
        """Forwards that their targets still take."""
        columns, total = self.planning.columns(plans), 0
        for plan in plans:
            mine = columns[id(plan)]
            whole = groups[plan.template.path].written()[:, mine]
            total += self.planning.to_run(plan, whole, mine)
        return total

    def run(self, plans: Sequence[Plan], called: Call) -> None:
        """Measure what is not whole; `called` as of `run_units`."""
        writer, mode = self.judged.writer, self.planning.mode
        groups, units = self.groups(plans), self.units(plans)
        for plan in plans:
            if not plan.format.of_inputs and mode.only is None:
                asked = plan.scoring(self.planning.unit, partial(self._weights, plan.format))
                mine = [target for one, target in units.values() if one is plan]
                asked = replace(asked, chosen=mine)
                score(
                    writer,
                    self.planning.planner.store,
                    asked,
                    self.planning.outcome,
                    force=self.planning.mode.force,
                )
        total = len(self.judged.kept.absent()) * self.judged.schedule.steps
        for plan in plans:
            path, columns = plan.template.path, self.planning.columns(plans)[id(plan)]
            whole = groups[path].written()[:, columns]
            self.planning.outcome.count(path).skipped += int(whole.sum())
        mode.progress.start(total + self.forwards(plans, groups))
        make_float(self.judged, mode.progress, wait=mode.wait)
        run_attempts(
            units,
            lambda numbers: self._measure(groups, {n: units[n] for n in numbers}),
            called=called,
            mode=mode,
            outcome=self.planning.outcome,
            left_note=lambda unit: (
                f"{unit[0].template.path}: "
                f"left to another process that is working on it: {unit[1].name}"
            ),
            close=writer.close_flags,
        )

    def _measure(self, groups: Groups, units: Mapping[int, tuple[Plan, Target]]) -> list[int]:
        """First what no other process is at; then what of the rest is still to be had.

        Returns the numbers of targets that other processes are at.
        """
        left = list(units)
        for whole in (True, False):
            left = [
                number
                for number in left
                for plan, target in [units[number]]
                if not self._target(plan, groups[plan.template.path], target, whole=whole)
            ]
        return left

    def _target(self, plan: Plan, group: GroupWriter, target: Target, *, whole: bool) -> bool:
        """Measure a target on the images it is not whole for; False where another process is at it.

        With `whole`, it is left as soon as another process is met.
        """
        column, met = plan.column(target), False
        for place in np.flatnonzero(~group.written()[:, column]).tolist():
            with group.claim((place, column)) as held:
                if held and not group.complete([(place, column)]):
                    self._image(plan, group, target, (place, column))
                elif not held:
                    met = True
            if met and whole:
                break
        return not met

    def _image(self, plan: Plan, group: GroupWriter, target: Target, item: tuple[int, int]) -> None:
        place = item[0]
        model = self._quantized(plan.format, target)
        plain, prompt = self._plain(place), self.judged.prepare(self.judged.images[place])
        x = sampled(self.judged, model, place, prompt, plain=plain, only=target.step)
        size = put_effects(group, item, effects_of(x, plain))
        self.planning.outcome.wrote(plan.template.path, size=size)
        note = f"{plan.format.name}, {target.name}, image {self.judged.images[place]}"
        self.planning.mode.progress.advance(note, self.planning.forwards(target))

    def _plain(self, place: int) -> NDArray[np.float32]:
        """The trajectory by the model as it is; held for the next target while there is room."""
        if place in self._floats:
            return self._floats[place]
        found = self.judged.at(place).x
        if sum(one.nbytes for one in self._floats.values()) + found.nbytes <= _KEPT_BYTES:
            self._floats[place] = found
        return found

    def _quantized(self, format: Format, target: Target) -> QuantizedModel:
        """The model with a target quantized; the last one is kept: its images come in turn."""
        key = (format.name, *(reader.name for reader in target.readers))
        if key not in self._made:
            self._made.clear()
            self._made[key] = quantize(self.judged.model, self._plans(format, target))
        return self._made[key]

    def _plans(self, format: Format, target: Target) -> dict[LayerName, LinearPlan]:
        if format.of_inputs:
            names = [reader.name for reader in target.readers]
            found = self.planning.planner.inputs(format.variant, names)
            return {name: LinearPlan(None, found[name]) for name in names}
        return {reader.name: LinearPlan(weight) for reader, weight in self._weights(format, target)}

    def _weights(
        self, format: Format, target: Target
    ) -> Iterator[tuple[Reader, NDArray[np.float32]]]:
        for reader in target.readers:
            weight = self.planning.planner.weights.weight(format.variant, reader)
            assert weight is not None
            yield reader, weight
            self.planning.planner.weights.forget()
