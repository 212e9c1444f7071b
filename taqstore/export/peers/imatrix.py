"""llama.cpp's importance matrix: sums of squares of every linear's input channels."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import require
from taqstore.asked import word_of
from taqstore.errors import MissingError, TaqError, problem
from taqstore.export.peers.static import by_linear, sites_of
from taqstore.export.peers.tensor_names import NAMES
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize
from taqstore.query.sites import Groups

_NAME = "imatrix"
_NOTES = {
    "taqstore": "tensors have taqstore's names: a quantizer takes those of its model, as of"
    " --names stable-diffusion.cpp",
    "stable-diffusion.cpp": "names are those of SD3 checkpoints: sd -M convert --imat-in reads"
    " FILE.dat",
}
_OLD = ".dat"


@dataclass(frozen=True)
class _Entry:
    """Sums of squares (channel,), positions; chunks, and the most positions of one."""

    squares: np.ndarray
    positions: float
    chunks: int
    size: int


def imatrix(
    store: Groups,
    out: Path,
    *,
    source: str | None = None,
    names: str = "taqstore",
    force: bool = False,
) -> Summary:
    """Write `<tensor>.in_sum2` (1, channel) and `<tensor>.counts` (1, 1), float32, as GGUF.

    The layout of llama.cpp's `tools/imatrix`: ``in_sum2 = sum of x^2`` over all positions of all
    steps and batches, here ``m2 + count * mean^2``; ``counts`` the positions. A chunk is one batch
    at one step. FILE.dat is written as older versions of llama.cpp do, which is what
    stable-diffusion.cpp reads: of each tensor its name, chunks, and ``in_sum2 / counts * chunks``.

    Parameters
    ----------
    store
        Group path -> Dataset.
    source
        Group prefix; by default observations, else `pooled/postgelu`.
    names
        `taqstore`: full names of linears. `stable-diffusion.cpp`: weights of an SD3 checkpoint
        (`model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight`), q, k and v as one.

    Raises
    ------
    MissingError
        There are no moments, the model has no such tensor, or the `gguf` package is not installed.
    TaqError
        A sum is beyond float32, or linears that are one tensor saw other inputs.
    """
    word_of(names, NAMES, "kind of names")
    gguf = None if out.suffix == _OLD else _package()
    sites = sites_of(store, source, "moments")
    entries = dict(sorted(_entries(sites, NAMES[names]).items()))
    digests = {str(data.attrs.get("store_digest", "")) for data in sites.values()}
    dataset = " ".join(["taqstore", *sorted(digests)]).strip()
    with whole_file(out, force=force) as fresh:
        if gguf is None:
            fresh.write_bytes(b"".join(_old_layout(entries, dataset)))
        else:
            _write_gguf(gguf, fresh, entries, dataset)
    told = "" if gguf is None and names != "taqstore" else _NOTES[names]
    return summarize(out, told)


def _entries(sites: Mapping[str, xr.Dataset], named: Callable[[str], str]) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for site, dataset in sites.items():
        count = dataset["count"]
        chunks, size = count.size // count.sizes["layer"], int(count.max())
        for linear, (squares, positions) in by_linear(site, dataset, sums_of_squares(dataset)):
            _check_finite(linear, squares)
            entry, name = _Entry(squares, float(positions), chunks, size), named(linear)
            other = found.setdefault(name, entry)
            if other.positions != entry.positions or (other.squares != squares).any():
                what = f"{linear} saw other inputs than the rest of {name}"
                raise TaqError(problem(what, remedy="use taqstore's names"))
    return found


def _write_gguf(gguf: ModuleType, fresh: Path, entries: Mapping[str, _Entry], dataset: str) -> None:
    writer: Any = gguf.GGUFWriter(fresh, _NAME)
    writer.add_type(_NAME)
    writer.add_array("imatrix.datasets", [dataset])
    writer.add_uint32("imatrix.chunk_count", max(entry.chunks for entry in entries.values()))
    writer.add_uint32("imatrix.chunk_size", max(entry.size for entry in entries.values()))
    for name, entry in entries.items():
        squares = entry.squares.astype(np.float32).reshape(1, -1)
        writer.add_tensor(f"{name}.in_sum2", squares)
        writer.add_tensor(f"{name}.counts", np.full((1, 1), entry.positions, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _old_layout(entries: Mapping[str, _Entry], dataset: str) -> Iterator[bytes]:
    """Entries, then the chunks and the dataset; integers are int32, little endian."""
    yield struct.pack("<i", len(entries))
    for name, entry in entries.items():
        text = name.encode()
        values = (entry.squares / max(entry.positions, 1.0) * entry.chunks).astype("<f4")
        yield struct.pack(f"<i{len(text)}sii", len(text), text, entry.chunks, values.size)
        yield values.tobytes()
    chunks, text = max(entry.chunks for entry in entries.values()), dataset.encode()
    yield struct.pack(f"<ii{len(text)}s", chunks, len(text), text)


def _check_finite(linear: str, squares: np.ndarray) -> None:
    """Refuse sums of squares beyond float32: of float16 activations too they can be."""
    if not (squares <= np.finfo(np.float32).max).all():
        what = f"the sum of squares of {linear} is beyond float32"
        raise TaqError(problem(what, where=_NAME, found="infinity"))


def _package() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        remedy = "pip install gguf, or write FILE.dat, which needs none"
        raise MissingError(problem("imatrix needs the gguf package", remedy=remedy)) from error
    package: ModuleType = gguf
    return package


def sums_of_squares(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Sums of squares (layer, channel) and positions (layer,), float64."""
    names = require(dataset, ("mean", "m2", "count"), ("mean", "std", "count"), analysis=_NAME)
    mean, spread, count = (dataset[name].astype(np.float64) for name in names)
    deviations = spread if "m2" in names else count * spread**2
    dims = [dim for dim in ("batch", "step") if dim in count.dims]
    # A layer that was never seen at a step has no position there, and no mean.
    seen = (deviations + count * mean**2).where(count > 0, 0.0)
    squares = seen.sum(dims, skipna=False)
    return squares, count.sum(dims, skipna=False)
