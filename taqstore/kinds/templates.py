"""Templates of the groups that a running model fills: latents, residual streams, activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.layout.template import Array, Template, nbytes, rows_per_shard
from taqstore.names import ACTIVATIONS, BLOCKS, CHANNEL_HISTOGRAMS, LATENTS, PICTURES, parse_layer
from taqstore.statistics.histogram import Layout

Coords = dict[str, tuple[tuple[str, ...], NDArray[Any]]]

_PER_LAYER = ("batch", "step", "layer")
_LATENT = ("image", "step", "height", "width", "latent_channel")
_BLOCK = ("image", "step", "boundary", "row", "token", "channel")
NONFINITE_KINDS = 3


def latents_template(
    *,
    images: Sequence[int],
    prompts: Sequence[str],
    seeds: Sequence[int],
    cfg_weight: float,
    sigmas: NDArray[Any],
    timesteps: NDArray[Any],
    shape: tuple[int, int, int],
    attrs: Mapping[str, Any],
) -> Template:
    """Template of `latents`: an image is one shard, its steps are inner chunks.

    Parameters
    ----------
    images, prompts, seeds
        (image,) labels and what each image was made from.
    sigmas, timesteps
        (step + 1,), the final latent's last.
    shape
        Height, width and channels of a latent.
    """
    steps = len(sigmas)
    sizes = (len(images), steps, *shape)
    coords: Coords = {
        "image": (("image",), np.array(images, np.int64)),
        "prompt": (("image",), np.array(list(prompts), dtype=object)),
        "seed": (("image",), np.array(seeds, np.int64)),
        "cfg_weight": (("image",), np.full(len(images), cfg_weight, np.float64)),
        **_step_coords(np.arange(steps), sigmas, timesteps),
        "is_final": (("step",), np.arange(steps) == steps - 1),
    }
    return Template(
        path=LATENTS,
        kind=LATENTS,
        sizes=dict(zip(_LATENT, sizes, strict=True)),
        arrays=(Array("x", _LATENT, "float32", split="step"),),
        coords=coords,
        item_dims=("image",),
        attrs=attrs,
    )


def pictures_template(
    *, images: Sequence[int], shape: tuple[int, int, int], attrs: Mapping[str, Any]
) -> Template:
    """Template of `pictures`: uint8, an image is one compressed shard.

    Parameters
    ----------
    images
        (image,) ids.
    shape
        Height, width and colours (1 to 4) of every picture.
    """
    dims = ("image", "height", "width", "colour")
    return Template(
        path=PICTURES,
        kind=PICTURES,
        sizes=dict(zip(dims, (len(images), *shape), strict=True)),
        arrays=(Array("picture", dims, "uint8", compress=True),),
        coords={"image": (("image",), np.array(images, np.int64))},
        item_dims=("image",),
        attrs=attrs,
    )


def blocks_template(
    stream: str,
    *,
    images: Sequence[int],
    steps: ArrayLike,
    sigmas: ArrayLike,
    timesteps: NDArray[Any],
    boundaries: Sequence[int],
    shape: tuple[int, int, int],
    attrs: Mapping[str, Any],
    dtype: str = "float16",
) -> Template:
    """Template of `blocks/<stream>`: float16, an (image, step) is one shard of boundaries.

    Parameters
    ----------
    stream
        `img`, `txt` or `uni`.
    steps, sigmas, timesteps
        (step,) as of `activations_template`.
    boundaries
        Which are kept: i is the input of block i.
    shape
        Rows, tokens and channels of the stream.
    dtype
        What the model computed in, where the stream is kept as it is; bits of bfloat16 in uint16,
        as no array of numbers has it.
    """
    stored = "uint16" if dtype == "bfloat16" else dtype
    bits = {"bits_of": dtype} if stored != dtype else {}
    sizes = (len(images), np.size(steps), len(boundaries), *shape)
    coords: Coords = {
        "image": (("image",), np.array(images, np.int64)),
        **_step_coords(steps, sigmas, timesteps),
        "boundary": (("boundary",), np.array(boundaries, np.int64)),
        "dtype": (("boundary",), np.array([dtype] * len(boundaries), dtype=object)),
    }
    return Template(
        path=f"{BLOCKS}/{stream}",
        kind=BLOCKS,
        sizes=dict(zip(_BLOCK, sizes, strict=True)),
        arrays=(Array("x", _BLOCK, stored, split="boundary", attrs=bits),),
        coords=coords,
        item_dims=("image", "step"),
        attrs=attrs,
    )


def pooled_conditioning_template(
    *, images: Sequence[int], shape: tuple[int, int], dtype: str, attrs: Mapping[str, Any]
) -> Template:
    """Template of `blocks/pooled`: (row, channel) of each image, in the dtype the model saw."""
    dims = ("image", "row", "pooled_channel")
    return Template(
        path=f"{BLOCKS}/pooled",
        kind=BLOCKS,
        sizes=dict(zip(dims, (len(images), *shape), strict=True)),
        arrays=(Array("pooled_conditioning", dims, dtype),),
        coords={"image": (("image",), np.array(images, np.int64))},
        item_dims=("image",),
        attrs=attrs,
    )


def _step_coords(steps: ArrayLike, sigmas: ArrayLike, timesteps: NDArray[Any]) -> Coords:
    return {
        "step": (("step",), np.asarray(steps, np.int64)),
        "sigma": (("step",), np.asarray(sigmas, np.float32)),
        "timestep": (("step",), timesteps),
    }


def layer_coords(layers: Sequence[str]) -> Coords:
    """Coordinates `layer`, `block` and `stream` of these layers (`mm0.img`), in store order."""
    names = [parse_layer(layer) for layer in layers]
    return {
        "layer": (("layer",), np.array(list(layers), dtype=object)),
        "block": (("layer",), np.array([name.block for name in names], dtype=object)),
        "stream": (("layer",), np.array([name.stream for name in names], dtype=object)),
    }


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
    shard_bytes: int | None = None,
    attrs: Mapping[str, Any] | None = None,
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
    shard_bytes
        Split the steps of a batch into runs of about this size over all variables, so that a
        writer need not hold a whole batch. None: one run.
    """
    groups = np.asarray(images, np.int64)
    coords: Coords = {
        "batch": (("batch",), groups[:, 0]),
        "image": (("batch", "slot"), groups),
        **_step_coords(steps, sigmas, timesteps),
        **layer_coords(layers),
        "bin_left": (("bin",), layout.left),
        "bin_right": (("bin",), layout.right),
    }
    sizes = {name: len(coords[name][1]) for name in ("batch", "step", "layer")}
    sizes |= {"slot": groups.shape[1], "channel": channels, "bin": layout.bins}
    sizes["nonfinite_kind"] = NONFINITE_KINDS
    arrays = _arrays(layout, dtype)
    per_step = sum(nbytes(tuple(sizes[d] for d in a.dims[2:]), a.dtype) for a in arrays)
    run = rows_per_shard(per_step, sizes["step"], shard_bytes) if shard_bytes else None
    return Template(
        path=f"{ACTIVATIONS}/{site}",
        kind=ACTIVATIONS,
        sizes=sizes,
        arrays=arrays,
        coords=coords,
        item_dims=("batch",),
        shard={"step": run} if run else {},
        attrs=attrs or {},
    )


def channel_histograms_template(activations: Template, layout: Layout) -> Template:
    """Template of `channel_histograms/<site>`, for the batches, steps and layers of a site's group.

    A (batch, step, layer) is a shard of its own: 12 MB uncompressed with 6144 channels.
    """
    dims = (*_PER_LAYER, "channel", "bin")
    edges: Coords = {
        "bin_left": (("bin",), layout.left),
        "bin_right": (("bin",), layout.right),
    }
    array = Array("channel_histogram", dims, "uint32", compress=True, attrs=layout.attrs)
    return Template(
        path=activations.path.replace(ACTIVATIONS, CHANNEL_HISTOGRAMS, 1),
        kind=ACTIVATIONS,
        sizes={**activations.sizes, "bin": layout.bins},
        arrays=(array,),
        coords={**activations.coords, **edges},
        item_dims=("batch",),
        shard={"step": 1, "layer": 1},
        attrs=activations.attrs,
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
