"""Templates of groups that more than one writer makes: observed activations of one site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.histogram import Layout
from taqstore.names import ACTIVATIONS, parse_layer
from taqstore.template import Array, Template

_PER_LAYER = ("batch", "step", "layer")
NONFINITE_KINDS = 3


def activations_template(
    site: str,
    *,
    layers: Sequence[str],
    channels: int,
    steps: ArrayLike,
    sigmas: ArrayLike,
    timesteps: NDArray[Any],
    images: ArrayLike,
    layout: Layout,
    dtype: str = "float16",
) -> Template:
    """Template of `activations/<site>`: a batch owns whole shards, inner chunks are single layers.

    Parameters
    ----------
    site
        Such as `mlp.fc2`; all its layers have `channels` channels.
    layers
        Layer names (`mm0.img`) in store order.
    steps, sigmas, timesteps
        (step,): integer indices, float32 noise levels, and timesteps in the dtype the model saw.
    images
        (batch, slot) image ids, -1 where a batch is smaller. A batch is labelled by its first
        image, so that a resumed or longer run finds its batches again.
    layout
        Bins of the histogram.
    dtype
        Of extrema: the activation's own, `float16` or `float32`.
    """
    groups = np.asarray(images, np.int64)
    names = [parse_layer(layer) for layer in layers]
    coords: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        "batch": (("batch",), groups[:, 0]),
        "image": (("batch", "slot"), groups),
        "step": (("step",), np.asarray(steps, np.int64)),
        "sigma": (("step",), np.asarray(sigmas, np.float32)),
        "timestep": (("step",), timesteps),
        "layer": (("layer",), np.array(list(layers), dtype=object)),
        "block": (("layer",), np.array([name.block for name in names], dtype=object)),
        "stream": (("layer",), np.array([name.stream for name in names], dtype=object)),
        "bin_left": (("bin",), layout.left),
        "bin_right": (("bin",), layout.right),
    }
    sizes = {name: len(coords[name][1]) for name in ("batch", "step", "layer")}
    sizes |= {"slot": groups.shape[1], "channel": channels, "bin": layout.bins}
    return Template(
        path=f"{ACTIVATIONS}/{site}",
        kind=ACTIVATIONS,
        sizes={**sizes, "nonfinite_kind": NONFINITE_KINDS},
        arrays=_arrays(layout, dtype),
        coords=coords,
        item_dims=("batch",),
    )


def _arrays(layout: Layout, dtype: str) -> tuple[Array, ...]:
    per_channel = (*_PER_LAYER, "channel")
    floats = {"min": dtype, "max": dtype, "mean": "float32", "m2": "float32"}
    return (
        *(Array(name, per_channel, kind, split="layer") for name, kind in floats.items()),
        Array("count", _PER_LAYER, "int64"),
        Array("tensor_min", _PER_LAYER, dtype),
        Array("tensor_max", _PER_LAYER, dtype),
        Array(
            "histogram",
            (*_PER_LAYER, "bin"),
            "uint32",
            split="layer",
            compress=True,
            attrs=layout.attrs,
        ),
        Array("nonfinite", (*_PER_LAYER, "nonfinite_kind"), "uint64"),
    )
