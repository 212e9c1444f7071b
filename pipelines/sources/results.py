"""What other analysers concluded, kept to be compared: configs, smoothing factors, groups of steps.

Documents are told by content. The field `scale` of a quantization config is a clip bound by one
writer and a step size by another, under one format name: it is kept as found, and named so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem
from taqstore.layout.template import Array, Template
from taqstore.names import POOLED, LayerName

from .parts.json_fields import field as value_of
from .parts.json_fields import floats, read_document, without
from .parts.place import Place
from .parts.plan import Options, Plan, PutWhole, Unit
from .parts.pooled import Coords, group_by_site, layer_coords

PATHS = ("activations_dir", "weights_dir")
# Names of layers -> where (a step, a group of steps, or "") -> fields.
Cells = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Found:
    """A document laid out by layer.

    Parameters
    ----------
    word
        Last part of its groups' prefix below `pooled/`.
    cells
        What it says of each layer, at each place.
    dim
        Dimension of the places; empty where there are none.
    places
        Labels of it, in order.
    coords
        Coordinates of the places.
    attrs
        The rest of the document.
    left
        Fields that are not taken.
    """

    word: str
    cells: Cells
    attrs: Mapping[str, Any]
    dim: str = ""
    places: tuple[int, ...] = ()
    coords: Coords = field(default_factory=dict)
    left: tuple[str, ...] = ()


VECTORS = ("shift", "factor")
SCALARS = ("scale", "bits")


def find(place: Place) -> Path | None:
    """The file, by its format, or by the keys of one that has none."""
    return place.path if not place.is_folder and _reader(place.document) else None


def plan(path: Path, options: Options) -> Plan:
    """Plan of one document: a group per site, under `pooled/<word>`.

    Raises
    ------
    SourceError
        Unknown layers, values that are missing or no numbers, or layers of one site with differing
        numbers of channels.
    """
    document = read_document(path)
    read = _reader(document)
    if read is None:
        raise SourceError(problem("no result that is known", where=str(path)))
    found = read(document, str(path))
    if not found.cells:
        raise SourceError(problem("no layers", where=str(path)))
    templates, units = [], []
    for site, members in group_by_site(tuple(found.cells), where=str(path)).items():
        template, arrays = _site(found, site, members, str(path))
        item = template.item_dims[0]
        templates.append(template)
        units.append(
            Unit(
                label=template.path.removeprefix(f"{POOLED}/"),
                items={template.path: tuple((i,) for i in range(template.sizes[item]))},
                nbytes=path.stat().st_size * len(members) // len(found.cells),
                parts=(PutWhole(template.path, arrays),),
            )
        )
    taken = {*SCALARS, *VECTORS}
    inner = {name for at in found.cells.values() for cell in at.values() for name in cell} - taken
    left = sorted({*found.left, *inner})
    return Plan(
        source="results",
        templates=tuple(templates),
        units=tuple(units),
        inputs=(path,),
        notes=(f"{path.name}: fields not taken: {', '.join(left)}",) if left else (),
        parameters={"format": document.get("format")},
    )


def _reader(document: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str], Found] | None:
    name = document.get("format")
    if isinstance(name, str):
        return _READERS.get(name)
    smooth = {"alpha", "scale_clip", "layers"} <= set(document)
    return _smoothquant if smooth else None


def _quant_config(document: Mapping[str, Any], where: str) -> Found:
    """v3 or v4: bits, scale and shift of every layer at every step."""
    by_step = value_of(document, "per_timestep", dict, where=where)
    steps = _numbers(by_step, where)
    sigmas = document.get("sigma_map") or {}
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "step": (("step",), np.array(steps, np.int64))
    }
    if all(str(step) in sigmas for step in steps):
        known = [value_of(sigmas, str(step), float, where=where) for step in steps]
        coords["sigma"] = (("step",), floats(known))
    left = ("outlier_config",) if "outlier_config" in document else ()
    attrs = without(document, "per_timestep", "outlier_config")
    return Found("quant_config", _by_layer(by_step, where), attrs, "step", steps, coords, left)


def _group_config(document: Mapping[str, Any], where: str) -> Found:
    """HTG: bits, scale and shift of every layer in every group of steps."""
    by_group = value_of(document, "per_group", dict, where=where)
    groups = _numbers(by_group, where)
    left = ("outlier_config",) if document.get("outlier_config") else ()
    attrs = without(document, "per_group", "outlier_config")
    coords = {"time_group": (("time_group",), np.array(groups, np.int64))}
    cells = _by_layer(by_group, where)
    return Found("htg_config", cells, attrs, "time_group", groups, coords, left)


def _groups(document: Mapping[str, Any], where: str) -> Found:
    """HTG: the shift of every layer in every group of steps, and how far the groups reach."""
    every = value_of(document, "global_groups", dict, where=where)
    groups = _numbers(every, where)
    ends = [_ends(every[str(group)], f"{where}: group {group}") for group in groups]
    coords = {
        "time_group": (("time_group",), np.array(groups, np.int64)),
        "sigma_lower": (("time_group",), np.array([low for low, _ in ends], np.float64)),
        "sigma_upper": (("time_group",), np.array([high for _, high in ends], np.float64)),
    }
    shifts = value_of(document, "per_layer_z_bar", dict, where=where)
    cells: Cells = {}
    for name, by_group in shifts.items():
        if not isinstance(by_group, dict):
            raise SourceError(problem("not an object", where=f"{where}: {name}"))
        if by_group:
            cells[name] = {group: {"shift": values} for group, values in by_group.items()}
    attrs = without(document, "per_layer_z_bar")
    return Found("htg_groups", cells, attrs, "time_group", groups, coords)


def _smoothquant(document: Mapping[str, Any], where: str) -> Found:
    """Factors of channels: inputs are divided by them, weights multiplied."""
    layers = value_of(document, "layers", dict, where=where)
    cells: Cells = {name: {"": {"factor": values}} for name, values in layers.items()}
    return Found("smoothquant_scales", cells, without(document, "layers", paths=PATHS))


_READERS = {
    "per_timestep_quant_config_v3": _quant_config,
    "per_timestep_quant_config_v4": _quant_config,
    "per_group_quant_config_htg_v1": _group_config,
    "htg_groups_v1": _groups,
}


def _ends(group: Any, where: str) -> tuple[float, float]:
    if not isinstance(group, dict):
        raise SourceError(problem("not an object", where=where))
    ends = _vector(value_of(group, "sigma_range", list, where=where), where)
    if len(ends) != 2:
        raise SourceError(problem("sigma_range is no pair", where=where))
    return float(ends[0]), float(ends[1])


def _numbers(keys: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """Steps or groups that keys name, ascending."""
    odd = next((key for key in keys if not (key.isdecimal() and len(key) < 10)), None)
    if odd is not None or not keys:
        what = "a step or group that is no number" if keys else "no steps or groups"
        raise SourceError(problem(what, where=where, found=repr(odd)[:80] if keys else ""))
    return tuple(sorted(map(int, keys)))


def _by_layer(by_place: Mapping[str, Any], where: str) -> Cells:
    cells: Cells = {}
    for place, layers in by_place.items():
        if not isinstance(layers, dict):
            raise SourceError(problem("not an object", where=f"{where}: {place}"))
        for name, cell in layers.items():
            if not isinstance(cell, dict):
                raise SourceError(problem("not an object", where=f"{where}: {place}: {name}"))
            cells.setdefault(name, {})[str(int(place))] = cell
    return cells


Members = Mapping[LayerName, tuple[str, ...]]
Arrays = dict[str, np.ndarray]


def _site(found: Found, site: str, members: Members, where: str) -> tuple[Template, Arrays]:
    """One group: arrays over (place, layer[, projection][, channel]), NaN or 0 where nothing is."""
    names = [name for spellings in members.values() for name in spellings]
    width = max(map(len, members.values()))
    places = [str(place) for place in found.places] or [""]
    lead = {found.dim: len(places)} if found.dim else {}
    sizes = {**lead, "layer": len(members), **({"projection": width} if width > 1 else {})}
    shape = (len(places), len(members), width)
    arrays: Arrays = {}
    declared: list[Array] = []
    channel: dict[str, int] = {}
    for variable in (*SCALARS, *VECTORS):
        values = _values(found.cells, names, places, variable, where)
        if values is None:
            continue
        tail = {"channel": values.shape[-1]} if values.ndim == 3 else {}
        dims = (*sizes, *tail)
        full = values.reshape(*shape, *tail.values())
        arrays[variable] = full.reshape([*sizes.values(), *tail.values()])
        declared.append(Array(variable, dims, values.dtype.str))
        channel = tail or channel
    item = found.dim or "layer"
    template = Template(
        path=f"{POOLED}/{found.word}/{site}",
        kind=POOLED,
        sizes={**sizes, **channel},
        arrays=tuple(declared),
        coords={**found.coords, **layer_coords(tuple(members), projection=width > 1)},
        item_dims=(item,),
        item_size={item: sizes[item]},
        attrs={"source_document": dict(found.attrs)},
    )
    return template, arrays


def _values(
    cells: Cells, names: list[str], places: list[str], variable: str, where: str
) -> np.ndarray | None:
    """(place, linear[, channel]) of one variable; None where no cell has it."""
    seen = {
        (p, n): cells[name][place][variable]
        for p, place in enumerate(places)
        for n, name in enumerate(names)
        if variable in cells[name].get(place, {})
    }
    if not seen:
        return None
    at = {key: f"{where}: {names[key[1]]}: {variable}" for key in seen}
    if variable in SCALARS:
        whole = variable == "bits"
        filled = np.full((len(places), len(names)), 0 if whole else np.nan)
        for key, value in seen.items():
            filled[key] = value_of({variable: value}, variable, float, where=at[key])
        if whole and not np.isin(filled, np.arange(65)).all():
            raise SourceError(problem("bits that are no number of bits", where=where))
        return filled.astype(np.int8) if whole else filled
    vectors = {key: _vector(value, at[key]) for key, value in seen.items()}
    lengths = {len(vector) for vector in vectors.values()}
    if len(lengths) > 1:
        what = "layers of one site with differing numbers of channels"
        raise SourceError(problem(what, where=where, found=str(sorted(lengths))))
    filled = np.full((len(places), len(names), lengths.pop()), np.nan)
    for key, vector in vectors.items():
        filled[key] = vector
    return filled


def _vector(values: Any, where: str) -> np.ndarray:
    if not isinstance(values, list) or not values:
        raise SourceError(problem("no list of numbers", where=where))
    numbered = {str(i): value for i, value in enumerate(values)}
    return np.array([value_of(numbered, i, float, where=where) for i in numbered])
