"""`activations/`: one group per site from one npz and one index per step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem
from taqstore.kinds.statistics_sources import TIMESTEP_STATS, TRACED_STATS
from taqstore.layout.template import Array
from taqstore.names import PROJECTIONS, LayerName, array_key, linear_names

from .parts.json_fields import floats, without
from .parts.place import Place
from .parts.plan import Options, Plan, Problem
from .parts.pooled import (
    Field,
    Lookup,
    Site,
    Where,
    group_by_site,
    layer_coords,
    site_template,
    site_unit,
    stored_dtype,
)
from .parts.timestep_run import (
    EXTREMA,
    FOLDER,
    OPTIONAL,
    ROLLUPS,
    STATISTICS,
    V1,
    V2,
    Run,
    Step,
    scan,
)

GROUP = {V1: TRACED_STATS, V2: TIMESTEP_STATS}


def find(place: Place) -> Path | None:
    """The folder with `layer_statistics.json`, given itself or by that file."""
    if place.is_folder:
        return place.path if (place.path / STATISTICS).is_file() else None
    named = place.format in (V1, V2) or (place.document and place.path.name == STATISTICS)
    return place.path.parent if named else None


def plan(folder: Path, options: Options) -> Plan:
    """Plan of the folder that holds `layer_statistics.json`.

    Raises
    ------
    SourceError
        Unknown schema, no usable step, or layer names that are not known.
    """
    run = scan(folder)
    sites = _sites(run, options)
    refused = [
        Problem(text, site.template.path, (step,))
        for site in sites
        for step, text in sorted(run.errors.items())
    ]
    share = sum(step.file.nbytes for step in run.steps if step) // max(1, len(sites))
    units = tuple(site_unit(site, nbytes=share) for site in sites)
    return Plan(
        source="activations",
        templates=tuple(site.template for site in sites),
        units=units,
        problems=(*refused, *_unlisted(run)),
        inputs=(folder / STATISTICS, folder / FOLDER),
        notes=_notes(run),
        parameters={"format": run.schema, "steps": list(run.keys)},
    )


def _sites(run: Run, options: Options) -> list[Site]:
    where = f"{run.folder / FOLDER}: index"
    sites = []
    for name, layers in group_by_site(tuple(run.reference.index), where=where).items():
        widths: dict[int, dict[LayerName, tuple[str, ...]]] = {}
        for layer, spellings in layers.items():
            widths.setdefault(_width(run, spellings[0]), {})[layer] = spellings
        for width, members in sorted(widths.items()):
            label = name if len(widths) == 1 else f"{name}.c{width}"
            sites.append(_site(run, label, members, options))
    return sites


def _width(run: Run, name: str) -> int:
    file = run.reference.file
    key = f"{array_key(name)}__avg_min"
    shape = file.header(key).shape
    if len(shape) != 1:
        raise SourceError(problem("not a vector of channels", where=file.where(key)))
    return shape[0]


def _site(
    run: Run, label: str, layers: Mapping[LayerName, tuple[str, ...]], options: Options
) -> Site:
    spellings = list(layers.values())
    source_names = {**EXTREMA[run.schema], **({} if run.schema == V1 else dict.fromkeys(OPTIONAL))}
    renamed = {stored: original or stored for stored, original in source_names.items()}
    lookup = _lookup(run, spellings, renamed)
    path = f"{GROUP[run.schema]}/{label}"
    fields = tuple(
        each
        for stored, original in renamed.items()
        if (each := _field(run, spellings, stored, original, (path, stored) in options.widen))
    )
    rollups = _rollups(run, spellings)
    arrays = (*(f.array for f in fields), *(_rollup_array(n, v) for n, v in rollups.items()))
    sizes = {"step": len(run.keys), "layer": len(layers), "projection": len(PROJECTIONS)}
    sizes |= {f.array.dims[-1]: f.shape[0] for f in fields}
    coords = {
        "step": (("step",), np.array(run.keys, np.int64)),
        "sigma": (("step",), floats(run.sigmas)),
        **layer_coords(tuple(layers), projection=any("projection" in a.dims for a in arrays)),
    }
    attrs: dict[str, object] = {"source_document": without(run.document, paths=("timestep_dir",))}
    if spellings != [linear_names(layer) for layer in layers]:
        attrs["source_layers"] = [list(names) for names in spellings]
    template = site_template(
        GROUP[run.schema], label, arrays, sizes=sizes, coords=coords,
        attrs=attrs,
    )  # fmt: skip
    files = tuple(step.file for step in run.steps if step)
    return Site(template, fields, lookup, files, rollups, frozenset(run.errors))


def _lookup(run: Run, spellings: Sequence[tuple[str, ...]], renamed: Mapping[str, str]) -> Lookup:
    raws = [tuple(map(array_key, names)) for names in spellings]

    def find(variable: str, step: int, layer: int) -> Where | None:
        found = run.steps[step]
        if found is None or not _promised(found, spellings[layer], variable):
            return None
        name = renamed[variable]
        return Where(found.file, tuple(f"{spelling}__{name}" for spelling in raws[layer]))

    return find


def _promised(step: Step, names: tuple[str, ...], variable: str) -> bool:
    """Whether the index says that a layer has the variable at this step."""
    if variable not in OPTIONAL:
        return True
    return any(step.index[name].get(OPTIONAL[variable][0]) for name in names)


def _field(
    run: Run, spellings: Sequence[tuple[str, ...]], stored: str, original: str, wide: bool
) -> Field | None:
    """The array of one variable, judged by the first usable step; None if no layer has it."""
    steps = [step for step in run.steps if step]
    keys = [
        (step, tuple(f"{array_key(n)}__{original}" for n in names))
        for step in steps
        for names in spellings
        if _promised(step, names, stored)
    ]
    if not keys:
        return None
    step, first = keys[0]
    header = step.file.header(first[0])
    sample = np.stack(
        [
            step.file.read(key, dtype=header.dtype, shape=header.shape)
            for held, names in keys
            if held is step
            for key in names[:1]
        ]
    )
    dtype = stored_dtype(sample, wide=wide)
    split = any(len({step.file.crc(k) for k in names}) > 1 for step, names in keys)
    element = OPTIONAL[stored][1] if stored in OPTIONAL else "channel"
    dims = ("step", "layer", *(("projection",) if split else ()), element)
    attrs = {"original_dtype": header.dtype.name} if np.dtype(dtype) != header.dtype else {}
    attrs |= {"source_name": original} if original != stored else {}
    array = Array(stored, dims, dtype, "layer", compress=stored == "hist_counts", attrs=attrs)
    return Field(array, header.dtype, header.shape)


def _rollups(run: Run, spellings: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Index values as (step, layer), or (step, layer, projection) where q, k, v differ."""
    rollups = {}
    every = [n for names in spellings for n in names]
    present = {key for step in run.steps if step for name in every for key in step.index[name]}
    width = max(map(len, spellings))
    for name, dtype in ROLLUPS.items():
        if name not in present:
            continue
        missing = np.nan if dtype == "<f8" else 0
        values = np.full((len(run.keys), len(spellings), width), missing, dtype)
        for position, step in enumerate(run.steps):
            if step:
                rows = [[step.index[n].get(name, missing) for n in names] for names in spellings]
                values[position] = rows
        same = np.array_equal(values, values[..., :1].repeat(width, -1), equal_nan=dtype == "<f8")
        rollups[name] = values[..., 0] if same else values
    return rollups


def _rollup_array(name: str, values: np.ndarray) -> Array:
    dims = ("step", "layer", "projection")[: values.ndim]
    return Array(name, dims, values.dtype.str)


def _unlisted(run: Run) -> Iterable[Problem]:
    names = {f"step_{key}.npz" for key in run.keys}
    for path in sorted((run.folder / FOLDER).glob("step_*.npz")):
        if path.name not in names:
            what = "not in step_keys, so it is not ingested"
            yield Problem(problem(what, where=str(path), remedy=f"list it in {STATISTICS}"))


def _notes(run: Run) -> tuple[str, ...]:
    known = {*EXTREMA[run.schema].values(), *OPTIONAL}
    steps = [step for step in run.steps if step]
    others = {n.rpartition("__")[2] for step in steps for n in step.file.names} - known
    others |= {key for step in steps for e in step.index.values() for key in e} - set(ROLLUPS)
    return (f"not stored: {', '.join(sorted(others))}",) if others else ()
