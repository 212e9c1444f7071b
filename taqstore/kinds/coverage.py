"""Which linears of a model the statistics of a store are of, and what share of its weights.

`collect` leaves in each group the linears that read its tensors, with their outputs, and how many
weights all linears of the model have: a store tells what it covers without the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taqstore.names import ACTIVATIONS, split_group
from taqstore.store.attributes import attribute_of

if TYPE_CHECKING:
    import xarray as xr

LINEARS = "linears"
MODEL_WEIGHTS = "model_weights"


@dataclass(frozen=True)
class Coverage:
    """Weights whose inputs were observed, and weights of all linears of the model."""

    observed: int
    total: int

    @property
    def percent(self) -> float:
        """Share of the weights whose inputs were observed."""
        return 100 * self.observed / self.total


def coverage_attrs(linears: Mapping[str, Mapping[str, int]], model_weights: int) -> dict[str, Any]:
    """Attributes of a group of statistics.

    Parameters
    ----------
    linears
        Layer -> full name of each linear that reads its tensor -> outputs.
    model_weights
        Weights of all linears of the model, biases and tables left out.
    """
    kept = {layer: dict(readers) for layer, readers in linears.items()}
    return {LINEARS: kept, MODEL_WEIGHTS: model_weights}


def readers_of(dataset: xr.Dataset, layer: str) -> tuple[str, ...]:
    """Full names of the linears that read a layer of a group; none where it does not say so."""
    return tuple(attribute_of(dataset, LINEARS, {}).get(layer, ()))


def coverage(groups: Mapping[str, xr.Dataset]) -> Coverage | None:
    """What activations of a store cover; None where they do not say of which linears they are.

    Groups without a complete batch cover nothing.
    """
    sites = [groups[path] for path in groups if split_group(path)[0] == ACTIVATIONS]
    told = [site for site in sites if MODEL_WEIGHTS in site.attrs]
    if not told or len(told) < len(sites):
        return None
    observed = sum(
        outputs * site.sizes["channel"]
        for site in told
        if site.sizes["batch"]
        for readers in attribute_of(site, LINEARS).values()
        for outputs in readers.values()
    )
    return Coverage(observed, int(told[0].attrs[MODEL_WEIGHTS]))
