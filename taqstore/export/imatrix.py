"""llama.cpp's importance matrix: sums of squares of every linear's input channels, as GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import require
from taqstore.errors import MissingError, TaqError, problem
from taqstore.export.peers import by_linear, sites_of
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize
from taqstore.query.sites import Groups

_NAME = "imatrix"


def imatrix(store: Groups, out: Path, *, source: str | None = None, force: bool = False) -> Summary:
    """Write `<linear>.in_sum2` (1, channel) and `<linear>.counts` (1, 1), float32.

    The layout of llama.cpp's `tools/imatrix`: ``in_sum2 = sum of x^2`` over all positions of all
    steps and batches, here ``m2 + count * mean^2``; ``counts`` the positions. A chunk is one batch
    at one step. Linears have their full names; rename them to the tensors of your model.

    Parameters
    ----------
    store
        Group path -> Dataset.
    source
        Group prefix; by default observations, else `pooled/postgelu`.

    Raises
    ------
    MissingError
        There are no moments, or the `gguf` package is not installed.
    """
    gguf = _package()
    entries: dict[str, tuple[np.ndarray, ...]] = {}
    chunks = rows = 0
    sites = sites_of(store, source, "moments")
    for site, dataset in sites.items():
        found = dict(by_linear(site, dataset, _sums(dataset)))
        _check_finite(found)
        entries |= found
        count = dataset["count"]
        chunks, rows = max(chunks, count.size // count.sizes["layer"]), max(rows, int(count.max()))
    digest = next(iter(sites.values())).attrs.get("store_digest", "")
    with whole_file(out, force=force) as fresh:
        writer: Any = gguf.GGUFWriter(fresh, _NAME)
        writer.add_type(_NAME)
        writer.add_array("imatrix.datasets", [f"taqstore {digest}".strip()])
        writer.add_uint32("imatrix.chunk_count", chunks)
        writer.add_uint32("imatrix.chunk_size", rows)
        for name, (squares, positions) in sorted(entries.items()):
            writer.add_tensor(f"{name}.in_sum2", squares.astype(np.float32).reshape(1, -1))
            writer.add_tensor(f"{name}.counts", positions.astype(np.float32).reshape(1, 1))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return summarize(out)


def _check_finite(found: Mapping[str, tuple[np.ndarray, ...]]) -> None:
    """Refuse sums of squares beyond float32: of float16 activations too they can be."""
    most = np.finfo(np.float32).max
    beyond = [name for name, (squares, _) in found.items() if not (squares <= most).all()]
    if beyond:
        what = f"the sum of squares of {beyond[0]} is beyond float32"
        raise TaqError(problem(what, where=_NAME, found="infinity"))


def _package() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        remedy = "pip install gguf"
        raise MissingError(problem("imatrix needs the gguf package", remedy=remedy)) from error
    package: ModuleType = gguf
    return package


def _sums(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Sums of squares (layer, channel) and positions (layer,), float64."""
    names = require(dataset, ("mean", "m2", "count"), ("mean", "std", "count"), analysis=_NAME)
    mean, spread, count = (dataset[name].astype(np.float64) for name in names)
    deviations = spread if "m2" in names else count * spread**2
    dims = [dim for dim in ("batch", "step") if dim in count.dims]
    # A layer that was never seen at a step has no position there, and no mean.
    seen = (deviations + count * mean**2).where(count > 0, 0.0)
    squares = seen.sum(dims, skipna=False)
    return squares, count.sum(dims, skipna=False)
