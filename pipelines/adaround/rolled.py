"""What `adaround --rolling` runs in the place of cached blocks: latents or samples of the store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.kinds.float16 import bfloat16_bits, of_bfloat16_bits
from taqstore.kinds.minibatches import check_batch
from taqstore.kinds.weight_sets import ADAROUND
from taqstore.names import BLOCKS, STREAMS
from taqstore.names.boundaries import Boundary
from taqstore.store.reader import Store

from ..models.backend import backend
from ..models.capture import watching_blocks
from ..models.failures import inside_model, placed
from ..models.hooks import standing_in
from ..models.layers import ModelBlock, blocks
from ..models.load import LoadedModel, Prompt, Tensor
from ..models.sampling import Schedule
from ..run.inputs import Inputs, model_of, read_inputs, stride_of

# Every how many steps of latents, as `cache` has it.
_STRIDE = 5


@dataclass(frozen=True)
class RollingInputs:
    """Which latents or samples are run; as of `read_inputs`, every fifth step of latents.

    Parameters
    ----------
    images, stride, num_samples, seed
        As of `cache`.
    """

    images: Sequence[int] | None = None
    stride: int | None = None
    num_samples: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class StreamShape:
    """A stream at a boundary: ``(row, token, channel)``, and the dtype the model computed it in."""

    shape: tuple[int, int, int]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one sample, as stored."""
        return prod(self.shape) * (4 if self.dtype == "float32" else 2)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Values of the model as they are stored: exactly."""
        return bfloat16_bits(values) if self.dtype == "bfloat16" else values

    def read(self, stored: np.ndarray) -> np.ndarray:
        """What was stored, as numbers."""
        return of_bfloat16_bits(stored) if self.dtype == "bfloat16" else stored


@dataclass(frozen=True)
class Rolled:
    """Samples of every block of a model, computed when its turn comes; make it with `open`.

    Parameters
    ----------
    found, model, schedule
        What is run, by what, at which steps.
    first
        Prompt of the first image.
    shapes
        Of each stream at each boundary, from an unevaluated forward.
    set
        Weight set that the boundaries are kept for.
    """

    found: Inputs
    model: LoadedModel
    schedule: Schedule
    first: Prompt
    shapes: Mapping[str, Mapping[int, StreamShape]]
    set: str = ADAROUND

    @classmethod
    def open(
        cls,
        store: Store,
        inputs: RollingInputs,
        *,
        model: str | None,
        local_ckpt: str | os.PathLike[str] | None,
        set: str,
    ) -> Rolled:
        """Choose what is run and load its model.

        Raises
        ------
        TaqError
            The store has cached blocks, or as of `cache`.
        """
        cached = [path for path in (f"{BLOCKS}/{name}" for name in STREAMS) if path in store]
        if cached:
            what = "--rolling computes what the store has cached already"
            remedy = "leave --rolling out, or work in a store without cached blocks"
            found_there = ", ".join(cached)
            raise TaqError(
                problem(what, where=str(store.location), found=found_there, remedy=remedy)
            )
        found = read_inputs(
            store,
            images=inputs.images,
            stride=inputs.stride,
            latents_stride=_STRIDE,
            model=model,
            num_samples=inputs.num_samples,
            seed=inputs.seed,
        )
        loaded = model_of(found, local_ckpt=local_ckpt)
        schedule = found.schedule(loaded)
        first = found.prepare(loaded, found.images[0], schedule)
        return cls(found, loaded, schedule, first, _shapes(found, loaded, schedule, first), set)

    @property
    def own(self) -> str:
        """The weight set, as names of boundaries have it."""
        return "" if self.set == ADAROUND else self.set

    def __len__(self) -> int:
        return int(self.found.seen.sum())

    @cached_property
    def blocks(self) -> list[ModelBlock]:
        """Blocks of the model in the order they run."""
        return blocks(self.model.mmdit)

    def stride(self, inputs: RollingInputs) -> int:
        """Every how many steps are run."""
        return stride_of(self.found, inputs.stride, _STRIDE)

    def check(self, names: Sequence[str], batch: int) -> None:
        """Refuse, before anything is written, a batch that these blocks cannot give.

        Raises
        ------
        TaqError
            It is of more samples than there are, or more than batches may take of the memory.
        """
        for place, block in enumerate(self.blocks):
            if block.name in names:
                window = [*self.inputs_of(place), *self.outputs_of(place)]
                sample = sum(2 * prod(self.shape_of(boundary).shape) for boundary in window)
                check_batch(block.name, batch, samples=len(self), nbytes=sample)

    @property
    def text_tokens(self) -> int:
        """Text tokens, where unified blocks hold text and image in one stream."""
        return self.shapes["txt"][0].shape[1] if "txt" in self.shapes else 0

    def inputs_of(self, place: int) -> list[Boundary]:
        """Boundaries that a block is given."""
        block = self.blocks[place]
        return [Boundary(name, block.index, self.own) for name in block.streams]

    def outputs_of(self, place: int) -> list[Boundary]:
        """Boundaries that a block puts out; a last block may put out no text."""
        ends = [boundary.following for boundary in self.inputs_of(place)]
        return [end for end in ends if end.index in self.shapes[end.stream]]

    def shape_of(self, boundary: Boundary) -> StreamShape:
        """What a boundary holds for each sample."""
        return self.shapes[boundary.stream][boundary.index]

    def forward(
        self,
        place: int,
        at: tuple[int, int],
        prompt: Prompt,
        *,
        source: int | None,
        given: Mapping[str, Tensor],
    ) -> dict[Boundary, Tensor]:
        """Inputs and outputs of one block for one sample, evaluated.

        The model itself runs, so that a block is given what the whole forward gives it; blocks
        that are not needed hand on what they are given, and nothing they would have computed is
        evaluated.

        Parameters
        ----------
        place
            Of the block.
        at
            Positions of the image and the step.
        source
            Place of the block whose outputs are `given`; None: all run, from the latent on.
        given
            Outputs of it, ``(row, token, 1, channel)`` by stream.
        """
        stand_ins = [
            (block.module, _handing_on(block))
            for i, block in enumerate(self.blocks)
            if i > place or (source is not None and i < source)
        ]
        if source is not None:
            block = self.blocks[source]
            results = tuple(given.get(name) for name in block.streams)
            stand_ins.append((block.module, lambda _: results[0] if block.unified else results))
        position, step = at
        # Of what runs from another block on, only the shape of the latent matters.
        image, number = (position, step) if source is None else (0, self._first_step)
        x = self.found.latent(self.model, self.found.images[image], self.found.steps[number])
        label = f"{self.found.word} {self.found.images[position]}, step {self.found.steps[step]}"
        name, mmdit = self.blocks[place].name, self.model.mmdit
        with inside_model(label, mmdit), standing_in(stand_ins):
            with watching_blocks(mmdit, (name,)) as streams:
                timestep, sigma = self.schedule.timesteps[step], self.schedule.sigmas[step]
                self.model.denoise(x, timestep, sigma, prompt)
            found = {
                Boundary(stream, index, self.own): tensor
                for stream, tensors in streams.by_name().items()
                for index, tensor in tensors.items()
            }
            backend().mx.eval(list(found.values()))
        return found

    @cached_property
    def _first_step(self) -> int:
        return int(np.flatnonzero(self.found.seen[0])[0])


def _handing_on(block: ModelBlock) -> Any:
    """What stands in for a block: its streams go through it as they are."""
    count = len(block.streams)
    return lambda given: given[0] if count == 1 else given[:count]


def _shapes(
    found: Inputs, model: LoadedModel, schedule: Schedule, prompt: Prompt
) -> dict[str, dict[int, StreamShape]]:
    at = int(np.flatnonzero(found.seen[0])[0])
    with watching_blocks(model.mmdit) as streams:
        x = found.latent(model, found.images[0], found.steps[at])
        with placed(f"{found.word} {found.images[0]}, step {found.steps[at]}"):
            model.denoise(x, schedule.timesteps[at], schedule.sigmas[at], prompt)
    return {
        name: {index: _shape(tensor) for index, tensor in stream.items()}
        for name, stream in streams.by_name().items()
    }


def _shape(tensor: Tensor) -> StreamShape:
    row, token, _, channel = tensor.shape
    return StreamShape((row, token, channel), str(tensor.dtype).rpartition(".")[2])
