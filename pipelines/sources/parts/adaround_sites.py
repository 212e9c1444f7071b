"""Sites of an AdaRound output: what all linears of one have in common, and the dtypes they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, SourceError
from taqstore.files.refusal import problem
from taqstore.kinds.weight_sets import ADAROUND
from taqstore.kinds.weights import weights_template
from taqstore.layout.template import Array, Template
from taqstore.names import SITES, LayerName

from .adaround_files import BlockFile, Layout, Linear
from .json_fields import majority

# Variable of a store -> member that its dtype comes from.
_FROM = {"step_size": "scale", "activation_step": "a_scale", "rounding": "alpha"}


@dataclass(frozen=True)
class Site:
    """Linears of one site: every layer of it, and those whose file was read."""

    site: str
    layers: tuple[LayerName, ...]
    linears: tuple[tuple[BlockFile, Linear], ...]

    @property
    def layout(self) -> Layout:
        """What most of its linears have."""
        return majority(linear.layout for _, linear in self.linears)

    def misfits(self, folder: Path) -> dict[str, str]:
        """Why blocks cannot be stored with the others of a site, by block."""
        layout, found = self.layout, {}
        for file, linear in self.linears:
            if linear.layout != layout:
                what = f"{linear.name.full} has another layout than others of {self.site}"
                text = problem(what, where=str(folder), found=_told(linear.layout, layout))
                found[file.block] = text
        return found

    def template(
        self, attrs: Mapping[str, Any], *, set: str = ADAROUND, folder: str | None = None
    ) -> Template:
        """Template of the site; dtypes are the narrowest that hold what the files do.

        `set` and `folder` as of `weights_template`.
        """
        layout = self.layout
        has = {kind for _, linear in self.linears for kind in linear.members}
        try:
            made = weights_template(
                self.site,
                layers=[layer.layer for layer in self.layers],
                shape=(layout.out, layout.inputs),
                groups=layout.groups,
                sigma_lower=layout.sigma_lower,
                shifted="a_shift" in has,
                multiplied="a_multiplier" in has,
                rounding="alpha" in has,
                set=set,
                folder=folder,
                attrs=attrs,
            )
        except LayoutError as error:
            raise SourceError(str(error)) from error
        return replace(made, arrays=tuple(self._typed(array) for array in made.arrays))

    def _typed(self, array: Array) -> Array:
        if array.name not in _FROM:
            return array
        kind = _FROM[array.name]
        found = {
            linear.name.full: dtype
            for _, linear in self.linears
            if (dtype := linear.dtype(kind)) is not None
        }
        stored = self._stored(kind, list(found.values()), array.dtype)
        other = {name: dtype.name for name, dtype in found.items() if dtype != np.dtype(stored)}
        if not other:
            return replace(array, dtype=stored)
        alike = len(other) == len(found) and len(set(other.values())) == 1
        original: Any = next(iter(other.values())) if alike else other
        return replace(array, dtype=stored, attrs={**array.attrs, "original_dtype": original})

    def _stored(self, kind: str, dtypes: Sequence[np.dtype], usual: str) -> str:
        if kind == "alpha":
            return "float16" if dtypes and all(d == np.float16 for d in dtypes) else usual
        wide = [(file, x) for file, x in self.linears if x.dtype(kind) == np.float64]
        exact = all(_fits_float32(file, linear, kind) for file, linear in wide)
        return usual if exact else "float64"


def _fits_float32(file: BlockFile, linear: Linear, kind: str) -> bool:
    values = file.file.read(linear.members[kind][0])
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float32), values, equal_nan=True)


def _told(found: Layout, usual: Layout) -> str:
    """In what two layouts differ."""
    names = [name for name in vars(found) if getattr(found, name) != getattr(usual, name)]
    return ", ".join(f"{n} {getattr(found, n)}, others {getattr(usual, n)}" for n in names)


def sites_of(every: Iterable[LayerName], files: Iterable[BlockFile]) -> dict[str, Site]:
    """Sites of these linears; those of which no file was read are left out."""
    names, read = list(every), [(file, linear) for file in files for linear in file.linears]
    found = {}
    for site in SITES:
        layers = {x.layer: LayerName(x.block, x.stream) for x in names if x.site == site}
        linears = tuple((file, linear) for file, linear in read if linear.name.site == site)
        if linears:
            ordered = sorted(layers.values(), key=lambda layer: layer.sort_key)
            found[site] = Site(site, tuple(ordered), linears)
    return found
