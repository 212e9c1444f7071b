"""A weight set of every linear of a loaded model, written as a quantizer would."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from taqstore.pipelines.models.inputs import Reader
from taqstore.pipelines.models.load import LoadedModel

from taqstore.kinds.weight_sets import width_sites
from taqstore.kinds.weights import weights_template
from taqstore.names import SITES, parse_layer
from taqstore.quantization.integer_grid import IntegerGrid, affine_grid
from taqstore.store.writer import create_store


def mlx_grid(reader: Reader) -> IntegerGrid:
    """What MLX's own quantizer has: 4 bits, groups of 64."""
    return affine_grid(reader.matrix(), bits=4, group_size=64)


def write_set(
    path: Path,
    model: LoadedModel,
    name: str,
    *,
    grid: Callable[[Reader], IntegerGrid] = mlx_grid,
    sites: Callable[[str], bool] = lambda site: True,
    left: Collection[str] = (),
    run: Mapping[str, Any] | None = None,
) -> None:
    """Every linear of the model at these sites, rounded to nearest on a grid of its own.

    Layers that are `left` have a place and no weights.
    """
    readers = [reader for one in model.inputs() for reader in one.readers if sites(one.site)]
    by_site: dict[str, dict[str, list[Reader]]] = {}
    for reader in sorted(readers, key=lambda reader: reader.name.sort_key):
        layers = by_site.setdefault(reader.name.site, {})
        layers.setdefault(reader.name.layer, []).append(reader)
    with create_store(path) as writer:
        for site, layers in by_site.items():
            shapes = {layer: found[0].shape for layer, found in layers.items()}
            for place, held in width_sites(shapes, site).items():
                made = {layer: [_rounded(x, grid(x)) for x in layers[layer]] for layer in held}
                first = made[held[0]][0]
                ordered = sorted(held, key=lambda layer: parse_layer(layer).sort_key)
                group = writer.group(
                    weights_template(
                        place,
                        set=name,
                        layers=ordered,
                        shape=shapes[held[0]],
                        groups=first["step_size"].shape[1],
                        offset="offset" in first,
                        rounding=False,
                        activations=False,
                        attrs={
                            "run": {
                                "method": "rtn",
                                "bits": int(first["weight_bits"]),
                                **(run or {}),
                            }
                        },
                    )
                )
                for at, layer in enumerate(ordered):
                    if layer in left:
                        continue
                    for variable in first:
                        parts = [one[variable] for one in made[layer]]
                        values = np.stack(parts) if site == SITES[0] else parts[0]
                        group.put(variable, (at, *(0,) * values.ndim), values[None])
                    group.commit([(at,)])


def _rounded(reader: Reader, grid: IntegerGrid) -> Mapping[str, np.ndarray]:
    integers, _ = grid.nearest(reader.matrix(), np.arange(reader.shape[1]))
    found = {
        "weight": integers,
        "step_size": grid.step,
        "weight_bits": np.array(grid.bits, np.int8),
    }
    return found if grid.offset is None else {**found, "offset": grid.offset}
