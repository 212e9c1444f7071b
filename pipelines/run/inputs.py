"""What `cache` and `collect` run through the model: latents of a store, or Phase 1 samples."""

from __future__ import annotations

import os
from collections.abc import Iterable

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.names import LATENTS, SAMPLES
from taqstore.store.reader import Store

from ..models.load import LoadedModel
from .samples import Draw, read_samples
from .samples import Samples as Samples
from .trajectories import Trajectories, load_model_of, read_trajectories

Inputs = Trajectories | Samples


def takes_samples(store: Store, num_samples: int | None) -> bool:
    """Whether samples are run: where they are asked for, or the store has no latents."""
    return num_samples is not None or (LATENTS not in store and SAMPLES in store)


def read_inputs(
    store: Store,
    *,
    images: Iterable[int] | None,
    stride: int | None,
    latents_stride: int,
    model: str | None,
    num_samples: int | None,
    seed: int | None,
) -> Inputs:
    """Choose what is run.

    Parameters
    ----------
    images, model
        As of `read_trajectories`; samples are drawn, and have no image ids.
    stride
        Every how many steps, from noise; None: `latents_stride` of latents, and all of samples,
        which were drawn over the steps when their file was made.
    num_samples, seed
        The `Draw` of samples; None: all of them, and seed 0.

    Raises
    ------
    MisuseError
        A seed is given without a number of samples.
    TaqError
        Images are named and samples are run.
    StoreError, MissingError
        As of `read_trajectories` and `read_samples`.
    """
    if seed is not None and num_samples is None:
        what = "a seed draws samples, and no number of them is asked for"
        raise MisuseError(problem(what, remedy="give --num-samples, or leave --seed out"))
    if not takes_samples(store, num_samples):
        step = latents_stride if stride is None else stride
        return read_trajectories(store, images=images, stride=step, model=model)
    if images is not None:
        what = "samples of a Phase 1 file have no image ids"
        raise TaqError(problem(what, remedy="choose with --num-samples and --seed, not --images"))
    draw = Draw(num_samples, seed or 0)
    return read_samples(store, draw=draw, stride=stride or 1, model=model)


def model_of(found: Inputs, *, local_ckpt: str | os.PathLike[str] | None) -> LoadedModel:
    """The model that made them, loaded.

    Raises
    ------
    TaqError
        It cannot be loaded, or what is run is not of it.
    """
    loaded = load_model_of(found.run, local_ckpt=local_ckpt, use=found.use)
    if isinstance(found, Samples):
        found.check(loaded)
    return loaded


def stride_of(found: Inputs, stride: int | None, latents_stride: int) -> int:
    """Every how many steps were run, as `read_inputs` chose."""
    return stride or (1 if isinstance(found, Samples) else latents_stride)
