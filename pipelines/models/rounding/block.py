"""One block run on its own, from cached streams: the model's module, its adaLN, its positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.names import SITES, LayerName

from ..backend import backend
from ..failures import inside_model
from ..inputs import block_readers
from ..layers import ModelBlock, halves
from ..load import LoadedModel, Tensor
from ..modulation import modulated_by, modulation

# Under which the block looks its adaLN parameters up; any float will do.
_KEY = 0.0


@dataclass(frozen=True)
class Minibatch:
    """Samples of a block; guidance rows of a sample stay together.

    Parameters
    ----------
    inputs, targets
        By stream (`img`, `txt`, `uni`), ``(sample, row, token, channel)``.
    pooled
        Pooled conditioning ``(sample, row, pooled_channel)``.
    timestep
        ``(sample,)`` in the activation dtype.
    group
        Time group of each sample ``(sample,)`` by site; empty: all are in the first.
    weight
        What each sample counts ``(sample,)``; None: 1.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    pooled: Tensor
    timestep: Tensor
    group: Mapping[str, np.ndarray]
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.timestep.shape[0])

    @property
    def rows(self) -> int:
        """Rows of all samples."""
        return len(self) * int(self.pooled.shape[1])

    def parts(self, size: int) -> Iterator[Minibatch]:
        """The same samples, at most `size` at a time."""
        for start in range(0, len(self), size):
            at = slice(start, start + size)
            yield Minibatch(
                {name: x[at] for name, x in self.inputs.items()},
                {name: x[at] for name, x in self.targets.items()},
                self.pooled[at],
                self.timestep[at],
                {site: group[at] for site, group in self.group.items()},
                None if self.weight is None else self.weight[at],
            )


@dataclass(frozen=True)
class BlockRun:
    """A block of a loaded model.

    Parameters
    ----------
    model
        Whose.
    block
        Which block.
    positions
        Positional encodings that the block is given; None: it takes none.
    """

    model: LoadedModel
    block: ModelBlock
    positions: Tensor | None = None

    @property
    def linears(self) -> list[tuple[LayerName, Any]]:
        """Its linears, by full name."""
        return [(reader.name, reader.module) for reader in block_readers(self.block, SITES)]

    def modulation(self, pooled: Tensor, timestep: Tensor) -> list[Tensor]:
        """AdaLN parameters of each half ``(sample * row, 1, 1, parameter)``.

        For one sample the operations and shapes are those of `MMDiT.cache_modulation_params`, and
        so are the bits.
        """
        mx, mmdit = backend().mx, self.model.mmdit
        rows = pooled.shape[1]
        with inside_model("modulation", mmdit):
            modules = [half for _, half in halves(self.block)]
            flat, times = pooled.reshape(-1, pooled.shape[-1]), mx.repeat(timestep, rows, axis=0)
            return modulation(mmdit, modules, flat, times)

    def outputs(self, inputs: Mapping[str, Tensor], modulation: list[Tensor]) -> dict[str, Tensor]:
        """Run the block: streams it puts out, ``(sample, row, token, channel)``, not evaluated."""
        first = inputs[self.block.streams[0]]
        given = [_flat(inputs[name]) for name in self.block.streams]
        key = backend().mx.array(_KEY)
        with modulated_by([half for _, half in halves(self.block)], modulation, key):
            time = backend().mx.full((given[0].shape[0],), _KEY)
            with inside_model(mmdit=self.model.mmdit):
                found = self.block.module(*given, time, positional_encodings=self.positions)
        results = found if isinstance(found, tuple) else (found,)
        named = zip(self.block.streams, results, strict=True)
        lead = first.shape[:2]
        return {
            name: x.reshape(*lead, x.shape[1], x.shape[-1]) for name, x in named if x is not None
        }


def _flat(x: Tensor) -> Tensor:
    """Samples and rows as one axis, and the axis of size 1 that the model has."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2], 1, x.shape[3])


def positions_of(
    model: LoadedModel, *, latent_size: tuple[int, int] | None, text_tokens: int
) -> Tensor | None:
    """Positional encodings that the model gives its blocks; None where it gives none.

    Parameters
    ----------
    latent_size
        Height and width of a latent; None: not known.

    Raises
    ------
    MissingError
        The model rotates by position, and the latents' size is not known.
    """
    from taqstore.errors import MissingError, problem

    rope = model.mmdit.pre_sdpa_rope
    if not hasattr(rope, "rope"):
        return None
    if latent_size is None:
        what = f"blocks of {model.row.name} need the size of the latents"
        raise MissingError(problem(what, remedy="keep the group latents in the store"))
    patch = model.mmdit.config.patch_size
    height, width = latent_size
    return rope(
        text_sequence_length=text_tokens, latent_image_resolution=(height // patch, width // patch)
    )
