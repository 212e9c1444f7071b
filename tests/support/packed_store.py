"""Weight sets of a whole model, rounded to nearest: any site, width and grid."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from taqstore.pipelines.models.load import LoadedModel

from support import set_of_model
from taqstore.quantization.integer_grid import IntegerGrid, affine_grid, symmetric_grid


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
    set_of_model.write_set(
        path,
        model,
        name,
        grid=lambda reader: kinds[reader.name.site].grid(reader.matrix()),
        sites=kinds.__contains__,
        left=left,
        run={"model": model.row.name, "weights": model.digest, **run},
    )
    return path
