"""Groups of a weight set that GPTQ fills: made for all linears of a site, filled layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.errors import TaqError
from taqstore.kinds.weight_sets import width_sites
from taqstore.kinds.weights import weights_template
from taqstore.layout.template import Template
from taqstore.names import PROJECTIONS
from taqstore.quantization.gptq import Gptq
from taqstore.quantization.integer_grid import IntegerGrid
from taqstore.quantization.weight_grid import weight_groups
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter

from ..models.inputs import Input, Reader
from ..run.groups import RUN
from .settings import GptqSettings


@dataclass(frozen=True)
class Place:
    """One item: the linears of a layer that read one input.

    Parameters
    ----------
    path
        Its group.
    number
        Its place there.
    given
        What the linears read.
    readers
        The linears: q, k and v, or one.
    """

    path: str
    number: int
    given: Input
    readers: tuple[Reader, ...]


@dataclass(frozen=True)
class Rounded:
    """One linear, rounded."""

    grid: IntegerGrid
    result: Gptq


def site_templates(
    inputs: Iterable[Input],
    settings: GptqSettings,
    runs: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
) -> dict[str, tuple[Template, list[Place]]]:
    """Groups of a set by path, with the items of each, in store order.

    Parameters
    ----------
    inputs
        All that are to be rounded.
    runs
        Attribute `run` of each site's groups.
    name
        Of the set.

    Raises
    ------
    TaqError
        Groups of inputs do not divide those of a site.
    """
    by_site: dict[str, dict[str, tuple[Input, list[Reader]]]] = {}
    for given in inputs:
        layers = by_site.setdefault(given.site, {})
        for reader in given.readers:
            layers.setdefault(reader.name.layer, (given, []))[1].append(reader)
    found = {}
    for site, layers in by_site.items():
        shapes = {layer: readers[0].shape for layer, (_, readers) in layers.items()}
        for wide, chosen in width_sites(shapes, site).items():
            template = _template(wide, settings, shapes[chosen[0]], chosen, runs[site], name)
            places = [
                Place(template.path, number, layers[layer][0], tuple(layers[layer][1]))
                for number, layer in enumerate(chosen)
            ]
            found[template.path] = (template, places)
    return found


def _template(
    site: str,
    settings: GptqSettings,
    shape: tuple[int, int],
    layers: Sequence[str],
    run: Mapping[str, Any],
    name: str,
) -> Template:
    try:
        groups = weight_groups(shape[1], settings.group_size)
    except TaqError as error:
        raise TaqError(f"{site}: {error}") from None
    return weights_template(
        site,
        set=name,
        layers=layers,
        shape=shape,
        groups=groups,
        offset=settings.grid == "affine",
        rounding=False,
        activations=False,
        errors=True,
        attrs={RUN: run},
    )


def by_input(places: Iterable[Place]) -> Iterator[tuple[Input, list[Place]]]:
    """Items that share an input, in the order in which the first of each comes."""
    found: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        found.setdefault((place.given.site, place.given.layer), []).append(place)
    for shared in found.values():
        yield shared[0].given, shared


def put_layer(
    group: GroupWriter, place: Place, found: Sequence[Rounded], *, block_size: int, outcome: Outcome
) -> None:
    """Write the linears of a layer, then flag it."""
    arrays = {
        "weight": np.stack([one.result.codes for one in found]),
        "step_size": np.stack([one.grid.step for one in found]),
        "weight_bits": np.array([one.grid.bits for one in found], np.int8),
        "linear_error": np.array([one.result.output_error.sum() for one in found]),
        "nearest_error": np.array([one.result.nearest_error.sum() for one in found]),
    }
    offsets = [one.grid.offset for one in found if one.grid.offset is not None]
    if offsets:
        arrays["offset"] = np.stack(offsets)
    if len(found) < len(PROJECTIONS):
        arrays = {name: values[0] for name, values in arrays.items()}
    arrays["moment_block"] = np.array(block_size, np.int32)
    size = sum(
        group.put(name, (place.number, *(0,) * values.ndim), values[None])
        for name, values in arrays.items()
    )
    group.commit([(place.number,)])
    outcome.wrote(place.path, size=size)
