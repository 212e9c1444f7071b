"""Statistics as comfy-quants reads them: extrema and RMS of inputs, and Hessians for GPTQ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.errors import StoreError, problem
from taqstore.export.peers.imatrix import sums_of_squares
from taqstore.export.peers.static import by_linear, sites_of
from taqstore.files.safetensors import write_safetensors
from taqstore.files.staged import whole_folder
from taqstore.files.written import Summary, make_folder, summarize
from taqstore.kinds.second_moments import Moments2, moments_of
from taqstore.names import ACTIVATIONS, checkpoint_tensor, parse_layer
from taqstore.quantization.search import Scheme
from taqstore.query.sites import Groups

STATS, HESSIANS = "int4_activation_stats", "int4_gptq_hessian_stats"
_FOLDER, _TENSOR, _NORMALIZED = "gptq_hessians", "hessian", "two_over_row_count"
_CONTENT = (f"{STATS}.json", f"{HESSIANS}.json", f"{_FOLDER}/*.safetensors")
_ABSMAX = Clip("absmax", None, None, None, "channel")
# A convolution, whose weight is no matrix in a checkpoint.
_NO_LINEAR = ("embed.image",)
Record = dict[str, Any]


def comfy_stats(store: Groups, out: Path, *, force: bool = False) -> Summary:
    """Write `int4_activation_stats.json`, and where there are second moments their Hessians.

    The files of comfy-quants' `calib reduce-int4-activations` and `reduce-int4-gptq-hessians`
    (github.com/Comfy-Org/comfy-quants, `algorithms/int4_svdquant`), linears under the names of an
    SD3 checkpoint, q, k and v as one:

    * `int4_activation_stats.v1`: of each linear `input_amax` and `input_rms` (channel,), over all
      batches and steps; `sample_count`, tensors seen, and `element_count`, positions seen.
    * `int4_gptq_hessian_stats.v1`: a manifest with a record of each linear, and a file of it with
      `hessian` float32 (channel, channel), ``X^T X * 2 / row_count``; 0 between channels of
      different blocks where second moments are of blocks.

    One Hessian is in memory at a time.

    Raises
    ------
    MissingError
        There are no observations, or no such names for the model's linears.
    StoreError
        Statistics are no finite numbers.
    """
    stats = dict(sorted(_stats(store)))
    with whole_folder(out, content=_CONTENT, force=force) as fresh:
        document = {"schema_version": f"{STATS}.v1", "layers": stats}
        _write(make_folder(fresh) / f"{STATS}.json", document)
        layers = {
            name: _write_hessian(name, moments, stats[name], fresh / _FOLDER)
            for name, moments in _moments(store, stats)
        }
        if layers:
            _write(fresh / f"{HESSIANS}.json", _manifest(layers))
    notes = [] if layers else ["no second moments in the store: no Hessians are written"]
    if layers and len(layers) < len(stats):
        notes.append(f"Hessians of {len(layers)} of {len(stats)} linears are in the store")
    return summarize(out, *notes)


def _stats(store: Groups) -> Iterator[tuple[str, Record]]:
    for site, dataset in sites_of(store, ACTIVATIONS, "extrema").items():
        if site in _NO_LINEAR:
            continue
        absmax = clip_range(dataset, _ABSMAX, Scheme(8, symmetric=True), static=True,
                            analysis="comfy-stats").upper  # fmt: skip
        squares, count = sums_of_squares(dataset)
        samples = dataset.sizes["batch"] * dataset.sizes["step"]
        for linear, (largest, square, positions) in by_linear(
            site, dataset, [absmax, squares, count]
        ):
            if not (np.isfinite(largest).all() and np.isfinite(square).all() and positions > 0):
                what = f"statistics of {linear} are no finite numbers"
                raise StoreError(problem(what, where=site, remedy="see taqstore info"))
            yield (
                named(linear),
                {
                    "input_amax": largest.astype(np.float64).tolist(),
                    "input_rms": np.sqrt(square / positions).tolist(),
                    "sample_count": samples,
                    "element_count": int(positions),
                },
            )


def named(linear: str) -> str:
    """The full name of a linear as comfy-quants has it: of its weight, without the ending."""
    return checkpoint_tensor(parse_layer(linear)).removesuffix(".weight")


def _moments(store: Groups, stats: dict[str, Record]) -> Iterator[tuple[str, Moments2]]:
    """Second moments of the linears that have any, one at a time."""
    for name, linear in _linears(store).items():
        at = parse_layer(linear).input
        moments = moments_of(store, at.layer, at.site) if name in stats else None
        if moments is not None and moments.count:
            yield name, moments


def _linears(store: Groups) -> dict[str, str]:
    """Full name of a linear by that of its weight."""
    return {
        named(linear): linear
        for site, dataset in sites_of(store, ACTIVATIONS, "extrema").items()
        if site not in _NO_LINEAR
        for linear, _ in by_linear(site, dataset, [])
    }


def _write_hessian(name: str, moments: Moments2, stats: Record, fresh: Path) -> Record:
    fresh.mkdir(exist_ok=True)
    rows = int(moments.count)
    hessian = (moments.full() * (2 / rows)).astype(np.float32)
    write_safetensors(
        fresh / f"{name}.safetensors",
        {_TENSOR: hessian},
        schema_version=f"{HESSIANS}.v1",
        layer_name=name,
        tensor_name=_TENSOR,
        normalization=_NORMALIZED,
    )
    return {
        "layer_name": name,
        "file_path": f"{_FOLDER}/{name}.safetensors",
        "tensor_name": _TENSOR,
        "channel_count": moments.channels,
        "sample_count": stats["sample_count"],
        "row_count": rows,
        "normalization_count": rows,
        "channel_dim": -1,
        "dtype": "float32",
        "shape": [moments.channels, moments.channels],
    }


def _manifest(layers: dict[str, Record]) -> Record:
    return {
        "schema_version": f"{HESSIANS}.v1",
        "normalization": _NORMALIZED,
        "hessian_tensor_dir": _FOLDER,
        "layer_count": len(layers),
        "sample_ref_count": sum(record["sample_count"] for record in layers.values()),
        "row_count": sum(record["row_count"] for record in layers.values()),
        "layers": layers,
    }


def _write(fresh: Path, document: Record) -> None:
    fresh.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
