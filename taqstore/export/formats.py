"""What `taqstore export` offers: one row per format, loaded when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taqstore.errors import MissingError, problem

if TYPE_CHECKING:
    import xarray as xr

    from taqstore.files.written import Summary


@dataclass(frozen=True)
class Format:
    """One output format.

    Parameters
    ----------
    doc
        What it is, one line.
    function
        ``module:function`` taking the groups; it returns a document, or writes a file or folder.
    schema
        JSON Schema of the document; empty where the function writes by itself.
    options
        Keyword options it understands, besides the groups; `INCOMPLETE` is dealt with before it is
        called.
    """

    doc: str
    function: str
    schema: str = ""
    options: tuple[str, ...] = ()


MULTITIER = "-multitier"
"""End of the names of formats that `--multitier` stands for."""

INCOMPLETE = "allow_incomplete"
"""Option of formats made of statistics: leave layers out that lack a finite value at a step."""

_HERE = "taqstore.export"
FORMATS: dict[str, Format] = {
    "quant-config": Format(
        "per-timestep config v4: 8 bits, clip bounds, shifts",
        f"{_HERE}.documents.quant_config:quant_config",
        "quant-config-v4",
        ("clip", "outliers", "source", INCOMPLETE),
    ),
    "quant-config-multitier": Format(
        "per-timestep config v3: 4, 6 or 8 bits by thresholds",
        f"{_HERE}.documents.quant_config_multitier:quant_config_multitier",
        "quant-config-v3",
        ("clip", "source", INCOMPLETE),
    ),
    "temporal-analysis": Format(
        "layer_temporal_analysis.json of the v4 analyser",
        f"{_HERE}.documents.temporal_analysis:temporal_analysis",
        "temporal-analysis-v4",
        ("clip", "source", INCOMPLETE),
    ),
    "temporal-analysis-multitier": Format(
        "layer_temporal_analysis.json of the multi-tier analyser",
        f"{_HERE}.documents.temporal_analysis:temporal_analysis_multitier",
        "temporal-analysis-multitier",
        ("clip", "source", INCOMPLETE),
    ),
    "poly-schedule": Format(
        "polynomials of sigma for every clip bound",
        f"{_HERE}.documents.clip_schedules:poly_schedule",
        "poly-schedule",
        ("source", INCOMPLETE),
    ),
    "lut-schedule": Format(
        "clip bounds at every step's sigma",
        f"{_HERE}.documents.clip_schedules:lut_schedule",
        "lut-schedule",
        ("source", INCOMPLETE),
    ),
    "timestep-stats": Format(
        "activation statistics folder, as collected",
        f"{_HERE}.timestep_stats:timestep_stats",
        options=("source", INCOMPLETE),
    ),
    "calibration-samples": Format(
        "latents folder with manifest", f"{_HERE}.calibration_samples:calibration_samples"
    ),
    "adaround-cache": Format(
        "block inputs and outputs, one file per sample", f"{_HERE}.adaround_cache:adaround_cache"
    ),
    "postgelu-npz": Format(
        "activation_stats_postgelu.npz of Phase 2",
        f"{_HERE}.postgelu_npz:postgelu_npz",
        options=(INCOMPLETE,),
    ),
    "onnx-calibration": Format(
        "ONNX Runtime's calibration ranges (TensorsData)",
        f"{_HERE}.onnx_calibration:onnx_calibration",
        "onnx-calibration",
        ("clip", "source", INCOMPLETE),
    ),
    "act-scales": Format(
        "SmoothQuant's act_scales, .npz or .safetensors",
        f"{_HERE}.act_scales:act_scales",
        options=("source", INCOMPLETE),
    ),
    "imatrix": Format(
        "importance matrix of llama.cpp (.gguf) and stable-diffusion.cpp (.dat)",
        f"{_HERE}.imatrix:imatrix",
        options=("source", "names", INCOMPLETE),
    ),
    "adaround": Format(
        "quantized weights as the source's optimiser leaves them",
        f"{_HERE}.adaround:adaround",
        options=("no_shift",),
    ),
    "safetensors": Format(
        "quantized weights: integers, steps, input quantizers", f"{_HERE}.weights:safetensors"
    ),
    "safetensors-mlx": Format(
        "quantized weights as float16 for DiffusionKit", f"{_HERE}.weights:safetensors_mlx"
    ),
}


def taking(option: str) -> list[str]:
    """Formats that understand an option."""
    return [name for name, row in FORMATS.items() if option in row.options]


def export(
    name: str,
    groups: Mapping[str, xr.Dataset],
    out: Path | str,
    *,
    force: bool = False,
    **options: Any,
) -> Summary:
    """Write one format from a store (or any mapping of group paths to Datasets).

    Parameters
    ----------
    name
        Key of `FORMATS`.
    out
        File or folder to make; it appears whole or not at all.
    force
        Replace what is there.
    options
        Those in the format's row: `clip` (one of `CLIPS`), `outliers`, `source`,
        `allow_incomplete`.

    Raises
    ------
    MissingError
        Unknown format, an option it does not have, or statistics the store does not hold.
    TaqError
        The target exists or cannot be written, the document does not fit its schema, or a layer
        lacks a finite value at a step and `allow_incomplete` is not given.
    """
    if name not in FORMATS:
        raise MissingError(problem(f"no export format {name!r}", found=", ".join(FORMATS)))
    row = FORMATS[name]
    unknown = [option for option in options if option not in row.options]
    if unknown:
        known = ", ".join(row.options) or "none"
        raise MissingError(problem(f"{name} has no option {unknown[0]!r}", found=known))
    from taqstore.export.complete import Complete

    given = Complete(groups, allow_incomplete=bool(options.pop(INCOMPLETE, False)))
    summary = _written(row, given, Path(out), force, options)
    return replace(summary, notes=(*summary.notes, *given.notes))


def _written(
    row: Format,
    groups: Mapping[str, xr.Dataset],
    out: Path,
    force: bool,
    options: Mapping[str, Any],
) -> Summary:
    module, function = row.function.split(":")
    make = getattr(import_module(module), function)
    if not row.schema:
        summary: Summary = make(groups, out, force=force, **options)
        return summary
    from taqstore.files.documents import write_document

    return write_document(out, row.schema, make(groups, **options), force=force)
