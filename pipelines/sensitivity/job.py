"""One run of `sensitivity`: what is to be measured, and the measuring, target by target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import MissingError, problem
from taqstore.kinds.sensitivity import sensitivity_template
from taqstore.layout.template import Template
from taqstore.names import LayerName
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter

from ..evaluate.linears_of_variant import Planner
from ..judge.judged import Judged, make_float
from ..models.inputs import Reader, check_floats
from ..models.load import Prompt
from ..models.quantized.quantized_model import LinearPlan, QuantizedModel, quantize
from ..run.groups import RUN, open_groups
from .effects import effects_of, put_effects, sampled
from .formats import Format
from .scoring import Scoring, score
from .targets import Asked, Target, chosen_targets, targets_of

# What of the model as it is may be held in memory for the next target.
_KEPT_BYTES = 512 << 20


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
class Job:
    """One run of `sensitivity`.

    Parameters
    ----------
    judged
        Images, and the model as it is.
    planner
        What formats make of linears.
    """

    unit: str
    judged: Judged
    planner: Planner
    outcome: Outcome
    mode: Mode
    _prompts: dict[int, Prompt] = field(default_factory=dict)
    _floats: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], QuantizedModel] = field(default_factory=dict)

    def plan(self, format: Format, asked: Asked) -> Plan:
        """Choose targets; those that are refused are noted.

        Raises
        ------
        MisuseError
            A name or pattern is of no target.
        MissingError
            All are refused.
        """
        every = targets_of(self.unit, format, self.planner, self.judged.schedule.steps)
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

    def _note_refused(self, path: str, refused: Sequence[Target]) -> None:
        self.outcome.count(path).refused += len(refused)
        reasons: dict[str, list[str]] = {}
        for target in refused:
            reasons.setdefault(target.refused, []).append(target.name)
        for reason, names in reasons.items():
            self.outcome.notes.append(f"{path}: not measured: {reason}: {', '.join(names)}")

    def _template(self, format: Format, every: Sequence[Target]) -> Template:
        asked, inputs = self.judged.asked, format.of_inputs
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
            shape=self.judged.found.latent_shape,
            attrs={RUN: self._run(format)},
        )

    def _run(self, format: Format) -> dict[str, Any]:
        steps = {"unit": self.unit, "steps": self.judged.schedule.steps}
        return {**self.judged.run, **steps, **format.about(self.planner.store)}

    def tell(self, plans: Sequence[Plan]) -> None:
        """Note what `run` would do."""
        steps, images = self.judged.schedule.steps, len(self.judged.images)
        for plan in plans:
            path, whole = plan.template.path, self._whole(plan)
            self.outcome.count(path).skipped += int(whole.sum())
            forwards = self._to_run(plan, whole)
            said = f"{len(plan.chosen)} targets on {images} images, {int((~whole).sum())} to do"
            self.outcome.notes.append(f"{path}: {said}: {forwards} forwards")
        absent = len(self.judged.kept.absent())
        if absent:
            self.outcome.notes.append(f"first {absent} images as they are: {absent * steps}")

    def run(self, plans: Sequence[Plan]) -> None:
        """Measure what is not whole, format by format, target by target."""
        writer, progress = self.judged.writer, self.mode.progress
        groups = open_groups(writer, [plan.template for plan in plans], self.mode)
        for plan in plans:
            if not plan.format.of_inputs:
                asked = Scoring(
                    self.unit,
                    plan.format.name,
                    plan.template.attrs[RUN],
                    plan.every,
                    plan.chosen,
                    partial(self._weights, plan.format),
                )
                score(writer, self.planner.store, asked, self.outcome, force=self.mode.force)
        total = len(self.judged.kept.absent()) * self.judged.schedule.steps
        progress.start(total)
        make_float(self.judged, progress)
        total = 0
        for plan in plans:
            path, columns = plan.template.path, [plan.column(one) for one in plan.chosen]
            whole = groups[path].written()[:, columns]
            self.outcome.count(path).skipped += int(whole.sum())
            total += self._to_run(plan, whole)
        progress.start(total)
        for plan in plans:
            self._measure(plan, groups[plan.template.path])

    def _to_run(self, plan: Plan, whole: NDArray[np.bool_]) -> int:
        """Forwards of what is not whole (image, chosen target)."""
        return int((~whole * [self._forwards(target) for target in plan.chosen]).sum())

    def _whole(self, plan: Plan) -> NDArray[np.bool_]:
        """(image, chosen target) of the store that are whole, in the order of the run."""
        images, path = self.judged.images, plan.template.path
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

    def _forwards(self, target: Target) -> int:
        return self.judged.schedule.steps - (target.step or 0)

    def _measure(self, plan: Plan, group: GroupWriter) -> None:
        """First what no other process is at; then what of the rest is still to be had."""
        left = [t for t in plan.chosen if not self._target(plan, group, t, whole=True)]
        left = [t for t in left if not self._target(plan, group, t, whole=False)]
        if left:
            names = ", ".join(target.name for target in left)
            note = f"{plan.template.path}: left to another process that is working on it: {names}"
            self.outcome.notes.append(note)

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
        plain, prompt = self._plain(place), self._prompt(place)
        x = sampled(self.judged, model, place, prompt, plain=plain, only=target.step)
        size = put_effects(group, item, effects_of(x, plain))
        self.outcome.wrote(plan.template.path, size=size)
        note = f"{plan.format.name}, {target.name}, image {self.judged.images[place]}"
        self.mode.progress.advance(note, self._forwards(target))

    def _prompt(self, place: int) -> Prompt:
        image = self.judged.images[place]
        if image not in self._prompts:
            self._prompts[image] = self.judged.prepare(image)
        return self._prompts[image]

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
            found = self.planner.inputs(format.variant, names)
            return {name: LinearPlan(None, found[name]) for name in names}
        return {reader.name: LinearPlan(weight) for reader, weight in self._weights(format, target)}

    def _weights(
        self, format: Format, target: Target
    ) -> Iterator[tuple[Reader, NDArray[np.float32]]]:
        for reader in target.readers:
            weight = self.planner.weights.weight(format.variant, reader)
            assert weight is not None
            yield reader, weight
            self.planner.weights.forget()
