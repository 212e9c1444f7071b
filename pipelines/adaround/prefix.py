"""Streams that quantized blocks put out, kept for the block after them: `adaround --prefix`.

The quantized input of block i is the group `blocks/<stream>.quantized-<i>`, with boundary i alone;
that of another weight set than `adaround` is `blocks/<stream>.quantized-<i>.<set>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.kinds.block_samples import BlockSamples
from taqstore.kinds.float16 import as_float16
from taqstore.kinds.templates import blocks_template
from taqstore.kinds.weight_sets import ADAROUND
from taqstore.names import BLOCKS, STREAMS
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store
from taqstore.store.writer import StoreWriter

from ..models.layers import ModelBlock
from ..run.groups import RUN


def prefix_streams(block: ModelBlock, *, set: str = ADAROUND) -> dict[str, str]:
    """Name of the quantized stream of each stream a block is given, by blocks of a weight set."""
    own = "" if set == ADAROUND else f".{set}"
    return {name: f"{name}.quantized-{block.index}{own}" for name in block.streams}


def is_prefix_stream(name: str, *, set: str = ADAROUND) -> bool:
    """Whether a group of `blocks` is a quantized stream, by blocks of a weight set."""
    own = "" if set == ADAROUND else f".{set}"
    return re.fullmatch(rf"({'|'.join(STREAMS)})\.quantized-\d+{re.escape(own)}", name) is not None


@dataclass(frozen=True)
class PrefixWriter:
    """Where the outputs of quantized blocks go.

    Parameters
    ----------
    writer, store
        The store, open for writing and for reading.
    run
        Configuration, as the other groups have it.
    replace
        Replace what is there.
    set
        Weight set of the quantized blocks.
    labels
        The group whose coordinates those of a stream are; None: the cached stream.
    """

    writer: StoreWriter
    store: Store
    run: Mapping[str, Any]
    replace: bool
    outcome: Outcome
    set: str = ADAROUND
    labels: Callable[[str], Any] | None = None

    def write(
        self, following: ModelBlock, samples: BlockSamples, outputs: Iterator[dict[str, np.ndarray]]
    ) -> None:
        """Write the input of the block after, all samples of it.

        Parameters
        ----------
        samples
            Of the quantized block.
        outputs
            Its outputs, float32 ``(sample, row, token, channel)`` by stream, in order of samples.

        Raises
        ------
        TaqError
            An output does not fit float16.
        """
        groups: dict[str, GroupWriter] = {}
        done = 0
        for batch in outputs:
            inputs = _as_inputs(following, batch)
            if not groups:
                groups = {n: self.group(following, n, x.shape[1:]) for n, x in inputs.items()}
            for name, values in inputs.items():
                what = f"quantized input {name} of {following.name}"
                half = as_float16(values, what, remedy="leave --prefix out")
                for place, value in enumerate(half):
                    self._put(groups[name], samples, done + place, value)
            done += len(next(iter(inputs.values())))

    def group(self, block: ModelBlock, stream: str, shape: tuple[int, ...]) -> GroupWriter:
        """Where the quantized stream goes that a block is given, `shape` (row, token, channel)."""
        cached = self.labels(stream) if self.labels else self.store[f"{BLOCKS}/{stream}"]
        row, token, channel = shape
        template = blocks_template(
            prefix_streams(block, set=self.set)[stream],
            images=cached["image"].values.tolist(),
            steps=cached["step"].values,
            sigmas=cached["sigma"].values,
            timesteps=cached["timestep"].values,
            boundaries=[block.index],
            shape=(row, token, channel),
            attrs={RUN: dict(self.run), "singleton_axis": 2},
        )
        return self.writer.group(template, replace=self.replace)

    def _put(
        self, group: GroupWriter, samples: BlockSamples, number: int, value: np.ndarray
    ) -> None:
        coords = group.template.coords
        at = tuple(
            int(np.flatnonzero(coords[dim][1] == labels[number])[0])
            for dim, labels in (("image", samples.image), ("step", samples.step))
        )
        size = group.put("x", (*at, 0, 0, 0, 0), value[None, None, None])
        group.commit([at])
        self.outcome.wrote(group.template.path, size=size)


def _as_inputs(block: ModelBlock, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Outputs of the block before as `block` takes them: text first where it holds both."""
    if block.unified and "uni" not in outputs:
        return {"uni": np.concatenate([outputs["txt"], outputs["img"]], axis=2)}
    return outputs
