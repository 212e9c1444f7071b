"""Does the reference model draw the digit it is asked for? Sampled the way `generate` samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import TaqError

from ..load import LoadedModel, to_numpy
from ..sampling import make_schedule, trajectory
from .data import LEANS, STROKES, digit_prompts, prompted_digit, slope
from .judge import judge
from .latent import ink, reduce
from .model import LATENT_SIZE

Floats = NDArray[np.float32]
OnImage = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """How well prompts are obeyed.

    Attributes
    ----------
    images, steps, cfg_weight, seed
        What was sampled; image i has seed `seed + i`.
    accuracy
        Share of the pictures that the judge reads as the prompted digit.
    per_digit
        The same for each digit.
    judge_accuracy
        Share of the held-out real digits that the judge reads right.
    novelty
        Median distance to the nearest digit learnt from; 1: that of held-out real digits.
    ink
        Mean ink of pictures prompted thin, plain, bold.
    slope
        Mean slope of pictures prompted to lean left, not at all, right.
    """

    images: int
    steps: int
    cfg_weight: float
    seed: int
    accuracy: float
    per_digit: tuple[float, ...]
    judge_accuracy: float
    novelty: float
    ink: tuple[float, ...]
    slope: tuple[float, ...]


def evaluate(
    model: LoadedModel,
    *,
    images: int = 200,
    steps: int = 28,
    cfg_weight: float | None = None,
    seed: int = 0,
    on_image: OnImage | None = None,
) -> tuple[Evaluation, Floats, list[str]]:
    """Sample pictures for `digit_prompts` and judge them.

    Parameters
    ----------
    cfg_weight
        Guidance weight; default the model's own.
    on_image
        Called with the number of images done.

    Returns
    -------
    The evaluation, the pictures (images, 32, 32) and their prompts.
    """
    cfg = model.row.cfg_weight if cfg_weight is None else cfg_weight
    prompts = digit_prompts(images, seed=seed)
    drawn = []
    for index, prompt in enumerate(prompts):
        drawn.append(sample(model, prompt, steps=steps, cfg_weight=cfg, seed=seed + index))
        if on_image:
            on_image(index + 1)
    pictures = np.stack(drawn)
    return _judged(pictures, prompts, steps, cfg, seed), pictures, prompts


def sample(model: LoadedModel, prompt: str, *, steps: int, cfg_weight: float, seed: int) -> Floats:
    """One picture (32, 32) of a prompt, ink between 0 and 1."""
    schedule = make_schedule(model, steps)
    conditioning = model.encode_text(prompt, cfg_weight=cfg_weight)
    prepared = model.prepare(conditioning, schedule.timesteps)
    latents = trajectory(model, prepared, schedule, seed=seed, latent_size=LATENT_SIZE)
    last = deque(latents, maxlen=1).pop()
    return ink(to_numpy(last)[0])


def prompted_share(latents: Floats, prompts: Sequence[str]) -> float:
    """Share of final latents (N, 8, 8, 16) whose picture the judge reads as the prompted digit.

    Prompts that do not name one digit are not counted; nan where none does.
    """
    asked = [_asked(prompt) for prompt in prompts]
    read = judge().read(ink(latents))
    right = [digit == found for digit, found in zip(asked, read, strict=True) if digit is not None]
    return float(np.mean(right)) if right else float("nan")


def _asked(prompt: str) -> int | None:
    try:
        return prompted_digit(prompt)
    except TaqError:
        return None


def _judged(
    pictures: Floats, prompts: Sequence[str], steps: int, cfg_weight: float, seed: int
) -> Evaluation:
    critic = judge()
    asked = np.array([prompted_digit(prompt) for prompt in prompts])
    right = critic.read(pictures) == asked
    small = reduce(pictures)
    return Evaluation(
        images=len(prompts),
        steps=steps,
        cfg_weight=cfg_weight,
        seed=seed,
        accuracy=float(right.mean()),
        per_digit=tuple(_mean(right, asked == digit) for digit in range(10)),
        judge_accuracy=critic.accuracy,
        novelty=critic.novelty(pictures),
        ink=_by_look(small.mean((1, 2)), prompts, STROKES),
        slope=_by_look(slope(small), prompts, LEANS),
    )


def _mean(values: NDArray[Any], chosen: NDArray[np.bool_]) -> float:
    """Mean of the chosen; nan where none is, as with few images."""
    return float(values[chosen].mean()) if chosen.any() else float("nan")


def _by_look(values: Floats, prompts: Sequence[str], looks: Sequence[str]) -> tuple[float, ...]:
    """Means over the prompts with the first look, with neither, and with the last."""
    first, last = (np.array([look in prompt for prompt in prompts]) for look in looks[::2])
    return tuple(_mean(values, chosen) for chosen in (first, ~first & ~last, last))
