"""Measuring: a model run quantized beside itself as it is, on the latents of a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from taqstore.names import Block
from taqstore.run.progress import Progress

from ..judge.figures import Row, row_of
from ..judge.judged import sample
from ..judge.kept import Sampled
from ..models.backend import backend
from ..models.capture import watching_blocks
from ..models.failures import inside_model, placed
from ..models.load import LoadedModel, Prompt, Tensor, to_numpy
from ..models.quantized.quantized_model import quantize
from ..models.sampling import Schedule
from ..models.table import judge_of
from ..run.trajectories import Trajectories
from .linears_of_variant import Planner
from .variants import Variant

# What of the model as it is may be held in memory for the next variant.
_KEPT_BYTES = 512 << 20


@dataclass
class Measure:
    """Sums of squares of one variant over images, and what it sampled.

    Parameters
    ----------
    error, power
        ``(step,)``: of the denoiser's guided output, its error and itself.
    block_error, block_power
        The same of the output of each block.
    finals
        Final latent of each image.
    rows
        Figures of each image's trajectory; see `row_of`.
    accuracy
        Share of digits drawn as asked for; NaN where it was not judged.
    """

    error: np.ndarray
    power: np.ndarray
    block_error: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    block_power: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    finals: list[Tensor] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    accuracy: float = float("nan")


@dataclass(frozen=True)
class _Forward:
    """What one forward at `x` gave: the guided output, and what each chosen block put out."""

    x: Tensor
    output: np.ndarray
    blocks: dict[str, list[np.ndarray]]

    @property
    def nbytes(self) -> int:
        own = int(self.x.nbytes) + self.output.nbytes
        return own + sum(x.nbytes for found in self.blocks.values() for x in found)


@dataclass(frozen=True)
class Measurer:
    """Measures variants of a model, each beside the model as it is.

    Parameters
    ----------
    found, schedule
        What is sampled again, and the whole schedule of it.
    model
        The model as it is.
    chosen
        Blocks whose outputs are compared.
    digits
        Pictures to judge accuracy by; 0: the images themselves.
    progress
        Whom to tell.
    plain
        Trajectory at a place by the model as it is, which is sampled once.
    """

    found: Trajectories
    model: LoadedModel
    schedule: Schedule
    chosen: Sequence[str]
    digits: int
    progress: Progress
    plain: Callable[[int], Sampled]
    _plain: dict[tuple[int, int], _Forward] = field(default_factory=dict)

    @property
    def forwards(self) -> int:
        """Model calls of one variant."""
        sampled = len(self.found.images) + self._judged * self.digits
        return len(self.found.images) * len(self.found.steps) + sampled * self.schedule.steps

    @property
    def _judged(self) -> bool:
        return bool(self.model.row.judge)

    @property
    def prompts(self) -> list[str]:
        """Prompt of each image."""
        chosen = self.found.latents["prompt"].sel(image=list(self.found.images))
        return [str(prompt) for prompt in chosen.values]

    def measure(self, variant: Variant, planner: Planner) -> Measure:
        """Run one variant beside the model as it is."""
        plans = planner.plans(variant)
        made = quantize(self.model, plans) if plans else self.model
        steps = len(self.found.steps)
        measure = Measure(np.zeros(steps), np.zeros(steps))
        for place_of, image in enumerate(self.found.images):
            prompt = self.found.prepare(self.model, image, self.schedule)
            for place, step in enumerate(self.found.steps):
                with placed(f"{variant.name}, image {image}"):
                    self._compare(measure, made, prompt, image, place, step)
                self.progress.advance(f"{variant.name}, image {image}, step {step}")
            plain = self.plain(place_of)
            sampled = plain if made is self.model else self._sampled(made, prompt, image)
            measure.rows.append(row_of(plain, sampled))
            measure.finals.append(made.to_model(sampled.x[-1]))
            self.progress.advance(f"{variant.name}, image {image}, sampled", self.schedule.steps)
        if self._judged:
            measure.accuracy = self._accuracy(variant, made, measure)
        return measure

    def _accuracy(self, variant: Variant, made: LoadedModel, measure: Measure) -> float:
        """Share of pictures that show the digit asked for; NaN where no prompt asks for one."""
        pictures = judge_of(self.model.row)
        if not self.digits:
            latents = np.stack([to_numpy(x)[0] for x in measure.finals])
            return float(pictures.prompted_share(latents, self.prompts))
        steps = self.schedule.steps
        found, _, _ = pictures.evaluate(
            made,
            images=self.digits,
            steps=steps,
            on_image=lambda image: self.progress.advance(f"{variant.name}, digit {image}", steps),
        )
        return float(found.accuracy)

    def _compare(
        self, measure: Measure, made: LoadedModel, prompt: Prompt, image: int, place: int, step: int
    ) -> None:
        plain = self._plain.get((image, step))
        if plain is None:
            x = self.found.latent(self.model, image, step)
            plain = self._forward(self.model, x, step, prompt)
            self._keep((image, step), plain)
        other = plain if made is self.model else self._forward(made, plain.x, step, prompt)
        measure.error[place] += _square(other.output, plain.output)
        measure.power[place] += _square(plain.output)
        for name, outputs in plain.blocks.items():
            pairs = zip(other.blocks[name], outputs, strict=True)
            measure.block_error[name] += sum(_square(b, a) for b, a in pairs)
            measure.block_power[name] += sum(map(_square, outputs))

    def _keep(self, key: tuple[int, int], forward: _Forward) -> None:
        """Hold on to what the next variant needs again, while there is room."""
        held = sum(kept.nbytes for kept in self._plain.values())
        if held + forward.nbytes <= _KEPT_BYTES:
            self._plain[key] = forward

    def _forward(self, model: LoadedModel, x: Tensor, step: int, prompt: Prompt) -> _Forward:
        timestep, sigma = self.schedule.timesteps[step], self.schedule.sigmas[step]
        with inside_model(f"step {step}", model.mmdit):
            with watching_blocks(self.model.mmdit, self.chosen) as streams:
                output = (x - model.denoise(x, timestep, sigma, prompt)) / sigma
            named = streams.by_name()
            backend().mx.eval(output, [list(stream.values()) for stream in named.values()])
        outputs = {block: _outputs(block, named) for block in self.chosen}
        return _Forward(x, np.array(to_numpy(output)), outputs)

    def _sampled(self, model: LoadedModel, prompt: Prompt, image: int) -> Sampled:
        return sample(
            model,
            prompt,
            self.schedule,
            seed=int(self.found.latents["seed"].sel(image=image)),
            latent_size=self.found.latent_shape[:2],
            where=f"image {image}",
        )


def _outputs(block: str, streams: dict[str, dict[int, Tensor]]) -> list[np.ndarray]:
    known = Block.parse(block)
    found = (streams.get(name, {}).get(known.index + 1) for name in known.streams)
    return [np.array(to_numpy(values)) for values in found if values is not None]


def _square(values: np.ndarray, other: np.ndarray | None = None) -> float:
    """Sum of squares, of the difference from `other` where it is given."""
    wide = values.astype(np.float64)
    wide = wide if other is None else wide - other
    return float(np.vdot(wide, wide))
