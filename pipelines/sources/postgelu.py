"""`activation_stats_postgelu.npz` (Phase 2): statistics per layer and timestep in one file.

Keys are `{layer}::t={t:.6f}::{variable}`. The printed t does not round-trip, so each is matched to
the nearest of `timesteps_unique`, one to one; steps are counted from noise to image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.kinds.statistics_sources import POSTGELU
from taqstore.layout.template import Array
from taqstore.names import LayerName

from .parts.place import Place
from .parts.plan import Options, Plan, Problem, PutWhole, Unit
from .parts.pooled import (
    Field,
    Site,
    Where,
    group_by_site,
    layer_coords,
    site_template,
    site_unit,
    stored_dtype,
)

TIMESTEPS, EDGES = "timesteps_unique", "histogram_bin_edges"
ELEMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("mean", "std", "min", "max"), ("channel",)),
    "count": (),
    "histogram": ("bin",),
}
_KEY = re.compile(rf"(?P<layer>.+)::t=(?P<t>\d+\.\d+)::(?P<variable>{'|'.join(ELEMENTS)})")
# Half a unit of the sixth printed digit, with room for the float32 the digits came from.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Contents:
    """What the keys say: printed timestep of every step, layers, keys that are there."""

    file: NpzFile
    timesteps: np.ndarray
    printed: tuple[str, ...]
    layers: tuple[str, ...]
    edges: np.ndarray


def find(place: Place) -> Path | None:
    """The file, by its timesteps."""
    return place.path if TIMESTEPS in place.keys else None


def plan(path: Path, options: Options) -> Plan:
    """Plan of one Phase 2 file: a group per site, timesteps descending.

    Raises
    ------
    SourceError
        Unknown keys, timesteps that do not match, no usable step.
    """
    contents = _contents(NpzFile(path))
    missing = _missing(contents)
    sites, units = [], []
    for name, layers in group_by_site(contents.layers, where=str(path)).items():
        widths: dict[int, dict[LayerName, str]] = {}
        for layer, spellings in layers.items():
            widths.setdefault(_width(contents, spellings[0], missing), {})[layer] = spellings[0]
        for width, members in sorted(widths.items()):
            label = name if len(widths) == 1 else f"{name}.c{width}"
            sites.append(_site(contents, label, members, missing, options))
    for site in sites:
        unit = site_unit(site, nbytes=contents.file.nbytes // len(sites))
        edges = PutWhole(site.template.path, {"bin_edges": contents.edges})
        units.append(Unit(unit.label, unit.items, unit.nbytes, (edges, *unit.parts)))
    return Plan(
        source="postgelu",
        templates=tuple(site.template for site in sites),
        units=tuple(units),
        problems=tuple(
            Problem(text, site.template.path, (step,))
            for site in sites
            for step, text in sorted(missing.items())
        ),
        inputs=(path,),
        notes=("values outside the histogram's edges were dropped by the source",),
        parameters={"timesteps": [float(t) for t in contents.timesteps]},
    )


def _contents(file: NpzFile) -> Contents:
    timesteps = np.sort(_vector(file, TIMESTEPS))[::-1]
    printed: set[str] = set()
    layers: dict[str, None] = {}
    for key in file.names:
        match = _KEY.fullmatch(key)
        if match:
            printed.add(match["t"])
            layers[match["layer"]] = None
        elif key not in (TIMESTEPS, EDGES):
            remedy = "keys are LAYER::t=T::VARIABLE"
            raise SourceError(problem("unknown key", where=file.where(key), remedy=remedy))
    if not layers:
        raise SourceError(problem("no statistics in the file", where=str(file.path)))
    matched = _match(file, sorted(printed), timesteps)
    return Contents(file, timesteps, matched, tuple(layers), _vector(file, EDGES))


def _vector(file: NpzFile, key: str) -> np.ndarray:
    values = file.read(key)
    if values.ndim != 1 or values.dtype != np.float32 or not np.isfinite(values).all():
        found = f"{values.dtype} {values.shape}"
        what = "not a finite float32 vector"
        raise SourceError(problem(what, where=file.where(key), found=found))
    return values


def _match(file: NpzFile, printed: list[str], timesteps: np.ndarray) -> tuple[str, ...]:
    """Printed form of every timestep; empty where the file has no key for it."""
    matched = [""] * len(timesteps)
    for text in printed:
        gaps = np.abs(timesteps.astype(np.float64) - float(text))
        nearest = int(gaps.argmin()) if len(gaps) else -1
        if nearest < 0 or gaps[nearest] > TOLERANCE or matched[nearest]:
            what = f"t={text} matches no timestep of its own in {TIMESTEPS}"
            raise SourceError(problem(what, where=str(file.path)))
        matched[nearest] = text
    return tuple(matched)


def _key(layer: str, t: str, variable: str) -> str:
    return f"{layer}::t={t}::{variable}"


def _missing(contents: Contents) -> dict[int, str]:
    """Steps that lack an array of some layer, with the line that says so."""
    found: dict[int, str] = {}
    for step, t in enumerate(contents.printed):
        keys = (_key(n, t or "?", v) for n in contents.layers for v in ELEMENTS)
        absent = next((key for key in keys if key not in contents.file), None)
        if absent:
            found[step] = problem(
                "missing, so this timestep is not ingested",
                where=contents.file.where(absent),
                found=f"timestep {contents.timesteps[step]}",
            )
    if len(found) == len(contents.printed):
        raise SourceError(next(iter(found.values())))
    return found


def _first(contents: Contents, missing: Mapping[int, str]) -> str:
    return next(t for step, t in enumerate(contents.printed) if step not in missing)


def _width(contents: Contents, layer: str, missing: Mapping[int, str]) -> int:
    key = _key(layer, _first(contents, missing), "mean")
    shape = contents.file.header(key).shape
    if len(shape) != 1:
        raise SourceError(problem("not a vector of channels", where=contents.file.where(key)))
    return shape[0]


def _site(
    contents: Contents,
    label: str,
    layers: Mapping[LayerName, str],
    missing: Mapping[int, str],
    options: Options,
) -> Site:
    names = list(layers.values())
    path = f"{POSTGELU}/{label}"
    first = _first(contents, missing)
    fields = tuple(
        _field(contents, names, first, variable, (path, variable) in options.widen)
        for variable in ELEMENTS
    )

    def find(variable: str, step: int, layer: int) -> Where:
        return Where(contents.file, (_key(names[layer], contents.printed[step], variable),))

    sizes = {"step": len(contents.timesteps), "layer": len(layers), "edge": len(contents.edges)}
    sizes |= {f.array.dims[-1]: f.shape[0] for f in fields if f.shape}
    coords = {
        "step": (("step",), np.arange(sizes["step"], dtype=np.int64)),
        "timestep": (("step",), contents.timesteps),
        "sigma": (("step",), (contents.timesteps / np.float32(1000)).astype(np.float32)),
        **layer_coords(tuple(layers)),
    }
    edges = Array("bin_edges", ("edge",), contents.edges.dtype.newbyteorder("<").str)
    template = site_template(
        POSTGELU, label, (*(f.array for f in fields), edges), sizes=sizes, coords=coords,
        attrs={"source_layers": names},
    )  # fmt: skip
    return Site(template, fields, find, (contents.file,), refused=frozenset(missing))


def _field(contents: Contents, names: list[str], first: str, variable: str, wide: bool) -> Field:
    """Stored array of one variable, judged by the first usable timestep."""
    file = contents.file
    header = file.header(_key(names[0], first, variable))
    if len(header.shape) != len(ELEMENTS[variable]):
        where = file.where(_key(names[0], first, variable))
        raise SourceError(problem(f"has shape {header.shape}", where=where))
    sample = np.stack(
        [file.read(_key(n, first, variable), dtype=header.dtype, shape=header.shape) for n in names]
    )
    dtype = stored_dtype(sample, wide=wide)
    attrs = {"original_dtype": header.dtype.name} if np.dtype(dtype) != header.dtype else {}
    dims = ("step", "layer", *ELEMENTS[variable])
    return Field(
        Array(variable, dims, dtype, "layer", compress=variable == "histogram", attrs=attrs),
        header.dtype,
        header.shape,
    )
