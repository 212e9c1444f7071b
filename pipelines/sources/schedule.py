"""Clip-bound schedules as JSON over sigma: polynomials (`poly_v1`, `poly_v2`), tables (`lut_v1`).

A `poly_v2` also has polynomials of shifts, for layers whose inputs lie off centre; `_smoothquant`
versions were fitted to smoothed inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem
from taqstore.kinds.statistics_sources import LUT_SCHEDULE, POLY_SCHEDULE
from taqstore.layout.template import Array, Template
from taqstore.names import POOLED, LayerName

from .parts.json_fields import field, floats, read_document, without
from .parts.place import Place
from .parts.plan import Options, Plan, PutWhole, Unit
from .parts.pooled import Coords, group_by_site, layer_coords

LUT = "lut_v1"
POLY = ("poly_v1", "poly_v2", "poly_v1_smoothquant", "poly_v2_smoothquant")
VERSIONS = (*POLY, LUT)
FIELDS = {
    LUT: ("alphas",),
    **dict.fromkeys(
        POLY, ("degree", "coeffs", "r2", "cv", "shift_degree", "shift_coeffs", "shift_r2")
    ),
}
NO_SHIFT = -1
MAX_DEGREE = 16
Entry = dict[str, np.ndarray]


def find(place: Place) -> Path | None:
    """The file, by its version."""
    return place.path if place.format in VERSIONS else None


def plan(path: Path, options: Options) -> Plan:
    """Plan of one schedule file: a group per site, under `pooled/poly_schedule` or `lut_schedule`.

    Raises
    ------
    SourceError
        Another version, unknown layers, values that are missing, not numbers or not finite.
    """
    document = read_document(path)
    version = document.get("version")
    if version not in VERSIONS:
        remedy = f"{', '.join(VERSIONS)} are read"
        found = repr(version)
        raise SourceError(problem("unknown version", where=str(path), found=found, remedy=remedy))
    build = _lut_site if version == LUT else _poly_site
    layers = field(document, "layers", dict, where=str(path))
    if not layers:
        raise SourceError(problem("no layers", where=str(path)))
    templates, units = [], []
    for site, members in group_by_site(tuple(layers), where=str(path)).items():
        template, arrays = build(path, document, site, members)
        templates.append(template)
        items = tuple((i,) for i in range(template.sizes[template.item_dims[0]]))
        units.append(
            Unit(
                label=template.path.removeprefix(f"{POOLED}/"),
                items={template.path: items},
                nbytes=path.stat().st_size * len(members) // len(layers),
                parts=(PutWhole(template.path, arrays),),
            )
        )
    return Plan(
        source="schedule",
        templates=tuple(templates),
        units=tuple(units),
        inputs=(path,),
        notes=_notes(path, layers, FIELDS[str(version)]),
        parameters={"version": version},
    )


def _notes(path: Path, layers: Mapping[str, Any], known: tuple[str, ...]) -> tuple[str, ...]:
    entries = (entry for entry in layers.values() if isinstance(entry, dict))
    unknown = sorted({name for entry in entries for name in entry} - set(known))
    return (f"{path.name}: fields of layers not taken: {', '.join(unknown)}",) if unknown else ()


Members = Mapping[LayerName, tuple[str, ...]]


def _poly_site(
    path: Path, document: Mapping[str, Any], site: str, members: Members
) -> tuple[Template, Entry]:
    entries = _entries(path, document, members, _poly_entry)
    every = [entry for row in entries for entry in row]
    shifted = any(int(entry["shift_degree"]) != NO_SHIFT for entry in every)
    kept = ("", "shift_") if shifted else ("",)
    highest = max(int(entry[f"{part}degree"]) for entry in every for part in kept)
    for entry in every:
        for name in (f"{part}coefficient" for part in kept):
            short = highest + 1 - len(entry[name])
            entry[name] = np.pad(entry[name], (0, short), constant_values=np.nan)
    names = [f"{part}{name}" for part in kept for name in ("coefficient", "degree", "r2")]
    arrays = {name: _stack(entries, name) for name in (*names, "cv")}
    power = {"power": (("power",), np.arange(highest + 1, dtype=np.int64))}
    lead: dict[str, tuple[str, ...]] = dict.fromkeys(arrays, ())
    tail = {name: ("power",) if name.endswith("coefficient") else () for name in arrays}
    attrs = {"source_document": without(document, "layers")}
    return _template(POLY_SCHEDULE, site, members, arrays, lead, tail, power, "layer", attrs)


def _poly_entry(entry: Mapping[str, Any], where: str) -> Entry:
    found = {
        **_polynomial(entry, "", where),
        "cv": np.array(field(entry, "cv", float, where=where)),
    }
    if any(name.startswith("shift_") for name in entry):
        return found | _polynomial(entry, "shift_", where)
    return found | {
        "shift_coefficient": np.zeros(0),
        "shift_degree": np.array(NO_SHIFT, np.int64),
        "shift_r2": np.array(np.nan),
    }


def _polynomial(entry: Mapping[str, Any], part: str, where: str) -> Entry:
    """Degree, coefficients by ascending power and R^2 of a clip bound or, by `part`, a shift."""
    degree = field(entry, f"{part}degree", int, where=where)
    coefficients = _numbers(entry, f"{part}coeffs", where)
    if not 0 <= degree <= MAX_DEGREE or len(coefficients) != degree + 1:
        what = f"{part}degree {degree} with {len(coefficients)} coefficients"
        raise SourceError(problem(what, where=where))
    return {
        f"{part}coefficient": coefficients[::-1],
        f"{part}degree": np.array(degree, np.int64),
        f"{part}r2": np.array(field(entry, f"{part}r2", float, where=where)),
    }


def _lut_site(
    path: Path, document: Mapping[str, Any], site: str, members: Members
) -> tuple[Template, Entry]:
    sigmas = _numbers(document, "sigmas", str(path))
    if not len(sigmas) or (np.diff(sigmas) >= 0).any():
        what = "sigmas do not descend from noise to image"
        raise SourceError(problem(what, where=str(path)))

    def alphas(entry: Mapping[str, Any], where: str) -> Entry:
        values = _numbers(entry, "alphas", where)
        if len(values) != len(sigmas):
            what = f"{len(values)} alphas for {len(sigmas)} sigmas"
            raise SourceError(problem(what, where=where))
        return {"alpha": values}

    entries = _entries(path, document, members, alphas)
    # (layer, projection, step) as read; the step comes first in a store.
    values = np.moveaxis(_stack(entries, "alpha"), -1, 0)
    steps = {
        "step": (("step",), np.arange(len(sigmas), dtype=np.int64)),
        "sigma": (("step",), floats(sigmas)),
    }
    attrs = {"source_document": without(document, "layers", "sigmas")}
    arrays = {"alpha": np.ascontiguousarray(values)}
    lead, tail = {"alpha": ("step",)}, {"alpha": ()}
    return _template(LUT_SCHEDULE, site, members, arrays, lead, tail, steps, "step", attrs)


def _entries(
    path: Path,
    document: Mapping[str, Any],
    members: Members,
    read: Callable[[Mapping[str, Any], str], Entry],
) -> list[list[Entry]]:
    """Entries by layer, and by projection where a layer has three names."""
    layers = document["layers"]
    rows = []
    for names in members.values():
        for name in names:
            if not isinstance(layers[name], dict):
                raise SourceError(problem("not an object", where=f"{path}: {name}"))
        rows.append([read(layers[name], f"{path}: {name}") for name in names])
    return rows


def _numbers(document: Mapping[str, Any], key: str, where: str) -> np.ndarray:
    values = field(document, key, list, where=where)
    numbered = {str(i): value for i, value in enumerate(values)}
    return np.array([field(numbered, i, float, where=f"{where}: {key}") for i in numbered])


def _stack(entries: list[list[Entry]], name: str) -> np.ndarray:
    """(layer, projection, ...) of one variable; without projection where q, k, v agree."""
    width = max(map(len, entries))
    values = np.array([[e[name] for e in row] for row in entries])
    same = np.array_equal(
        values, values[:, :1].repeat(width, axis=1), equal_nan=values.dtype.kind == "f"
    )
    return values[:, 0] if same else values


def _template(
    source: str,
    site: str,
    members: Members,
    arrays: Entry,
    lead: Mapping[str, tuple[str, ...]],
    tail: Mapping[str, tuple[str, ...]],
    coords: Coords,
    item: str,
    attrs: Mapping[str, Any],
) -> tuple[Template, Entry]:
    """Template whose arrays are (lead, layer[, projection], tail), with one item along `item`."""
    declared = []
    for name, values in arrays.items():
        split = values.ndim > len(lead[name]) + 1 + len(tail[name])
        dims = (*lead[name], "layer", *(("projection",) if split else ()), *tail[name])
        declared.append(Array(name, dims, values.dtype.newbyteorder("<").str))
    sizes = {d: n for a in declared for d, n in zip(a.dims, arrays[a.name].shape, strict=True)}
    template = Template(
        path=f"{source}/{site}",
        kind=POOLED,
        sizes=sizes,
        arrays=tuple(declared),
        coords={**coords, **layer_coords(tuple(members), projection="projection" in sizes)},
        item_dims=(item,),
        item_size={item: sizes[item]},
        attrs=attrs,
    )
    return template, arrays
