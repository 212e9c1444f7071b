"""Samples of one transformer block: what went in, what came out, at which step of which image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from taqstore.arrays.staged import staging_bytes
from taqstore.errors import MissingError, TaqError, problem
from taqstore.kinds.float16 import of_bfloat16_bits
from taqstore.names import BLOCKS, STREAMS, WRITTEN, Block
from taqstore.names.boundaries import Boundary
from taqstore.place.location import Address
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store.reader import Store, open_store

Array = NDArray[Any]
POOLED = f"{BLOCKS}/pooled"


@dataclass(frozen=True)
class Batch:
    """Samples of one block; the guidance rows of a sample stay together.

    Parameters
    ----------
    inputs
        Stream -> (sample, row, token, channel), in the stored dtype.
    targets
        The same of the block's outputs; a last block puts out no text.
    image, step
        (sample,) image ids and step indices.
    sigma, timestep
        (sample,) as stored; None where the store does not know them.
    pooled
        (sample, row, pooled_channel); None where the store has no pooled conditioning.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    image: Array
    step: Array
    sigma: Array | None
    timestep: Array | None
    pooled: Array | None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def nbytes(self) -> int:
        """Bytes of its streams."""
        return sum(v.nbytes for v in (*self.inputs.values(), *self.targets.values()))


def joined(parts: Sequence[Batch]) -> Batch:
    """Batches of the same streams, one after the other, in new memory."""

    def together(of: Callable[[Batch], Array | None]) -> Array | None:
        found = [values for values in map(of, parts) if values is not None]
        return np.concatenate(found) if found else None

    def streams(of: Callable[[Batch], Mapping[str, Array]]) -> dict[str, Array]:
        return {name: np.concatenate([of(part)[name] for part in parts]) for name in of(parts[0])}

    return Batch(
        streams(lambda batch: batch.inputs),
        streams(lambda batch: batch.targets),
        np.concatenate([part.image for part in parts]),
        np.concatenate([part.step for part in parts]),
        together(lambda batch: batch.sigma),
        together(lambda batch: batch.timestep),
        together(lambda batch: batch.pooled),
    )


@dataclass(frozen=True)
class OwnOutputs:
    """Which block outputs were kept apart, read for the samples that are asked for.

    Parameters
    ----------
    kept
        (image, step), true where one was.
    image, step
        As of `StreamTensor`.
    """

    kept: xr.DataArray
    image: Array
    step: Array

    def __getitem__(self, numbers: Array) -> Array:
        """Of the samples with these numbers."""
        image, step = (xr.DataArray(v[numbers], dims="sample") for v in (self.image, self.step))
        return np.asarray(self.kept.isel(image=image, step=step).values).astype(bool)


@dataclass(frozen=True)
class StreamTensor:
    """One stream at one boundary.

    Parameters
    ----------
    group
        The Dataset.
    image, step
        (sample,) positions of every sample along its dims.
    boundary
        Position of the boundary.
    own
        (sample,) true where block outputs were kept apart, under `output` of the boundary before.
    half
        Read in float16, as a cache has it, whatever it is kept in.
    """

    group: xr.Dataset
    image: Array
    step: Array
    boundary: int
    own: Array | OwnOutputs | None = None
    half: bool = False

    def read(self, numbers: Array) -> Array:
        """(sample, row, token, channel) of the samples with these numbers."""
        found = self._points("x", self.boundary, numbers)
        rows = np.flatnonzero(self.own[numbers]) if self.own is not None else ()
        if len(rows):
            found[rows] = self._points("output", self.boundary - 1, numbers[rows])
        return _half(found) if self.half else found

    def _points(self, name: str, boundary: int, numbers: Array) -> Array:
        image, step = (xr.DataArray(v[numbers], dims="sample") for v in (self.image, self.step))
        return np.asarray(self.group[name].isel(image=image, step=step, boundary=boundary).values)

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        x = self.group["x"]
        return prod(x.sizes[d] for d in ("row", "token", "channel")) * (
            2 if self.half else x.dtype.itemsize
        )


def _half(values: Array) -> Array:
    """A boundary that is kept as it was computed, as a cache has it."""
    exact = of_bfloat16_bits(values) if values.dtype == np.uint16 else values
    return exact.astype(np.float16, copy=False)


@dataclass(frozen=True)
class HeldTensor:
    """A stream of all samples in memory, ``(sample, row, token, channel)``."""

    values: Array

    def read(self, numbers: Array) -> Array:
        """As of `StreamTensor`."""
        return np.asarray(self.values[numbers])

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return self.values.nbytes // len(self.values)


@dataclass(frozen=True)
class BlockSamples:
    """Every complete sample of a block, read by number; make it with `open_block`.

    Parameters
    ----------
    block
        Its name.
    image, step
        (sample,) image ids and step indices: by image, then by step.
    """

    block: str
    image: Array
    step: Array
    _inputs: Mapping[str, StreamTensor | HeldTensor]
    _targets: Mapping[str, StreamTensor | HeldTensor]
    _clock: Mapping[str, Mapping[int, Any]]
    _pooled: xr.DataArray | None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def nbytes(self) -> int:
        """Bytes of one sample's inputs and targets."""
        return sum(t.nbytes for t in (*self._inputs.values(), *self._targets.values()))

    @property
    def in_memory(self) -> bool:
        """Whether all of them are."""
        return all(isinstance(tensor, HeldTensor) for tensor in self._inputs.values())

    def held(self, most: int) -> BlockSamples:
        """The same samples, read once and in memory; itself where they take more than `most` bytes.

        A sample of a small model takes longer to find in its store than to copy.
        """
        if self.nbytes * len(self) > most:
            return self
        whole = self.read(np.arange(len(self)))
        pooled = None if self._pooled is None else self._pooled.load()
        inputs, targets = (
            {name: HeldTensor(values) for name, values in streams.items()}
            for streams in (whole.inputs, whole.targets)
        )
        return replace(self, _inputs=inputs, _targets=targets, _pooled=pooled)

    def read(self, numbers: ArrayLike) -> Batch:
        """The samples with these numbers (0 to ``len - 1``), in this order, in new memory."""
        at = np.asarray(numbers, np.int64)
        image, step = self.image[at], self.step[at]
        pooled = None if self._pooled is None else self._pooled.sel(image=image).values
        return Batch(
            {name: tensor.read(at) for name, tensor in self._inputs.items()},
            {name: tensor.read(at) for name, tensor in self._targets.items()},
            image,
            step,
            self._label("sigma", step),
            self._label("timestep", step),
            pooled,
        )

    def _label(self, name: str, step: Array) -> Array | None:
        known = self._clock.get(name)
        return None if known is None else np.array([known[int(label)] for label in step])


@takes_storage_options
def open_block(
    store: Store | Address,
    block: str,
    *,
    streams: Sequence[str] | None = None,
    staging: int | None = None,
    storage_options: StorageOptions | None = None,
) -> BlockSamples:
    """Find the samples of a block in `blocks/<stream>`.

    Parameters
    ----------
    store
        Path or URL, or a store that is open.
    block
        `mm0`, `uni4`.
    streams
        Which streams; None: img and txt, or uni. A name like `img.quantized` is a second input of
        the stream img, from the group `blocks/img.quantized`, and has no target. One like
        `img.boundary-3` is the stream img at a boundary that is kept alone, and its target the
        boundary after it (`names.boundaries`).
    staging
        Of a store that is not on a local disk: bytes of the folder for temporary files that may
        hold what was fetched, so that a sample is fetched once however often it is read. None: what
        `TAQSTORE_STAGING` says (such as ``20GB``), else 32 GB and no more than half of what is
        free. 0: nothing is staged.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MissingError
        The store has no such stream, no such block, or no sample of it that is complete.
    TaqError
        The block's name is not one.
    """
    known = Block.parse(block)
    index = known.index
    opened = open_store(store, chunks=None, checksum=True)
    if opened.remote:
        opened = opened.staging(staging_bytes(staging))
    where = str(opened.location)
    names = streams or known.streams
    groups = {name: _group(opened, name) for name in names}
    alone = {name: b for name in names if (b := Boundary.parse(name)) is not None}
    following = {b.stream: b.following.path for b in alone.values()}
    ends = {stream: opened[path] for stream, path in following.items() if path in opened}
    pooled = opened[POOLED]["pooled_conditioning"] if POOLED in opened else None
    pairs = _common([_complete(group) for group in (*groups.values(), *ends.values())], pooled)
    if not pairs:
        what = f"no sample of {block} is complete in {', '.join(names)}"
        raise MissingError(problem(what, where=where, remedy="run taqstore cache --resume"))
    image, step = (np.array(labels, np.int64) for labels in zip(*pairs, strict=True))
    inputs = {
        name: _as_cached(_tensor(group, index, image, step), name in alone)
        for name, group in groups.items()
    }
    within, far = {n: group for n, group in groups.items() if n in STREAMS}, opened.remote
    outputs = {
        name: _as_cached(_output(group, index, image, step, far), name in ends)
        for name, group in (within | ends).items()
    }
    targets = {name: tensor for name, tensor in outputs.items() if tensor is not None}
    if None in inputs.values() or not targets:
        kept = ", ".join(str(b) for b in next(iter(groups.values()))["boundary"].values)
        what, found = f"input or output of {block} was not kept", f"boundaries {kept}"
        raise MissingError(problem(what, where=where, found=found))
    present = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    clock = _clock(groups, set(step.tolist()))
    return BlockSamples(block, image, step, present, targets, clock, pooled)


def _clock(groups: Mapping[str, xr.Dataset], steps: set[int]) -> dict[str, dict[int, Any]]:
    """Sigma and timestep of every step, where a stream knows them.

    Raises
    ------
    TaqError
        Streams have different ones.
    """
    found: dict[str, dict[int, Any]] = {}
    for stream, group in groups.items():
        for name in ("sigma", "timestep"):
            if name not in group.coords:
                continue
            known = found.setdefault(name, {})
            for label, value in zip(group["step"].values, group[name].values, strict=True):
                if int(label) not in steps:
                    continue
                other = known.get(int(label), value)
                if np.isfinite(value) and np.isfinite(other) and value != other:
                    what = f"{name} of step {label} is not the same in all streams"
                    found_there = f"{value} in {stream}, elsewhere {other}"
                    raise TaqError(problem(what, found=found_there))
                known[int(label)] = value if np.isfinite(value) else other
    return found


def _group(store: Store, stream: str) -> xr.Dataset:
    path = f"{BLOCKS}/{stream}"
    if path not in store:
        there = ", ".join(p for p in store if p.startswith(f"{BLOCKS}/") and p != POOLED)
        what, where = f"no residual stream {path}", str(store.location)
        remedy = "taqstore cache keeps them"
        raise MissingError(problem(what, where=where, found=there or "none", remedy=remedy))
    return store[path]


def _complete(group: xr.Dataset) -> set[tuple[int, int]]:
    """(image, step) labels of a stream's complete samples."""
    every = list(product(group["image"].values.tolist(), group["step"].values.tolist()))
    if WRITTEN not in group:
        return set(every)
    flags = group[WRITTEN].transpose("image", "step").values.ravel()
    return {pair for pair, flag in zip(every, flags, strict=True) if flag}


def _common(
    streams: Sequence[set[tuple[int, int]]], pooled: xr.DataArray | None
) -> list[tuple[int, int]]:
    pairs = reduce(set.intersection, streams)
    if pooled is not None:
        known = set(pooled["image"].values.tolist())
        pairs = {pair for pair in pairs if pair[0] in known}
    return sorted(pairs)


def _tensor(group: xr.Dataset, label: int, image: Array, step: Array) -> StreamTensor | None:
    """The stream at the boundary with that label; None where it was not kept."""
    boundaries = group["boundary"].values.tolist()
    if label not in boundaries:
        return None
    at = {
        dim: group.get_index(dim).get_indexer(pd.Index(v))
        for dim, v in (("image", image), ("step", step))
    }
    return StreamTensor(group, at["image"], at["step"], boundaries.index(label))


def _as_cached(tensor: StreamTensor | None, alone: bool) -> StreamTensor | None:
    """The tensor in float16, where its boundary is kept alone and as the model computed it."""
    return replace(tensor, half=True) if alone and tensor is not None else tensor


def _output(
    group: xr.Dataset, block: int, image: Array, step: Array, far: bool
) -> StreamTensor | None:
    """What the block put out: the next boundary, or its own output where that differs."""
    tensor = _tensor(group, block + 1, image, step)
    if tensor is None or "output_kept" not in group:
        return tensor
    kept = group["output_kept"].isel(boundary=tensor.boundary - 1)
    if far:  # a request a sample, of which most are never asked for
        return replace(tensor, own=OwnOutputs(kept, tensor.image, tensor.step))
    return replace(tensor, own=kept.values.astype(bool)[tensor.image, tensor.step])
