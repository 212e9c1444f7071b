"""What the name of a format of weights says: `mlx-w4-g64`, `rtn-w3`, `comfy`, a weight set.

Formats are what `taqstore evaluate --variant` rounds weights by; here is what can be told of them
without running anything: bits, groups, and the bytes of a packed linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.kinds.formats.packed_grid import Grid
from taqstore.kinds.weight_sets import set_groups, weight_sets
from taqstore.names import (
    ACTIVATIONS,
    SECOND_MOMENTS,
    LayerName,
    parse_layer,
    site_of,
    split_group,
    tensor_site,
)
from taqstore.quantization.comfy.codebook import GROUP
from taqstore.store.attributes import attribute_of

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]
FLOAT = "float"
FLOAT_BITS = 16
_BITS, _MLX_GROUP = 4, 64
_NAME = re.compile(
    r"(?P<how>rtn|clipped|mlx)(?:-w(?P<bits>[2-8]))?(?:-g(?P<size>[1-9]\d{0,5}))?"
    r"|(?P<comfy>comfy(?:-gptq)?)"
)


def named_grid(format: str) -> Grid | None:
    """Bits and groups that a name says, 4 bits and the format's own groups where it does not.

    None for a weight set, whose linears say it themselves, and for `float`.

    >>> named_grid("mlx-w3"), named_grid("gptq")
    (Grid(bits=3, group_size=64, float8=False), None)
    """
    match = _NAME.fullmatch(format)
    if match is None:
        return None
    if match["comfy"]:
        return Grid(_BITS, GROUP, float8=True)
    size = int(match["size"]) if match["size"] else None
    return Grid(
        int(match["bits"] or _BITS), _MLX_GROUP if match["how"] == "mlx" and not size else size
    )


def grid_of(groups: Groups, format: str, name: LayerName) -> Grid:
    """Bits and groups of one linear in a format.

    Raises
    ------
    MissingError
        It is a weight set that the store does not have, or that lacks the linear.
    """
    found = named_grid(format)
    if found is not None:
        return found
    for layers, grid, _ in _linears_of_set(groups, format, name):
        if name.layer in layers:
            return grid
    what = f"{format} is no format, and no weight set of the store with {name.full}"
    raise MissingError(problem(what, remedy=meant(format, weight_sets(groups))))


def _linears_of_set(
    groups: Groups, set_name: str, name: LayerName
) -> Iterator[tuple[set[str], Grid, int]]:
    """Layers of a set at the site of a linear, the grid of this one, and its inputs."""
    if set_name not in weight_sets(groups):
        return
    for site, dataset in set_groups(groups, set_name).items():
        layers = {str(layer) for layer in dataset["layer"].values}
        if tensor_site(site) != name.site or name.layer not in layers:
            continue
        into, count = dataset.sizes["in"], dataset.sizes["group"]
        bits = int(attribute_of(dataset, "run", {}).get("bits", 0) or 0)
        if "weight_bits" in dataset:
            own = dataset["weight_bits"].sel(layer=name.layer)
            own = own.sel(projection=name.projection) if "projection" in own.dims else own
            bits = int(own) or bits
        yield layers, Grid(bits, None if count == 1 else into // count), into


def inputs_of(groups: Groups, name: LayerName) -> int | None:
    """Inputs of a linear, as observations or a weight set have them; None where none does."""
    read = name.input
    for path in groups:
        if split_group(path)[0] not in (ACTIVATIONS, SECOND_MOMENTS):
            continue
        if tensor_site(site_of(path)) == read.site:
            dataset = groups[path]
            if read.layer in dataset["layer"].values:
                return int(dataset.attrs.get("channels") or dataset.sizes["channel"])
    for known in weight_sets(groups):
        for *_, into in _linears_of_set(groups, known, name):
            return into
    return None


@dataclass(frozen=True)
class Sizes:
    """Bits of whole linears in each format.

    Parameters
    ----------
    groups
        Of the store.
    weights
        Number of weights of each linear, by its full name.
    """

    groups: Groups
    weights: Mapping[str, int]
    _inputs: dict[str, int | None] = field(default_factory=dict)

    def bits(self, target: str, format: str) -> tuple[int, bool]:
        """Bits of a packed linear, and whether scales and biases are all counted.

        They are not where one step serves a whole output, and nothing says how many inputs it has.
        """
        count = self.weights[target]
        if format == FLOAT:
            return count * FLOAT_BITS, True
        name = parse_layer(target)
        grid = grid_of(self.groups, format, name)
        if target not in self._inputs:
            self._inputs[target] = inputs_of(self.groups, name)
        into = self._inputs[target]
        if into is not None and count % into == 0:
            return 8 * grid.packed_bytes((count // into, into)), True
        if grid.group_size is None or grid.float8:
            return count * grid.bits, False
        return 8 * grid.packed_bytes((count // grid.group_size, grid.group_size)), True
