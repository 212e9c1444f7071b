"""Samples of a Phase 1 file, as `cache` and `collect` run them through the model.

Rows of such a file keep no trajectory: each is a sample of its own at one timestep, with a row of
the file's prompt table. Its timesteps, from noise to image, are the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, TaqError, problem
from taqstore.names import SAMPLES
from taqstore.store.reader import Store

from ..models.backend import backend
from ..models.limits import Use
from ..models.load import Conditioning, LoadedModel, Prompt, Tensor
from ..models.sampling import Schedule, restored_schedule
from ..models.table import find_model
from .trajectories import KEPT, UNUSED

# Of the timestep axis: what the model is given is sigma times this, rounded.
TIMESTEPS = 1000


@dataclass(frozen=True)
class Draw:
    """Which samples of a Phase 1 file are taken.

    Parameters
    ----------
    number
        How many; None or as many as there are: all.
    seed
        Of the draw: ``numpy.random.default_rng(seed).choice(n, number, replace=False)``, as the
        source's `profile_postgelu.py` draws of the n rows of the file.

    Raises
    ------
    TaqError
        A number below 1, or a seed below 0.
    """

    number: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.number is not None and self.number < 1) or self.seed < 0:
            found = f"{self.number} and {self.seed}"
            remedy = "at least 1 sample, a seed of 0 or more"
            raise TaqError(problem("no such draw of samples", found=found, remedy=remedy))

    def of(self, count: int) -> np.ndarray:
        """Positions of the samples taken of `count`, ascending."""
        if self.number is None or self.number >= count:
            return np.arange(count)
        drawn = np.random.default_rng(self.seed).choice(count, size=self.number, replace=False)
        return np.sort(drawn)


@dataclass(frozen=True)
class Samples:
    """Samples drawn of a store, with what `Trajectories` has.

    Parameters
    ----------
    group
        Group `samples`, complete rows only.
    images
        Numbers of the samples taken, ascending.
    position
        (image,) the step of each, of `steps`.
    steps
        Numbers of the timesteps taken, out of all of the file from noise to image.
    timesteps
        (step,) as the file has them.
    run
        Model, weights, dtype, use_t5, shift, negative_prompt.
    draw
        How they were drawn.
    """

    group: xr.Dataset
    images: tuple[int, ...]
    position: np.ndarray
    steps: tuple[int, ...]
    timesteps: np.ndarray
    run: Mapping[str, Any]
    draw: Draw
    _prompts: dict[int, Prompt] = field(default_factory=dict, repr=False, compare=False)

    word = "sample"

    @property
    def use(self) -> Use:
        """What is asked of the model; `check` looks at the rest once it is loaded."""
        return UNUSED

    @property
    def sigmas(self) -> np.ndarray:
        """(step,) float32 noise levels: the timestep over 1000; the file has no others."""
        return self.timesteps.astype(np.float32) / np.float32(TIMESTEPS)

    @property
    def seen(self) -> np.ndarray:
        """(image, step) bool: true where a sample is; each is at one step."""
        return np.asarray(self.position[:, None] == np.arange(len(self.steps)))

    @property
    def order(self) -> tuple[int, ...]:
        """Positions of `images`, prompt by prompt: one preparation serves its samples."""
        return tuple(int(i) for i in np.argsort(self._prompt_of, kind="stable"))

    @property
    def _prompt_of(self) -> np.ndarray:
        return np.asarray(self.group["prompt_index"].sel(sample=list(self.images)).values)

    def summary(self) -> dict[str, Any]:
        """What a group made from these samples must agree in."""
        drawn = {"samples": len(self.images), "sample_seed": self.draw.seed}
        return {name: self.run[name] for name in KEPT} | drawn

    def batches(self, size: int) -> np.ndarray:
        """Numbers of samples ``(batch, slot)``, -1 where a batch is smaller.

        As many batches as leave every one of them at least `size` samples at every step, and at
        least one batch: each has all steps. Samples of a prompt come together.
        """
        by_step = [np.flatnonzero(self.position == step) for step in range(len(self.steps))]
        number = max(1, min(map(len, by_step)) // size)
        members: list[list[int]] = [[] for _ in range(number)]
        for found in by_step:
            ordered = found[np.argsort(self._prompt_of[found], kind="stable")]
            for batch, part in enumerate(np.array_split(ordered, number)):
                members[batch] += [self.images[i] for i in part]
        table = np.full((number, max(map(len, members))), -1, np.int64)
        for row, numbers in zip(table, members, strict=True):
            row[: len(numbers)] = sorted(numbers)
        return table

    def latent(self, model: LoadedModel, image: int, step: int) -> Tensor:
        """One x before the model call, float32 ``(1, height, width, channel)``."""
        x = self.group["x"].sel(sample=image)
        return model.to_model(x.values)

    def check(self, model: LoadedModel) -> None:
        """Refuse samples that another model was given, before anything is run.

        Raises
        ------
        TaqError
            Their conditioning or their latents do not fit this one.
        """
        config, sizes = model.mmdit.config, self.group.sizes
        fits = {"latent_channel": config.vae_latent_dim}
        if "conditioning" in self.group:
            fits |= {
                "row": model.rows,
                "conditioning_channel": config.token_level_text_embed_dim,
                "pooled_channel": config.pooled_text_embed_dim,
            }
        guided = float(self.group.attrs["cfg_scale"]) > 0
        odd = [f"{sizes[dim]} of {dim}, not {n}" for dim, n in fits.items() if sizes[dim] != n]
        for dim in ("height", "width"):
            if sizes[dim] % config.patch_size or sizes[dim] > config.max_latent_resolution:
                odd.append(f"a {dim} of {sizes[dim]}")
        if guided != model.row.guidance:
            odd.append(f"a guidance weight of {self.group.attrs['cfg_scale']}")
        if odd:
            what = f"samples were not made for {model.row.name}"
            remedy = "name the model that the file was made with"
            raise TaqError(problem(what, found="; ".join(odd), remedy=remedy))

    def schedule(self, model: LoadedModel) -> Schedule:
        """Sigmas and timesteps of the steps, in order."""
        return restored_schedule(model, self.sigmas, self.timesteps)

    def prepare(self, model: LoadedModel, image: int, schedule: Schedule) -> Prompt:
        """Conditioning of a sample and its adaLN parameters, at the steps of its prompt's samples.

        The last prompt is kept.
        """
        index = int(self.group["prompt_index"].sel(sample=image))
        if index not in self._prompts:
            self._prompts.clear()
            self._prompts[index] = self._prepared(model, index, schedule)
        return self._prompts[index]

    def prepare_all(
        self, model: LoadedModel, images: Sequence[int], schedule: Schedule
    ) -> dict[int, Prompt]:
        """Conditioning and adaLN parameters of several samples."""
        chosen = set(images)
        ordered = [self.images[i] for i in self.order if self.images[i] in chosen]
        return {image: self.prepare(model, image, schedule) for image in ordered}

    def _prepared(self, model: LoadedModel, index: int, schedule: Schedule) -> Prompt:
        used = np.unique(self.position[self._prompt_of == index])
        conditioning = self._conditioning(model, index)
        return model.prepare(conditioning, schedule.timesteps[backend().mx.array(used)])

    def _conditioning(self, model: LoadedModel, index: int) -> Conditioning:
        """As the file keeps it, cast to the activation dtype; else the file's prompt, encoded."""
        weight, prompts = float(self.group.attrs["cfg_scale"]), self.group
        if "conditioning" not in self.group:
            text = str(prompts["prompt"].sel(prompt_id=index).values)
            return model.encode_text(text, cfg_weight=weight, negative="")
        found = prompts[["conditioning", "pooled_conditioning"]].sel(prompt_id=index)
        tokens, pooled = (np.asarray(v.values) for v in found.data_vars.values())
        mx, dtype = backend().mx, model.pipeline.activation_dtype
        given = Conditioning(
            mx.array(np.ascontiguousarray(tokens)).astype(dtype),
            mx.array(np.ascontiguousarray(pooled)).astype(dtype),
            weight,
        )
        mx.eval(given.tokens, given.pooled)
        return given


def read_samples(store: Store, *, draw: Draw, stride: int, model: str | None) -> Samples:
    """Draw of a store's samples.

    Parameters
    ----------
    stride
        Every how many timesteps of the file, from noise; samples at others are left out.
    model
        Which model they are for; the file does not say it.

    Raises
    ------
    MissingError
        The store has no samples, or none that are complete.
    TaqError
        No model is named.
    """
    where = str(store.location)
    if SAMPLES not in store or not store[SAMPLES].sizes["sample"]:
        what = "no samples of a Phase 1 file"
        remedy = "taqstore ingest takes DiT_cali_data.npz"
        raise MissingError(problem(what, where=where, remedy=remedy))
    if model is None:
        what = "samples of a Phase 1 file do not say which model made them"
        raise TaqError(problem(what, where=where, remedy="name it with --model"))
    group = store[SAMPLES]
    every = group["timestep"].values
    unique = np.unique(every)[::-1]
    steps = np.arange(len(unique))[::stride]
    taken = draw.of(len(every))
    at = len(unique) - 1 - np.searchsorted(unique[::-1], every[taken])
    kept = np.isin(at, steps)
    if not kept.any():
        what = "no sample drawn lies at a chosen timestep"
        raise MissingError(problem(what, where=where, remedy="draw more, or a --stride of 1"))
    present = np.unique(at[kept])
    return Samples(
        group,
        images=tuple(int(i) for i in group["sample"].values[taken[kept]]),
        position=np.searchsorted(present, at[kept]),
        steps=tuple(int(step) for step in present),
        timesteps=unique[present],
        run=_run(group, model),
        draw=draw,
    )


def _run(group: xr.Dataset, model: str) -> dict[str, Any]:
    row = find_model(model)
    half = group["timestep"].dtype == np.float16
    return {
        "model": model,
        "weights": None,
        "dtype": "float16" if half else row.dtype,
        # No text is encoded where the file keeps the conditioning.
        "use_t5": row.use_t5 and "conditioning" not in group,
        "shift": row.shift,
        "negative_prompt": "",
    }
