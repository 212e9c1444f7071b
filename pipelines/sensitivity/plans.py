"""What `sensitivity` is to measure: targets, groups, and how much of them is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import MissingError, problem
from taqstore.kinds.sensitivity import sensitivity_template
from taqstore.kinds.trajectories import FLOAT, path_of
from taqstore.layout.template import Template
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome

from ..evaluate.linears_of_variant import Planner
from ..judge.judged import Chosen
from ..models.inputs import check_floats
from ..run.groups import RUN
from .formats import Format
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

    def tell(self, plans: Sequence[Plan]) -> None:
        """Note what would be run."""
        images, steps = self.chosen.asked.images, self.chosen.schedule.steps
        for plan in plans:
            path, whole = plan.template.path, self._whole(plan)
            self.outcome.count(path).skipped += int(whole.sum())
            said = f"{len(plan.chosen)} targets on {len(images)} images, {int((~whole).sum())} left"
            self.outcome.notes.append(f"{path}: {said}: {self.to_run(plan, whole)} forwards")
        absent = len({*images} - self._as_they_are())
        if absent:
            self.outcome.notes.append(f"{absent} images as they are: {absent * steps} forwards")

    def _as_they_are(self) -> set[int]:
        """Images that were sampled by the model as it is, and are kept."""
        path = path_of(FLOAT)
        store = self.planner.store
        return {*store[path]["image"].values.tolist()} if path in store else set()

    def to_run(self, plan: Plan, whole: NDArray[np.bool_]) -> int:
        """Forwards of what is not whole (image, chosen target)."""
        return int((~whole * [self.forwards(target) for target in plan.chosen]).sum())

    def forwards(self, target: Target) -> int:
        """Model calls of one image: what comes before the only step is not run again."""
        return self.chosen.schedule.steps - (target.step or 0)

    def _whole(self, plan: Plan) -> NDArray[np.bool_]:
        """(image, chosen target) of the store that are whole, in the order of the run."""
        images, path = self.chosen.asked.images, plan.template.path
        found = np.zeros((len(images), len(plan.chosen)), bool)
        if path not in self.planner.store or self.mode.force:
            return found
        store = self.planner.store.reading(chunks=None, checksum=True, incomplete=True)
        rows, names = (store[path][dim].values.tolist() for dim in ("image", "target"))
        mask = store.mask(path)
        for row, image in enumerate(images):
            for column, target in enumerate(plan.chosen):
                if image in rows and target.name in names:
                    found[row, column] = mask[rows.index(image), names.index(target.name)]
        return found
