"""AdaRound outputs: `config.json` and `weights/{block}.npz`, as the source and taqstore write them.

`quant_paths` of the config name the linears of each block: keys of npz files cannot be inverted.
A block is a unit, flagged whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import SourceError
from taqstore.export.adaround import DOCUMENT, FORMAT, SETTINGS
from taqstore.files.refusal import problem
from taqstore.kinds.quantized_linears import QuantizedLinear
from taqstore.kinds.weight_sets import ADAROUND, reconstruction_path
from taqstore.layout.template import Template
from taqstore.names import WEIGHTS, LayerName
from taqstore.quantization.weight_grid import MAX_WEIGHT_BITS

from .parts.adaround_files import (
    CONFIG,
    FOLDER,
    BlockFile,
    Linear,
    open_block,
    quant_paths,
)
from .parts.adaround_sites import sites_of
from .parts.block_metrics import BlockMetrics, metrics_template, read_metrics
from .parts.json_fields import field, read_document, without
from .parts.place import Place
from .parts.plan import Options, Plan, Problem, Put, Unit

RUN, GROUPED = "run", "adaround_htg_v1"


def find(place: Place) -> Path | None:
    """The folder, by its config; one whose config cannot be read, by the weights beside it."""
    if not place.is_folder:
        return place.path.parent if _known(place.format) else None
    config = place.path / CONFIG
    if not config.is_file():
        return None
    try:
        known = _known(read_document(config).get("format"))
    except SourceError:
        known = any((place.path / FOLDER).glob("*.npz"))
    return place.path if known else None


def _known(name: Any) -> bool:
    return isinstance(name, str) and name.startswith("adaround_") and "cache" not in name


def plan(folder: Path, options: Options) -> Plan:
    """Plan of one output: `weights/<set>/<site>` and `reconstruction`.

    Raises
    ------
    SourceError
        Another format, a malformed config, or no block that can be read.
    """
    config = _config(folder)
    blocks, problems = _blocks(folder, config)
    files: dict[str, BlockFile] = {}
    for block in blocks.values():
        try:
            files[block.name] = open_block(folder, block.name, block.paths, config)
        except SourceError as error:
            problems.append(_refused(blocks, block.name, str(error), options.set))
    if not files:
        raise SourceError(problems[0].text if problems else problem("no blocks", where=str(folder)))
    old = {} if options.folder == WEIGHTS else {"method": ADAROUND, "grid": "symmetric"}
    run = old | _run(config, str(folder / CONFIG))
    every = [name for block in blocks.values() for name in block.paths.values()]
    sites = sites_of(every, files.values())
    for site in sites.values():
        for name, text in site.misfits(folder).items():
            if files.pop(name, None) is not None:
                problems.append(_refused(blocks, name, text, options.set))
    document = without(config, RUN, paths=("poly_schedule",))
    metrics = [block.metrics for block in blocks.values()]
    templates = {
        name: site.template({RUN: run}, set=options.set, folder=options.folder)
        for name, site in sites.items()
    }
    reconstruction = metrics_template(metrics, {RUN: run, DOCUMENT: document}, set=options.set)
    units = [
        _unit(blocks[name], list(blocks).index(name), file, templates, reconstruction)
        for name, file in files.items()
    ]
    return Plan(
        source=WEIGHTS,
        templates=(*templates.values(), reconstruction),
        units=tuple(units),
        problems=tuple(problems),
        inputs=(folder / CONFIG, folder / FOLDER),
        notes=tuple(_notes(folder, config, blocks, files)),
        parameters={"format": FORMAT, "blocks": len(units)},
    )


@dataclass(frozen=True)
class _Block:
    """An entry of `block_metrics`."""

    paths: Mapping[str, LayerName]
    metrics: BlockMetrics

    @property
    def name(self) -> str:
        return self.metrics.block


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    config = read_document(path)
    found = config.get("format")
    if found == GROUPED:
        what = "weights of every group of steps, and a store holds one of each linear"
        remedy = "ingest each of its folders group_N as a weight set of its own: --set"
        raise SourceError(problem(what, where=str(path), found=GROUPED, remedy=remedy))
    if found != FORMAT:
        remedy = f"{FORMAT} is read"
        raise SourceError(
            problem("unknown format", where=str(path), found=repr(found)[:80], remedy=remedy)
        )
    return config


def _blocks(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, _Block], list[Problem]]:
    """Blocks of the config in the order they run; entries that cannot be used are problems."""
    path = folder / CONFIG
    entries = field(config, "block_metrics", list, where=str(path))
    found: dict[str, _Block] = {}
    problems = []
    for number, entry in enumerate(entries):
        where = f"{path}: block_metrics[{number}]"
        try:
            if not isinstance(entry, dict):
                raise SourceError(problem("not an object", where=where))
            paths = quant_paths(entry, where)
            block = _Block(paths, read_metrics(entry, list(paths.values()), where))
            if block.name in found:
                what = f"{block.name} is there twice"
                raise SourceError(problem(what, where=str(path), remedy="keep the true entry"))
            found[block.name] = block
        except SourceError as error:
            problems.append(Problem(str(error)))
    ordered = sorted(found.values(), key=lambda b: next(iter(b.paths.values())).sort_key)
    return {block.name: block for block in ordered}, problems


def _refused(blocks: Mapping[str, _Block], name: str, text: str, set: str) -> Problem:
    return Problem(text, reconstruction_path(set), (list(blocks).index(name),))


def _run(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Attribute `run`: taqstore's own where the config has it, else the source's settings."""
    if RUN in config:
        return field(config, RUN, dict, where=where)
    bits = field(config, "bits_w", int, where=where)
    if not 2 <= bits <= MAX_WEIGHT_BITS:
        raise SourceError(problem("bits_w is no width of weights", where=where, found=str(bits)))
    run = {ours: config[theirs] for ours, theirs in SETTINGS.items() if theirs in config}
    return run | ({"group_size": config["group_size"] or None} if "group_size" in config else {})


def _unit(
    block: _Block,
    place: int,
    file: BlockFile,
    templates: Mapping[str, Template],
    reconstruction: Template,
) -> Unit:
    items: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name in block.paths.values():
        template = templates[name.site]
        path, labels = template.path, template.coords["layer"][1].tolist()
        items[path] = tuple(sorted({*items.get(path, ()), (labels.index(name.layer),)}))
    bits = int(reconstruction.attrs[RUN].get("bits", 0) or 0)
    part = _BlockPart(file, block.metrics, templates, reconstruction, place, bits)
    # The block's own item comes last: flagged, its layers are.
    return Unit(block.name, {**items, reconstruction.path: ((place,),)}, file.file.nbytes, (part,))


@dataclass(frozen=True)
class _BlockPart:
    """Part that copies all linears of a block, and what is known of it."""

    file: BlockFile
    metrics: BlockMetrics
    templates: Mapping[str, Template]
    reconstruction: Template
    place: int
    bits: int

    def __call__(self, put: Put) -> list[Problem]:
        """Write the block; SourceError if anything in it is bad."""
        layers: dict[tuple[str, str], list[Linear]] = {}
        with self.file.file:
            for linear in self.file.linears:
                layers.setdefault((linear.name.site, linear.name.layer), []).append(linear)
            for (site, layer), linears in layers.items():
                template = self.templates[site]
                at = template.coords["layer"][1].tolist().index(layer)
                arrays = _arrays(self.file, linears, template, self.bits)
                for name, values in arrays.items():
                    put(template.path, name, (at, *(0,) * values.ndim), values[None])
        for name, values in self.metrics.arrays(self.reconstruction).items():
            put(self.reconstruction.path, name, (self.place, *(0,) * values.ndim), values[None])
        return []


_VALUES: dict[str, Callable[[QuantizedLinear], np.ndarray | None]] = {
    "weight": lambda linear: linear.weight,
    "step_size": lambda linear: linear.step,
    "rounding": lambda linear: linear.rounding,
    "activation_step": lambda linear: linear.input.step,
    "activation_zero_point": lambda linear: linear.input.zero_point,
}


def _arrays(
    file: BlockFile, linears: list[Linear], template: Template, bits: int
) -> dict[str, np.ndarray]:
    """Arrays of one layer: q, k and v stacked, and what the three share."""
    read = [file.read(linear) for linear in linears]
    names = {array.name: np.dtype(array.dtype) for array in template.arrays}
    found: dict[str, np.ndarray] = {}
    for name, value in _VALUES.items():
        values = [value(linear) for linear in read]
        known = next((v for v in values if v is not None), None)
        if name in names and known is not None:
            # NaN stands for what was not kept of one of the three.
            filled = [np.full(known.shape, np.nan) if v is None else v for v in values]
            stack = np.stack([np.asarray(v, names[name]) for v in filled])
            found[name] = stack if len(read) > 1 else stack[0]
    if "weight_bits" in names:
        shape = (len(read),) if len(read) > 1 else ()
        found["weight_bits"] = np.full(shape, bits, np.int8)
    shared: dict[str, list[np.ndarray | None]] = {
        "activation_bits": _bits_of(linears, read),
        "activation_shift": [linear.input.shift for linear in read],
        "activation_multiplier": [linear.input.multiplier for linear in read],
    }
    for name, several in shared.items():
        first = several[0]
        if not all(_same(first, other) for other in several):
            what = f"{name} of q, k and v of {read[0].name.layer} are not the same"
            raise SourceError(problem(what, where=str(file.file.path)))
        if first is not None:
            found[name] = first.astype(names[name])
    return found


def _bits_of(linears: list[Linear], read: list[QuantizedLinear]) -> list[np.ndarray | None]:
    """Bits that q, k and v share: one that is not quantized has no say, unless it says so."""
    telling = [{"a_scale", "a_bits"} & set(linear.members) for linear in linears]
    told = [one.input.bits for one, tells in zip(read, telling, strict=True) if tells]
    return list(told) or [read[0].input.bits]


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _notes(
    folder: Path,
    config: Mapping[str, Any],
    blocks: Mapping[str, _Block],
    files: Mapping[str, BlockFile],
) -> list[str]:
    """What is not stored, and what is not what it seems."""
    notes = []
    if config.get("poly_schedule"):
        notes.append("inputs ran with clip bounds of a poly schedule: a_scale is where it began")
    if config.get("asymmetric_act"):
        notes.append("inputs ran asymmetric, by the shifts of a schedule: a_scale does not say so")
    strange = sorted(
        entry.name
        for entry in (folder / FOLDER).iterdir()
        if entry.name not in {f"{name}.npz" for name in blocks}
    )
    if strange:
        notes.append(f"not in block_metrics, so not ingested: {', '.join(strange[:8])}")
    for file in files.values():
        if file.unknown:
            notes.append(f"not ingested, {file.file.path.name}: {', '.join(file.unknown[:8])}")
    return notes
