"""What a quantized target does to one image: its trajectory beside that of the model as it is."""

from __future__ import annotations

import numpy as np

from taqstore.kinds.sensitivity import EFFECTS
from taqstore.store.group_writer import GroupWriter
from taqstore.trajectory.measures import cosine, relative_error

from ..judge.judged import Judged, run_beside
from ..models.backend import backend
from ..models.failures import inside_model, placed
from ..models.load import LoadedModel, Prompt

Effects = dict[str, np.ndarray]


def sampled(
    judged: Judged,
    model: LoadedModel,
    place: int,
    prompt: Prompt,
    *,
    plain: np.ndarray,
    only: int | None = None,
) -> np.ndarray:
    """Latents float32 ``(step + 1, height, width, channel)`` of an image by another model.

    Parameters
    ----------
    plain
        The same by the model as it is.
    only
        The step at which the other model runs; the model as it is runs the others, those before it
        not again. None: all.
    """
    if only is None:
        return run_beside(judged, model, place, prompt).x
    mx, schedule = backend().mx, judged.schedule
    x, latents = model.to_model(plain[only]), [*plain[: only + 1]]
    for step in range(only, schedule.steps):
        running = model if step == only else judged.model
        sigma = schedule.sigmas[step]
        with placed(f"image {judged.images[place]}"), inside_model(f"step {step}", model.module):
            denoised = running.denoise(x, schedule.timesteps[step], sigma, prompt)
            x = running.advance(x, denoised, sigma, schedule.sigmas[step + 1])
            mx.eval(x)
        latents.append(np.array(model.to_store(x), np.float32))
    return np.stack(latents)


def effects_of(x: np.ndarray, plain: np.ndarray) -> Effects:
    """Effects on one image: variables of `sensitivity` by name.

    Parameters
    ----------
    x
        float32 ``(step + 1, height, width, channel)`` with the target quantized.
    plain
        The same by the model as it is.
    """
    errors, cosines = relative_error(x[1:], plain[1:]), cosine(x[1:], plain[1:])
    # A value that is no number is the worst there is, and stays one.
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    numbers = {
        "latent_norm": np.linalg.norm(plain[-1].astype(np.float64)),
        "latent_error": errors[-1],
        "worst_error": errors[worst],
        "worst_cosine": cosines.min(),
        "cosine": cosines[-1],
    }
    assert {*EFFECTS} < {*numbers}
    return {
        "delta": x[-1] - plain[-1],
        **{name: np.float64(value) for name, value in numbers.items()},
        "worst_step": np.int64(worst + 1),
    }


def put_effects(group: GroupWriter, item: tuple[int, int], found: Effects) -> int:
    """Write an (image, target) and flag it; bytes written."""
    size = 0
    for name, value in found.items():
        values = np.asarray(value)
        start = (*item, *(0,) * values.ndim)
        size += group.put(name, start, values[None, None])
    group.commit([item])
    return size
