"""The same arrays in h5py and tensorstore, opened once; absent where a package is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .inputs import Inputs

EXTREMA = ("avg_min", "avg_max")
SITES = "pooled/timestep_stats/"
BLOCKS = "blocks/img"


def installed(package: str) -> bool:
    """Whether a peer can be measured here."""
    return find_spec(package) is not None


def h5_statistics(inputs: Inputs) -> Path:
    """Extrema of every site, (step, layer, channel), a layer per chunk as in the store."""
    return inputs.once("peers/statistics.h5", lambda path: _copy_statistics(inputs, path))


def _copy_statistics(inputs: Inputs, path: Path) -> None:
    import h5py

    from taqstore import open_store

    store = open_store(inputs.store("statistics"), chunks=None)
    with h5py.File(path, "w") as file:
        for site in (group for group in store if group.startswith(SITES)):
            for name in EXTREMA:
                values = store[site][name].values
                steps, _, channels = values.shape
                group = file.require_group(site)
                group.create_dataset(name, data=values, chunks=(steps, 1, channels))


def h5_blocks(inputs: Inputs) -> Path:
    """The image stream, (image, step, boundary, row, token, channel), a tensor per chunk."""
    return inputs.once("peers/blocks.h5", lambda path: _copy_blocks(inputs, path))


def _copy_blocks(inputs: Inputs, path: Path) -> None:
    import h5py

    from taqstore import open_store

    x = open_store(inputs.store("blocks"), chunks=None)[BLOCKS].x
    with h5py.File(path, "w") as file:
        chunks = (1, 1, 1, *x.shape[3:])
        data = file.create_dataset("x", shape=x.shape, dtype=x.dtype, chunks=chunks)
        for image in range(x.sizes["image"]):
            for step in range(x.sizes["step"]):
                data[image, step] = x[image, step].values


def open_h5(path: Path, names: Sequence[str]) -> list[Any]:
    """Datasets of an HDF5 file that stays open."""
    import h5py

    file = h5py.File(path, "r")
    return [file[name] for name in names]


def open_tensorstore(store: Path, names: Sequence[str]) -> list[Any]:
    """Arrays of the very Zarr store that taqstore reads, through tensorstore."""
    import tensorstore

    specs = [
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store / name}/"}}
        for name in names
    ]
    return [tensorstore.open(spec, read=True, open=True).result() for spec in specs]
