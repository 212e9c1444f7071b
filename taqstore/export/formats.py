"""What `taqstore export` offers: one row per format, loaded when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option, bundled, settle
from taqstore.asked import word_of
from taqstore.errors import MisuseError, printable, problem
from taqstore.export import options
from taqstore.export.packed.layouts import CHECKPOINT, MLX
from taqstore.files.remote import output_path
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store.given import handed, put_behind_dask

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
    suffixes
        What the name of the file may end with, if it ends with anything; a document's is `.json`.
    options
        Those it takes, besides the groups; `batch` and `allow_incomplete` are dealt with before it
        is called. `options.BUNDLES` says which are handed on together.
    layout
        Of the tensors of a model that it needs as `base`, an `export.base.Base`; empty: it needs
        none.
    blocks_only
        It knows linears of blocks alone: statistics of the other sites are not handed to it.
    late
        What it calls puts groups of a local store behind dask, in smaller blocks than those of
        whole files.
    """

    doc: str
    function: str
    schema: str = ""
    options: tuple[Option, ...] = ()
    suffixes: tuple[str, ...] = ()
    layout: str = ""
    blocks_only: bool = False
    late: bool = False

    def check_name(self, out: Path) -> None:
        """Refuse the name of a file that says it is of another kind.

        Raises
        ------
        MisuseError
            It does.
        """
        known = self.suffixes or (".json",) * bool(self.schema)
        if known and out.suffix and out.suffix not in known:
            what, remedy = f"not written as {out.suffix}", f"write FILE{' or FILE'.join(known)}"
            raise MisuseError(problem(what, where=printable(out.name), remedy=remedy))


MULTITIER = "-multitier"
"""End of the names of formats that `--multitier` stands for."""

_HERE = "taqstore.export"
FORMATS: dict[str, Format] = {
    "quant-config": Format(
        "per-timestep config v4: bits, clip bounds, shifts",
        f"{_HERE}.documents.quant_config:quant_config",
        "quant-config-v4",
        options.QUANT_CONFIG,
        blocks_only=True,
        late=True,
    ),
    "quant-config-multitier": Format(
        "per-timestep config v3: 4, 6 or 8 bits by thresholds",
        f"{_HERE}.documents.quant_config_multitier:quant_config_multitier",
        "quant-config-v3",
        options.MULTITIER,
        blocks_only=True,
    ),
    "temporal-analysis": Format(
        "layer_temporal_analysis.json of the v4 analyser",
        f"{_HERE}.documents.temporal_analysis:temporal_analysis",
        "temporal-analysis-v4",
        options.TEMPORAL_ANALYSIS,
        blocks_only=True,
    ),
    "temporal-analysis-multitier": Format(
        "layer_temporal_analysis.json of the multi-tier analyser",
        f"{_HERE}.documents.temporal_analysis:temporal_analysis_multitier",
        "temporal-analysis-multitier",
        options.TEMPORAL_ANALYSIS_MULTITIER,
        blocks_only=True,
    ),
    "poly-schedule": Format(
        "polynomials of sigma for every clip bound",
        f"{_HERE}.documents.clip_schedules:poly_schedule",
        "poly-schedule",
        options.POLY_SCHEDULE,
        blocks_only=True,
    ),
    "lut-schedule": Format(
        "clip bounds at every step's sigma",
        f"{_HERE}.documents.clip_schedules:lut_schedule",
        "lut-schedule",
        options.LUT_SCHEDULE,
        blocks_only=True,
    ),
    "timestep-stats": Format(
        "activation statistics folder, as collected",
        f"{_HERE}.timestep_stats:timestep_stats",
        options=options.STATISTICS,
        blocks_only=True,
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
        options=(options.SOURCE, options.INCOMPLETE),
        suffixes=(".npz",),
        blocks_only=True,
    ),
    "dit-cali-data": Format(
        "DiT_cali_data.npz of Phase 1",
        f"{_HERE}.dit_cali_data:dit_cali_data",
        suffixes=(".npz",),
    ),
    "onnx-calibration": Format(
        "ONNX Runtime's calibration ranges (TensorsData)",
        f"{_HERE}.peers.onnx_calibration:onnx_calibration",
        "onnx-calibration",
        options.ONNX_CALIBRATION,
    ),
    "act-scales": Format(
        "SmoothQuant's act_scales, .npz or .safetensors",
        f"{_HERE}.peers.act_scales:act_scales",
        options=options.ACT_SCALES,
        suffixes=(".npz", ".safetensors"),
    ),
    "imatrix": Format(
        "importance matrix of llama.cpp (.gguf) and stable-diffusion.cpp (.dat)",
        f"{_HERE}.peers.imatrix:imatrix",
        options=options.IMATRIX,
        suffixes=(".gguf", ".dat"),
    ),
    "comfy-stats": Format(
        "comfy-quants' int4_activation_stats and int4_gptq_hessian_stats, a folder",
        f"{_HERE}.peers.comfy_stats:comfy_stats",
    ),
    "adaround": Format(
        "quantized weights as the source's optimiser leaves them",
        f"{_HERE}.adaround:adaround",
        options=(options.NO_SHIFT, options.WEIGHT_SET),
    ),
    "safetensors": Format(
        "quantized weights: integers, steps, input quantizers",
        f"{_HERE}.weights:safetensors",
        options=(options.WEIGHT_SET,),
        suffixes=(".safetensors",),
    ),
    "safetensors-mlx": Format(
        "quantized weights as float16 for DiffusionKit",
        f"{_HERE}.weights:safetensors_mlx",
        options=(options.WEIGHT_SET,),
        suffixes=(".safetensors",),
    ),
    "mlx": Format(
        "a whole model with packed weights for MLX, a folder",
        f"{_HERE}.packed.mlx:mlx",
        options=(options.WEIGHT_SET, options.BASE, options.SCALES),
        layout=MLX,
    ),
    "comfy-w4a8": Format(
        "a checkpoint with weights of four bits for ComfyUI (asym_w4a8_int8)",
        f"{_HERE}.packed.comfy:comfy_w4a8",
        options=(options.BASE, options.PACKED_SITES, options.CODES, options.DAMPING_SHARE),
        suffixes=(".safetensors",),
        layout=CHECKPOINT,
    ),
}


def taking(option: str) -> list[str]:
    """Formats that understand an option."""
    return [n for n, row in FORMATS.items() if option in {taken.name for taken in row.options}]


@takes_storage_options
@handed
def export(
    name: str,
    groups: Mapping[str, xr.Dataset],
    out: Path | str,
    *,
    force: bool = False,
    storage_options: StorageOptions | None = None,
    **given: Any,
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
    given
        Options in the format's row. Those of clip ranges are as in `analysis.scales` and give the
        same numbers.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        Unknown format, an option it does not have, one that does not go with the others, a model
        that it completes and was not given, or a file's name that is of another kind.
    MissingError
        Statistics the store does not hold.
    TaqError
        The target exists or cannot be written, the document does not fit its schema, or a layer
        lacks a finite value at a step and `allow_incomplete` is not given.
    """
    row = FORMATS[word_of(name, FORMATS, "export format")]
    values = settle(row.options, given, who=name)
    target = output_path(out)
    row.check_name(target)
    if getattr(groups, "remote", False) or not row.late:
        groups = put_behind_dask(groups)  # a file of several blocks is fetched once
    _check_base(name, row, values.get(options.BASE.name))
    from taqstore.export.batches import Batches
    from taqstore.export.complete import Complete

    notes = _unwritten(groups, values.get("weights")) if row.layout == MLX else ()
    if batch := values.pop(options.BATCH.name, None):
        groups = Batches(groups, batch)
    allowed = bool(values.pop(options.INCOMPLETE.name, False))
    whole = Complete(groups, allow_incomplete=allowed, blocks_only=row.blocks_only)
    made = bundled(row.options, options.BUNDLES, values)
    summary = _written(row, whole, target, force, made)
    return replace(summary, notes=(*summary.notes, *notes, *whole.notes))


def _unwritten(groups: Mapping[str, xr.Dataset], weights: str | None) -> tuple[str, ...]:
    """A note where a set of a whole model is not whole: its readers see what is written alone."""
    from taqstore.kinds.weight_sets import chosen_set, unwritten

    name = chosen_set(groups, weights)
    missing = unwritten(groups, name)
    return (f"{missing} layers of {name} hold no weights, and are as in the base",) * bool(missing)


def _check_base(name: str, row: Format, base: object) -> None:
    """Refuse what is no model where the format completes one: the command line reads it itself."""
    if not row.layout:
        return
    from taqstore.export.packed.base import Base

    if not isinstance(base, Base):
        what, remedy = f"{name} completes a model", f"give base, a {Base.__module__}.Base"
        raise MisuseError(problem(what, found=printable(str(base)), remedy=remedy))


def _written(
    row: Format,
    groups: Mapping[str, xr.Dataset],
    out: Path,
    force: bool,
    given: Mapping[str, Any],
) -> Summary:
    module, function = row.function.split(":")
    make = getattr(import_module(module), function)
    if not row.schema:
        summary: Summary = make(groups, out, force=force, **given)
        return summary
    from taqstore.files.documents import write_document

    return write_document(out, row.schema, make(groups, **given), force=force)
