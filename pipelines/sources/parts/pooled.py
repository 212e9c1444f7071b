"""Sites of statistics that arrived already reduced: templates and the parts that fill them.

Arrays are (step, layer[, projection], element). A shard is a run of layers at every step; it is
streamed one layer at a time, so memory stays at one layer's chunk whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taqstore.errors import MissingError, SourceError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.layout.template import Array, Template, nbytes, rows_per_shard
from taqstore.names import POOLED, PROJECTIONS, LayerName, parse_layer

from .json_fields import strings
from .plan import Inexact, Problem, Put, Unit

# Step files kept open at once while a shard is read; beyond it each read opens its file.
MAX_OPEN = 128
Coords = Mapping[str, tuple[tuple[str, ...], np.ndarray]]


@dataclass(frozen=True)
class Where:
    """Members that hold one variable of one layer at one step: one, or those of q, k, v."""

    file: NpzFile
    keys: tuple[str, ...]


Lookup = Callable[[str, int, int], Where | None]


@dataclass(frozen=True)
class Field:
    """One per-layer variable: its stored array, and what its members look like."""

    array: Array
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of one layer at one step: the members' shape, behind q, k, v if they differ."""
        return (len(PROJECTIONS), *self.shape) if "projection" in self.array.dims else self.shape


@dataclass(frozen=True)
class Site:
    """One group: its template, where its members lie, and rollups that are known already.

    `lookup(variable, step, layer)` takes indices; None means the source holds nothing there.
    `refused` are the steps that stay unwritten.
    """

    template: Template
    fields: tuple[Field, ...]
    lookup: Lookup
    files: tuple[NpzFile, ...]
    rollups: Mapping[str, np.ndarray] = field(default_factory=dict)
    refused: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LayerShard:
    """Part that writes layers `first` to `last` of every array of a site."""

    site: Site
    first: int
    last: int

    def __call__(self, put: Put) -> list[Problem]:
        """Stream each array's shard; name the steps that turned out to be bad."""
        template = self.site.template
        found: dict[int, Problem] = {}
        with ExitStack() as stack:
            for file in self.site.files[:MAX_OPEN]:
                stack.enter_context(file)
            for each in self.site.fields:
                start = _start(each.array, self.first)
                put(template.path, each.array.name, start, self._chunks(each, found))
        for name, values in self.site.rollups.items():
            start = _start(template.array(name), self.first)
            put(template.path, name, start, values[:, self.first : self.last])
        return list(found.values())

    def _chunks(self, each: Field, found: dict[int, Problem]) -> Iterator[np.ndarray]:
        for layer in range(self.first, self.last):
            yield self._chunk(each, layer, found)[:, None]

    def _chunk(self, each: Field, layer: int, found: dict[int, Problem]) -> np.ndarray:
        """One layer at every step, as stored; unread steps hold the fill value."""
        steps = self.site.template.sizes["step"]
        values = np.zeros((steps, *each.block), each.dtype)
        unread = np.ones(steps, bool)
        for step in range(steps):
            if step in self.site.refused or step in found:
                continue
            try:
                unread[step] = not self._read(values[step, ...], each, step, layer)
            except SourceError as error:
                found[step] = Problem(str(error), self.site.template.path, (step,))
        self._refuse_bad(values, unread, each, layer, found)
        values[unread] = 0
        stored = self._narrow(values, each)
        stored[unread] = each.array.fill
        return stored

    def _read(self, out: np.ndarray, each: Field, step: int, layer: int) -> bool:
        """Fill one step's block; False if the source holds nothing there."""
        where = self.site.lookup(each.array.name, step, layer)
        if where is None:
            return False
        file, keys = where.file, where.keys
        if out.shape != each.shape:
            for index, key in enumerate(keys):
                out[index] = file.read(key, dtype=each.dtype, shape=each.shape)
            return True
        out[...] = file.read(keys[0], dtype=each.dtype, shape=each.shape)
        for key in keys[1:]:
            if not file.same(keys[0], file, key):
                what = f"not the same as {keys[0]}, though its CRC-32 is"
                raise SourceError(problem(what, where=file.where(key)))
        return True

    def _refuse_bad(
        self,
        values: np.ndarray,
        unread: np.ndarray,
        each: Field,
        layer: int,
        found: dict[int, Problem],
    ) -> None:
        """Steps with NaN or Inf, or with a negative count (every integer field is a count)."""
        bad = ~np.isfinite(values) if values.dtype.kind == "f" else values < 0
        steps = bad.any(axis=tuple(range(1, values.ndim))) & ~unread
        for step in map(int, np.flatnonzero(steps)):
            where = self.site.lookup(each.array.name, step, layer)
            text = problem(
                "NaN or Inf" if values.dtype.kind == "f" else "negative count",
                where=where.file.where(where.keys[0]) if where else "",
                remedy="collect this step again; the others are ingested",
            )
            found[step] = Problem(text, self.site.template.path, (step,))
            unread[step] = True

    def _narrow(self, values: np.ndarray, each: Field) -> np.ndarray:
        stored = narrow(values, np.dtype(each.array.dtype))
        if stored is None:
            path, name = self.site.template.path, each.array.name
            what = f"{name} has values that {each.array.dtype} does not hold, unlike its first step"
            raise Inexact(problem(what, where=path), group=path, variable=name)
        return stored


def narrow(values: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """`values` as `dtype` if every value survives, else None."""
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    return stored if bool((stored == values).all()) else None


def stored_dtype(sample: np.ndarray, *, wide: bool) -> str:
    """Decide the dtype to store a variable with, judged by a sample of it.

    float64 becomes float32 where that holds the sample exactly, unless `wide`; counts become uint32
    or, if `wide` or too large, uint64.
    """
    native = sample.dtype.newbyteorder("<").str
    if sample.dtype.kind in "iu":
        return "<u8" if wide or int(sample.max(initial=0)) >= 1 << 32 else "<u4"
    if wide or sample.dtype.itemsize <= 4:
        return native
    return native if narrow(sample[np.isfinite(sample)], np.dtype("<f4")) is None else "<f4"


def resolve(name: str, *, where: str) -> LayerName:
    """Identity of a layer a source names, with a site; SourceError if it is not known."""
    try:
        layer = parse_layer(name)
    except MissingError as error:
        raise SourceError(problem(str(error), where=where, remedy="")) from None
    if not layer.site:
        raise SourceError(problem(f"layer name {name!r} does not say which linear", where=where))
    return layer


def group_by_site(
    names: Sequence[str], *, where: str
) -> dict[str, dict[LayerName, tuple[str, ...]]]:
    """``{site: {layer: spellings}}`` in store order; q, k, v spellings of one layer in that order.

    Raises
    ------
    SourceError
        An unknown name, one layer under two names, or only some of q, k, v.
    """
    found: dict[str, dict[LayerName, dict[str, str]]] = {}
    for name in names:
        full = resolve(name, where=where)
        layer = LayerName(full.block, full.stream, full.site)
        spellings = found.setdefault(full.site, {}).setdefault(layer, {})
        if full.projection in spellings:
            what = f"{name!r} and {spellings[full.projection]!r} are one layer"
            raise SourceError(problem(what, where=where))
        spellings[full.projection] = name
    sites: dict[str, dict[LayerName, tuple[str, ...]]] = {}
    for site in sorted(found):
        layers = sorted(found[site], key=lambda layer: layer.sort_key)
        sites[site] = {layer: _ordered(found[site][layer], where=where) for layer in layers}
        if len({len(spellings) for spellings in sites[site].values()}) > 1:
            what = f"{site} is one name for some layers and q, k, v for others"
            raise SourceError(problem(what, where=where))
    return sites


def _ordered(spellings: dict[str, str], *, where: str) -> tuple[str, ...]:
    if set(spellings) not in ({""}, set(PROJECTIONS)):
        what = "q, k and v of a layer must all be there, or one name for the three"
        raise SourceError(problem(what, where=where, found=", ".join(spellings.values())))
    return tuple(spellings[p] for p in PROJECTIONS if p in spellings) or (spellings[""],)


def layer_coords(layers: Sequence[LayerName], *, projection: bool = False) -> Coords:
    """Coordinates of the layer axis, and of q, k, v where a variable tells them apart."""
    coords = {
        "layer": (("layer",), strings(layer.layer for layer in layers)),
        "block": (("layer",), strings(layer.block for layer in layers)),
        "stream": (("layer",), strings(layer.stream for layer in layers)),
    }
    if projection:
        coords["projection"] = (("projection",), strings(PROJECTIONS))
    return coords


def site_template(
    source: str,
    site: str,
    arrays: tuple[Array, ...],
    *,
    sizes: Mapping[str, int],
    coords: Coords,
    attrs: Mapping[str, Any],
) -> Template:
    """Template of `<source>/<site>` whose item is every step of the site."""
    used = {d for array in arrays for d in array.dims} | {"step", "layer"}
    kept = {d: n for d, n in sizes.items() if d in used}
    per_layer = [a for a in arrays if "layer" in a.dims]
    row = max(nbytes(tuple(kept[d] for d in a.dims if d != "layer"), a.dtype) for a in per_layer)
    return Template(
        path=f"{source}/{site}",
        kind=POOLED,
        sizes=kept,
        arrays=arrays,
        coords=coords,
        item_dims=("step",),
        item_size={"step": kept["step"]},
        shard={"layer": rows_per_shard(row, kept["layer"])},
        attrs=attrs,
    )


def site_unit(site: Site, *, nbytes: int) -> Unit:
    """The unit of one site: a part per layer shard, every step that is not refused."""
    template = site.template
    rows, layers = template.shard["layer"], template.sizes["layer"]
    steps = tuple((s,) for s in range(template.sizes["step"]) if s not in site.refused)
    return Unit(
        label=template.path.removeprefix(f"{POOLED}/"),
        items={template.path: steps},
        nbytes=nbytes,
        parts=tuple(
            LayerShard(site, first, min(first + rows, layers)) for first in range(0, layers, rows)
        ),
    )


def _start(array: Array, layer: int) -> tuple[int, ...]:
    return tuple(layer if d == "layer" else 0 for d in array.dims)
