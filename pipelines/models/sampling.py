"""Euler sampling with guidance, step by step: bit-equal to DiffusionKit's `denoise_latents`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from taqstore.errors import TaqError, problem

from .backend import backend
from .failures import inside_model
from .load import to_numpy
from .seam import Model, Prompt, Tensor


@dataclass(frozen=True)
class Schedule:
    """Noise levels of a run.

    Parameters
    ----------
    sigmas
        float32 ``(step + 1,)``, descending to 0.
    timesteps
        ``(step + 1,)`` in the activation dtype: what the model is given.
    """

    sigmas: Tensor
    timesteps: Tensor

    @property
    def steps(self) -> int:
        """Number of model calls."""
        return len(self.sigmas) - 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """`sigmas` as float32 and `timesteps` as float16 or float32 (bfloat16 widened)."""
        return np.array(to_numpy(self.sigmas)), np.array(to_numpy(self.timesteps))


def make_schedule(model: Model, steps: int) -> Schedule:
    """The schedule of a run of `steps` steps."""
    with inside_model("schedule"):
        sigmas, timesteps = model.levels(steps)
        backend().mx.eval(sigmas, timesteps)
    levels = np.array(to_numpy(sigmas), np.float64)
    if not np.isfinite(levels).all() or (np.diff(levels) >= 0).any():
        what = f"{steps} steps with shift {model.row.shift:g} give no falling noise levels"
        raise TaqError(problem(what, remedy="change --steps or --timestep-shift"))
    return Schedule(sigmas, timesteps)


def restored_schedule(model: Model, sigmas: np.ndarray, timesteps: np.ndarray) -> Schedule:
    """A schedule from what `Schedule.arrays` gave, bit for bit."""
    mx = backend().mx
    levels = mx.array(sigmas.astype(np.float32))
    times = mx.array(timesteps).astype(model.activation_dtype)
    mx.eval(levels, times)
    return Schedule(levels, times)


def trajectory(
    model: Model,
    prompt: Prompt,
    schedule: Schedule,
    *,
    seed: int,
    latent_size: tuple[int, int],
) -> Iterator[Tensor]:
    """Yield x before each model call, then the result: ``steps + 1`` latents, evaluated.

    DiffusionKit's models advance by algorithm 2 (Euler) of Karras et al. (2022), in the order of
    operations of its `sample_euler`.
    """
    x = _noise(model, schedule, seed, latent_size)
    for i in range(schedule.steps):
        yield x
        _, x = _advanced(model, prompt, schedule, x, i)
    yield x


def trajectory_with_output(
    model: Model,
    prompt: Prompt,
    schedule: Schedule,
    *,
    seed: int,
    latent_size: tuple[int, int],
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """`trajectory`, and with each x the guided output there: ``(x - denoised) / sigma``.

    The latents are those of `trajectory`, bit for bit; with the last comes None.
    """
    x = _noise(model, schedule, seed, latent_size)
    for i in range(schedule.steps):
        denoised, following = _advanced(model, prompt, schedule, x, i)
        output = (x - denoised) / schedule.sigmas[i]
        backend().mx.eval(output)
        yield x, output
        x = following
    yield x, None


def _noise(model: Model, schedule: Schedule, seed: int, latent_size: tuple[int, int]) -> Tensor:
    with inside_model("noise"):
        x = model.noise(schedule.sigmas, seed=seed, latent_size=latent_size)
        backend().mx.eval(x)
    return x


def _advanced(
    model: Model, prompt: Prompt, schedule: Schedule, x: Tensor, i: int
) -> tuple[Tensor, Tensor]:
    """What the model predicts at a step, and the latent at the next."""
    sigma = schedule.sigmas[i]
    with inside_model(f"step {i}", model.module):
        denoised = model.denoise(x, schedule.timesteps[i], sigma, prompt)
        following = model.advance(x, denoised, sigma, schedule.sigmas[i + 1])
        backend().mx.eval(denoised, following)
    return denoised, following
