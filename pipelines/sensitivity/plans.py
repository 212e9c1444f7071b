"""What `sensitivity` is to measure: targets, groups, and how much of them is left to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import MissingError, problem
from taqstore.kinds.sensitivity import sensitivity_template
from taqstore.layout.template import Template
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan as RunPlan
from taqstore.store.planned import plan_store

from ..evaluate.linears_of_variant import Planner
from ..judge.judged import Chosen
from ..judge.planned import plan_kept, plan_time
from ..models.inputs import Reader, check_floats
from ..run.dry import FORWARDS, add_group, new_plan
from ..run.groups import RUN, open_groups
from .formats import Format
from .scoring import Parts, Scoring, open_scores
from .targets import Asked, Target, chosen_targets, targets_of


@dataclass(frozen=True)
class Plan:
    """What is measured in one format.

    Parameters
    ----------
    every
        All targets of the model, those that are refused too: the group lists them.
    chosen
        Those that are asked for and not refused.
    """

    format: Format
    every: Sequence[Target]
    chosen: Sequence[Target]
    template: Template

    def scoring(self, unit: str, parts: Parts) -> Scoring:
        """What is scored of the targets; `parts` as of `Scoring`."""
        run = self.template.attrs[RUN]
        return Scoring(unit, self.format.name, run, self.every, self.chosen, parts)

    def column(self, target: Target) -> int:
        """Place of a target in the group."""
        return self.every.index(target)


@dataclass(frozen=True)
class Planning:
    """Makes plans.

    Parameters
    ----------
    chosen
        Images, and the model as it is.
    planner
        What formats make of linears.
    """

    unit: str
    chosen: Chosen
    planner: Planner
    outcome: Outcome
    mode: Mode

    def plan(self, format: Format, asked: Asked) -> Plan:
        """Choose targets; those that are refused are noted.

        Raises
        ------
        MisuseError
            A name or pattern is of no target.
        MissingError
            All are refused.
        """
        every = targets_of(self.unit, format, self.planner, self.chosen.schedule.steps)
        wanted = chosen_targets(every, asked)
        template = self._template(format, every)
        self._note_refused(template.path, [one for one in wanted if one.refused])
        chosen = [one for one in wanted if not one.refused]
        if not chosen:
            what = f"{format.name}: no target can be quantized so"
            raise MissingError(problem(what, found=f"{wanted[0].name}: {wanted[0].refused}"))
        if not format.of_inputs:
            check_floats(reader for target in chosen for reader in target.readers)
        return Plan(format, every, chosen, template)

    def again(self, plan: Plan) -> Plan:
        """The same plan for the images that are chosen now."""
        return replace(plan, template=self._template(plan.format, plan.every))

    def _note_refused(self, path: str, refused: Sequence[Target]) -> None:
        self.outcome.count(path).refused += len(refused)
        reasons: dict[str, list[str]] = {}
        for target in refused:
            reasons.setdefault(target.refused, []).append(target.name)
        for reason, names in reasons.items():
            self.outcome.notes.append(f"{path}: not measured: {reason}: {', '.join(names)}")

    def _template(self, format: Format, every: Sequence[Target]) -> Template:
        asked, inputs = self.chosen.asked, format.of_inputs
        return sensitivity_template(
            self.unit,
            format.name,
            images=asked.images,
            prompts=asked.prompts,
            seeds=asked.seeds,
            cfg_weights=np.full(len(asked.images), asked.cfg_weight),
            targets=[target.name for target in every],
            weights=[0 if inputs else target.weights for target in every],
            input_channels=[target.channels if inputs else 0 for target in every],
            shape=self.chosen.found.latent_shape,
            attrs={RUN: self._run(format)},
        )

    def _run(self, format: Format) -> dict[str, Any]:
        steps = {"unit": self.unit, "steps": self.chosen.schedule.steps}
        return {**self.chosen.run, **steps, **format.about(self.planner.store)}

    def tell(self, plans: Sequence[Plan]) -> RunPlan:
        """What would be run and written; raises as the run would."""
        store, mode = self.planner.store, self.mode
        with plan_store(store.location) as writer:
            found = new_plan(writer, FORWARDS)
            plan_kept(found, writer, self.chosen)
            groups = open_groups(writer, [plan.template for plan in plans], mode)
            columns_of = self.columns(plans)
            for plan in plans:
                group, columns = groups[plan.template.path], columns_of[id(plan)]
                wanted = np.isin(np.arange(len(plan.every)), columns)
                add_group(found, group, wanted=wanted)
                found.amount += self.to_run(plan, group.written()[:, columns], columns)
                if not plan.format.of_inputs:
                    asked = plan.scoring(self.unit, _no_linears)
                    scores = open_scores(writer, store, asked, force=mode.force)
                    add_group(found, scores, wanted=wanted)
        plan_time(found, self.chosen)
        return found

    def columns(self, plans: Sequence[Plan]) -> dict[int, list[int]]:
        """Columns of the targets that this process is to measure, by identity of the plan.

        Targets are numbered over the formats, whether they are asked for or not.
        """
        found, first = dict[int, list[int]](), 0
        for plan in plans:
            places = [plan.column(target) for target in plan.chosen]
            found[id(plan)] = [n - first for n in self.mode.mine(first + p for p in places)]
            first += len(plan.every)
        return found

    def to_run(self, plan: Plan, whole: NDArray[np.bool_], columns: Sequence[int]) -> int:
        """Forwards of what is not whole (image, column)."""
        return int((~whole * [self.forwards(plan.every[i]) for i in columns]).sum())

    def forwards(self, target: Target) -> int:
        """Model calls of one image: what comes before the only step is not run again."""
        return self.chosen.schedule.steps - (target.step or 0)


def _no_linears(target: Target) -> Iterator[tuple[Reader, NDArray[np.float32]]]:
    """Of what is planned, nothing is scored."""
    return iter(())
