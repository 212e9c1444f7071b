"""Weight sets of a whole model, rounded to nearest: any site, width and grid."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from taqstore.pipelines.models.inputs import Reader
from taqstore.pipelines.models.load import LoadedModel

from taqstore.kinds.weights import weights_template
from taqstore.names import MODEL_SITES, PROJECTIONS, SITES
from taqstore.quantization.integer_grid import IntegerGrid, affine_grid, symmetric_grid
from taqstore.store.writer import StoreWriter, create_store

EVERY = (*SITES, *MODEL_SITES)


@dataclass(frozen=True)
class Kind:
    """How the linears of a site are rounded; no group size: one step for each output."""

    bits: int = 4
    group_size: int | None = 64
    half: bool = True
    affine: bool = True

    def grid(self, weight: np.ndarray) -> IntegerGrid:
        make: Callable[..., IntegerGrid] = affine_grid if self.affine else symmetric_grid
        dtype = "float16" if self.half else "float32"
        return make(weight, bits=self.bits, group_size=self.group_size, step_dtype=dtype)


def write_set(
    path: Path,
    model: LoadedModel,
    kinds: Mapping[str, Kind],
    *,
    name: str = "made",
    left: Collection[str] = (),
    **run: Any,
) -> Path:
    """A store with one set: linears of each site by its kind, but for layers that are `left`."""
    told = {"model": model.row.name, "weights": model.digest, "method": "rtn", **run}
    with create_store(path) as writer:
        for site, kind in kinds.items():
            by_shape: dict[tuple[int, int], dict[str, list[Reader]]] = {}
            for one in model.inputs():
                for reader in one.readers if one.site == site else ():
                    layers = by_shape.setdefault(reader.shape, {})
                    layers.setdefault(reader.name.layer, []).append(reader)
            usual = max(by_shape, key=lambda shape: len(by_shape[shape]))
            for shape, layers in by_shape.items():
                where = site if shape == usual else f"{site}.o{shape[0]}"
                about = {**told, "bits": kind.bits}
                _write(writer, where, shape, layers, kind, name, about, left)
    return path


def _write(
    writer: StoreWriter,
    where: str,
    shape: tuple[int, int],
    layers: Mapping[str, list[Reader]],
    kind: Kind,
    name: str,
    run: Mapping[str, Any],
    left: Collection[str],
) -> None:
    template = weights_template(
        where, set=name, layers=tuple(layers), shape=shape,
        groups=shape[1] // (kind.group_size or shape[1]), offset=kind.affine,
        rounding=False, activations=False, attrs={"run": run},
    )  # fmt: skip
    group, split = writer.group(template), where == SITES[0]
    for row, (layer, readers) in enumerate(layers.items()):
        if layer in left:
            continue
        assert len(readers) == (len(PROJECTIONS) if split else 1)
        made = [_rounded(reader.matrix(), kind) for reader in readers]
        for variable in made[0]:
            values = [one[variable] for one in made]
            whole = np.stack(values)[None] if split else values[0][None]
            group.put(variable, (row,) + (0,) * (whole.ndim - 1), whole)
        group.commit([(row,)])


def _rounded(weight: np.ndarray, kind: Kind) -> dict[str, np.ndarray]:
    grid = kind.grid(weight)
    integers, _ = grid.nearest(weight, np.arange(weight.shape[1]))
    found = {"weight": integers, "step_size": grid.step, "weight_bits": np.int8(kind.bits)}
    return {k: np.asarray(v) for k, v in found.items()} | (
        {} if grid.offset is None else {"offset": grid.offset}
    )
