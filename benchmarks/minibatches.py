"""Random minibatches of block data, as block reconstruction reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import peers
from .inputs import BLOCKS, Inputs
from .measure import Contender, Run
from .question import Question
from .rows import Target

BATCH = 8
RAW, NPZ, MEMMAP = "np.load of raw .npy", "np.load of compressed npz", "np.memmap copy"


@dataclass(frozen=True)
class Samples:
    """Which samples there are, and which a call asks for; the same for every contender."""

    inputs: Inputs

    @cached_property
    def names(self) -> list[tuple[int, int]]:
        """(image id, step) of every npz file, in order."""
        files = self.inputs.source_files("blocks")
        return [(int(f.stem[:4]), int(f.stem[5:])) for f in files]

    def pick(self, call: int) -> tuple[list[int], int]:
        """Positions of a minibatch's samples, and the boundary before a block."""
        rng = np.random.default_rng([20260411, call])
        size = min(BATCH, len(self.names))
        chosen = rng.choice(len(self.names), size, replace=False)
        return chosen.tolist(), int(rng.integers(BLOCKS))

    @cached_property
    def tensor_shape(self) -> tuple[int, ...]:
        """(row, token, channel)."""
        with np.load(self.inputs.source_files("blocks")[0]) as file:
            return tuple(n for i, n in enumerate(file["mm0__arg0"].shape) if i != 2)

    def empty(self, call: int) -> NDArray[np.float16]:
        """A new minibatch to fill."""
        return np.empty((len(self.pick(call)[0]), *self.tensor_shape), np.float16)


def contenders(inputs: Inputs) -> list[Contender]:
    """One array (sample, row, token, channel) of one boundary, new in memory, float16."""
    samples = Samples(inputs)
    found = [
        Contender("isel, chunks=None", lambda: _ours(samples, chunks=None), ours=True),
        Contender("isel, default", lambda: _ours(samples, chunks="late"), ours=True),
        Contender(RAW, lambda: _raw(samples)),
        Contender(NPZ, lambda: _npz(samples)),
        Contender(MEMMAP, lambda: _memmap(samples)),
    ]
    if peers.installed("h5py"):
        found.append(Contender("h5py", lambda: _h5(samples)))
    if peers.installed("tensorstore"):
        found.append(Contender("tensorstore", lambda: _tensorstore(samples)))
    return found


def _ours(samples: Samples, *, chunks: Any) -> Run:
    import xarray as xr

    from taqstore import open_store

    group = open_store(samples.inputs.store("blocks"), chunks=chunks)[peers.BLOCKS]
    positions = _positions(samples)

    def run(call: int) -> NDArray[Any]:
        chosen, boundary = samples.pick(call)
        images, steps = zip(*(positions[index] for index in chosen), strict=True)
        image = xr.DataArray(list(images), dims="sample")
        step = xr.DataArray(list(steps), dims="sample")
        return np.asarray(group.x.isel(image=image, step=step, boundary=boundary).values)

    return run


def _raw(samples: Samples) -> Run:
    folder = raw_files(samples)

    def run(call: int) -> NDArray[Any]:
        out = samples.empty(call)
        chosen, boundary = samples.pick(call)
        for row, index in enumerate(chosen):
            out[row] = np.load(folder / raw_name(samples.names[index], boundary))
        return out

    return run


def _npz(samples: Samples) -> Run:
    files = samples.inputs.source_files("blocks")

    def run(call: int) -> NDArray[Any]:
        out = samples.empty(call)
        chosen, boundary = samples.pick(call)
        for row, index in enumerate(chosen):
            with np.load(files[index]) as file:
                out[row] = file[f"mm{boundary}__arg0"][:, :, 0]
        return out

    return run


def _memmap(samples: Samples) -> Run:
    mapped = np.load(_one_array(samples), mmap_mode="r")

    def run(call: int) -> NDArray[Any]:
        chosen, boundary = samples.pick(call)
        out = samples.empty(call)
        for row, index in enumerate(chosen):
            out[row] = mapped[index, boundary]
        return out

    return run


def _h5(samples: Samples) -> Run:
    (data,) = peers.open_h5(peers.h5_blocks(samples.inputs), ["x"])
    positions = _positions(samples)

    def run(call: int) -> NDArray[Any]:
        out = samples.empty(call)
        chosen, boundary = samples.pick(call)
        for row, index in enumerate(chosen):
            data.read_direct(out, (*positions[index], boundary), row)
        return out

    return run


def _tensorstore(samples: Samples) -> Run:
    name = f"{peers.BLOCKS}/x"
    (data,) = peers.open_tensorstore(samples.inputs.store("blocks"), [name])
    positions = _positions(samples)

    def run(call: int) -> NDArray[Any]:
        chosen, boundary = samples.pick(call)
        reads = [data[(*positions[index], boundary)].read() for index in chosen]
        return np.stack([read.result() for read in reads])

    return run


def _positions(samples: Samples) -> list[tuple[int, int]]:
    """Where each sample lies along image and step."""
    images, steps = (sorted(set(labels)) for labels in zip(*samples.names, strict=True))
    return [(images.index(image), steps.index(step)) for image, step in samples.names]


def raw_files(samples: Samples) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        for name, tensors in _inputs_of_blocks(samples):
            for boundary, values in enumerate(tensors):
                np.save(folder / raw_name(name, boundary), values)

    return samples.inputs.once("peers/blocks-npy", make)


def raw_name(sample: tuple[int, int], boundary: int) -> str:
    image, step = sample
    return f"{image:04d}_{step:03d}_{boundary}.npy"


def _one_array(samples: Samples) -> Path:
    def make(path: Path) -> None:
        shape = (len(samples.names), BLOCKS, *samples.tensor_shape)
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        for row, (_, tensors) in enumerate(_inputs_of_blocks(samples)):
            for boundary, values in enumerate(tensors):
                out[row, boundary] = values
        out.flush()

    return samples.inputs.once("peers/blocks.npy", make)


def _inputs_of_blocks(
    samples: Samples,
) -> Iterator[tuple[tuple[int, int], list[NDArray[np.float16]]]]:
    """((image, step), input of each block) from the npz cache."""
    for name, path in zip(samples.names, samples.inputs.source_files("blocks"), strict=True):
        with np.load(path) as file:
            yield name, [file[f"mm{block}__arg0"][:, :, 0] for block in range(BLOCKS)]


def _files(inputs: Inputs) -> list[Path]:
    samples = Samples(inputs)
    found = [inputs.source("blocks"), inputs.store("blocks")]
    found += [raw_files(samples), _one_array(samples)]
    return [*found, peers.h5_blocks(inputs)] if peers.installed("h5py") else found


MINIBATCHES = {
    "minibatch": Question(
        "random minibatch of 8",
        contenders,
        _files,
        {RAW: Target(1.0), NPZ: Target(5), MEMMAP: Target(1.3, at_least=False)},
        rounds=15,
    )
}
