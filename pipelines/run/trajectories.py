"""The latents of a store, as `cache` and `collect` run them through the model again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, StoreError, TaqError, problem
from taqstore.names import LATENTS
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store, open_store

from ..models.failures import placed
from ..models.limits import Use, check_use
from ..models.load import LoadedModel, Prompt, Tensor, load_pipeline
from ..models.sampling import Schedule, restored_schedule
from ..models.table import find_model
from .groups import RUN

ID = "id"
UNUSED = Use()
# Of a run: what groups made from its latents or samples must agree in.
KEPT = ("model", "weights", "dtype", "use_t5", "negative_prompt")


@dataclass(frozen=True)
class Trajectories:
    """Latents of chosen images, and the run that made them.

    Parameters
    ----------
    latents
        Group `latents`, complete images only.
    images
        Chosen image ids.
    steps
        Chosen steps; the final latent, which no model is given, is not among them.
    run
        Configuration: model, weights, dtype, use_t5, negative_prompt, ….
    """

    latents: xr.Dataset
    images: tuple[int, ...]
    steps: tuple[int, ...]
    run: Mapping[str, Any]

    word = "image"

    @property
    def seen(self) -> np.ndarray:
        """(image, step) bool: every image is run at every step."""
        return np.ones((len(self.images), len(self.steps)), bool)

    @property
    def order(self) -> tuple[int, ...]:
        """Positions of `images` in the order in which they are run."""
        return tuple(range(len(self.images)))

    @property
    def timesteps(self) -> np.ndarray:
        """Timesteps of the chosen steps, as the model saw them."""
        return np.asarray(self.latents["timestep"].values[list(self.steps)])

    @property
    def sigmas(self) -> np.ndarray:
        """Sigmas of the chosen steps, float32."""
        return np.asarray(self.latents["sigma"].values[list(self.steps)])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        sizes = self.latents.sizes
        return sizes["height"], sizes["width"], sizes["latent_channel"]

    @property
    def use(self) -> Use:
        """What is asked of the model."""
        chosen = self.latents[["cfg_weight"]].sel(image=list(self.images))
        height, width, channels = self.latent_shape
        weights = tuple(map(float, np.unique(chosen["cfg_weight"].values)))
        return Use(latent_size=(height, width), channels=channels, cfg_weights=weights)

    @property
    def seeds(self) -> tuple[int, ...]:
        """What the noise of each chosen image was made from."""
        return tuple(map(int, self.latents["seed"].sel(image=list(self.images)).values))

    def summary(self) -> dict[str, Any]:
        """What a group made from these latents must agree in."""
        latents = str(self.latents.attrs.get(ID, ""))
        return {name: self.run[name] for name in KEPT} | {LATENTS: latents}

    def batches(self, size: int) -> np.ndarray:
        """Image ids ``(batch, slot)``, -1 where the last batch is smaller."""
        found = np.full((-(-len(self.images) // size), size), -1, np.int64)
        found.ravel()[: len(self.images)] = self.images
        return found

    def latent(self, model: LoadedModel, image: int, step: int) -> Tensor:
        """One x before the model call, float32 ``(1, height, width, channel)``."""
        x = self.latents["x"].sel(image=image).isel(step=step)
        return model.to_model(x.values)

    def schedule(self, model: LoadedModel) -> Schedule:
        """Sigmas and timesteps of the chosen steps, in order."""
        return restored_schedule(model, self.sigmas, self.timesteps)

    def prepare(self, model: LoadedModel, image: int, schedule: Schedule) -> Prompt:
        """Conditioning and adaLN parameters of an image, encoded anew from its prompt."""
        found = self.latents[["prompt", "cfg_weight"]].sel(image=image)
        with placed(f"image {image}"):
            conditioning = model.encode_text(
                str(found["prompt"].values),
                cfg_weight=float(found["cfg_weight"]),
                negative=self.run["negative_prompt"],
            )
            return model.prepare(conditioning, schedule.timesteps)

    def prepare_all(
        self, model: LoadedModel, images: Sequence[int], schedule: Schedule
    ) -> dict[int, Prompt]:
        """`prepare` of several images."""
        return {image: self.prepare(model, image, schedule) for image in images}


def read_trajectories(
    store: Store | str | os.PathLike[str],
    *,
    images: Iterable[int] | None,
    stride: int,
    model: str | None,
) -> Trajectories:
    """Choose images and steps of a store's latents.

    Parameters
    ----------
    store
        Path or URL, or a store that is open.
    images
        Image ids; None: all that are complete.
    stride
        Every how many steps, from the first.
    model
        Which model made them, for latents that were ingested and do not say it.

    Raises
    ------
    StoreError
        There is no store.
    MissingError
        It has no latents, or not these images.
    TaqError
        The latents do not say their model, and none is named; or they name another.
    """
    opened = open_store(store, chunks=None, checksum=True)
    if LATENTS not in opened:
        what = "no latents to run the model on"
        remedy = "taqstore generate makes them"
        raise MissingError(problem(what, where=str(opened.location), remedy=remedy))
    latents = opened[LATENTS]
    there = [int(image) for image in latents["image"].values]
    chosen = tuple(there if images is None else dict.fromkeys(images))
    absent = [image for image in chosen if image not in there]
    if absent or not chosen:
        what = f"no complete latents of image {', '.join(map(str, absent))}".rstrip()
        found = ", ".join(map(str, there)) or "none"
        where = str(opened.location)
        raise MissingError(problem(what, where=where, found=f"complete: {found}"))
    steps = np.flatnonzero(~latents["is_final"].values.astype(bool))[::stride]
    return Trajectories(latents, chosen, tuple(map(int, steps)), _run(latents, model))


def _run(latents: xr.Dataset, model: str | None) -> dict[str, Any]:
    """The run the latents record; for ingested ones, the model named and their own manifest."""
    recorded: dict[str, Any] | None = attribute_of(latents, RUN)
    if recorded is not None:
        if model not in (None, recorded["model"]):
            what = f"these latents were made by {recorded['model']}, not {model}"
            raise TaqError(problem(what, remedy="leave --model out"))
        return recorded
    if model is None:
        what = "these latents do not say which model made them"
        raise TaqError(problem(what, remedy="name it with --model"))
    row, manifest = find_model(model), attribute_of(latents, "source_manifest", {})
    half = latents["timestep"].dtype == np.float16
    return {
        "model": model,
        "weights": None,
        "dtype": "float16" if half else row.dtype,
        "use_t5": bool(manifest.get("use_t5", row.use_t5)),
        "shift": row.shift,
        "negative_prompt": "",
    }


def load_model_of(
    run: Mapping[str, Any], *, local_ckpt: str | os.PathLike[str] | None, use: Use = UNUSED
) -> LoadedModel:
    """Load the model of a run, if it can be used like this.

    Raises
    ------
    StoreError
        Its weights are not those that the run recorded.
    TaqError
        It takes no such latents, or does not load.
    """
    check_use(find_model(run["model"]), use, of_store=True)
    model = load_pipeline(
        run["model"],
        local_ckpt=local_ckpt,
        dtype=run["dtype"],
        shift=run["shift"],
        use_t5=run["use_t5"],
    )
    if run["weights"] not in (None, model.digest):
        raise StoreError(
            problem(
                "the latents were made with other weights",
                found=f"SHA-256 {model.digest[:12]}, not {run['weights'][:12]}",
                remedy="name the same checkpoint with --local-ckpt",
            )
        )
    return model
