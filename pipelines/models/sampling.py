"""Euler sampling with guidance, step by step: bit-equal to DiffusionKit's `denoise_latents`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem

from .backend import backend
from .failures import inside_model
from .load import LoadedModel, Prompt, Tensor, to_numpy


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


def make_schedule(model: LoadedModel, steps: int) -> Schedule:
    """The schedule that DiffusionKit samples `steps` steps with."""
    with inside_model("schedule"):
        sigmas = model.pipeline.get_sigmas(model.sampler, steps)
        timesteps = model.sampler.timestep(sigmas).astype(model.pipeline.activation_dtype)
        backend().mx.eval(sigmas, timesteps)
    levels = np.array(to_numpy(sigmas), np.float64)
    if not np.isfinite(levels).all() or (np.diff(levels) >= 0).any():
        what = f"{steps} steps with shift {model.row.shift:g} give no falling noise levels"
        raise TaqError(problem(what, remedy="change --steps or --timestep-shift"))
    return Schedule(sigmas, timesteps)


def restored_schedule(model: LoadedModel, sigmas: np.ndarray, timesteps: np.ndarray) -> Schedule:
    """A schedule from what `Schedule.arrays` gave, bit for bit."""
    mx = backend().mx
    return Schedule(
        mx.array(sigmas.astype(np.float32)),
        mx.array(timesteps).astype(model.pipeline.activation_dtype),
    )


def initial_latent(
    model: LoadedModel, schedule: Schedule, *, seed: int, latent_size: tuple[int, int]
) -> Tensor:
    """Noise to begin with, float32 ``(1, height, width, 16)``; NumPy's global state is kept."""
    pipeline = model.pipeline
    empty = pipeline.get_empty_latent(*latent_size)
    state: Any = np.random.get_state()
    try:
        noise = pipeline.get_noise(seed, empty)
    finally:
        np.random.set_state(state)
    full = pipeline.max_denoise(schedule.sigmas)
    return model.sampler.noise_scaling(schedule.sigmas[0], noise, empty, full)


def trajectory(
    model: LoadedModel,
    prompt: Prompt,
    schedule: Schedule,
    *,
    seed: int,
    latent_size: tuple[int, int],
) -> Iterator[Tensor]:
    """Yield x before each model call, then the result: ``steps + 1`` latents, evaluated.

    Algorithm 2 (Euler) of Karras et al. (2022), in the order of operations of DiffusionKit's
    `sample_euler`.
    """
    mx = backend().mx
    with inside_model("noise"):
        x = initial_latent(model, schedule, seed=seed, latent_size=latent_size)
        mx.eval(x)
    for i in range(schedule.steps):
        yield x
        sigma = schedule.sigmas[i]
        with inside_model(f"step {i}", model.mmdit):
            denoised = model.denoise(x, schedule.timesteps[i], sigma, prompt)
            slope = (x - denoised) / sigma[..., None, None, None, None]
            x = x + slope * (schedule.sigmas[i + 1] - sigma)
            mx.eval(x)
    yield x
