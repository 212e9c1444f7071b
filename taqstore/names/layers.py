"""Blocks, sites and layers of a model, under the names that a store has for them.

A *layer* is one stream of one block (`mm0.img`, `uni4`); a *site* is which tensor of it was seen
(`attn.qkv`, `attn.o_proj`, `mlp.fc1`, `mlp.fc2`: inputs of linears). q, k and v read one tensor, so
they share the site `attn.qkv` and are told apart by `projection`.

What a model has but once is a layer without a block, called like its module (`x_embedder`), with
sites of its own (`MODEL_SITES`). All adaLN linears read one tensor, the layer `modulation`; each of
them is named by where it is (`mm0.img.adaln.linear`, `final_layer.adaln.linear`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from taqstore.errors import TaqError, problem

SITES = ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2")
"""Sites of blocks."""
ADALN = "adaln.linear"
MODEL_SITES = (
    *(ADALN, "embed.image", "embed.text", "pooled.fc1", "pooled.fc2"),
    *("time.fc1", "time.fc2", "final.linear"),
)
"""Sites of layers without a block, and of the tensor that every adaLN linear reads."""
EVERY_SITE = (*SITES, *MODEL_SITES)
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
STREAMS = ("img", "txt", "uni")

# Kinds of blocks in the order they run, and the streams of each in the order of its arguments.
KINDS = {"mm": ("img", "txt"), "uni": ("uni",)}
# The tensor that adaLN linears read; a layer of its own, and no linear is called so.
MODULATION = "modulation"
# Layers without a block in the order they run, and the sites of each.
MODEL_LAYERS = {
    "x_embedder": ("embed.image",),
    "context_embedder": ("embed.text",),
    "y_embedder": ("pooled.fc1", "pooled.fc2"),
    "t_embedder": ("time.fc1", "time.fc2"),
    MODULATION: (ADALN,),
    "final_layer": ("final.linear", ADALN),
}
_BLOCK = re.compile(rf"({'|'.join(KINDS)})(0|[1-9]\d{{0,3}})")


@dataclass(frozen=True)
class Block:
    """One transformer block: `mm3`, where image and text are two streams, or `uni4`, where one.

    Parameters
    ----------
    kind
        `mm` or `uni`.
    index
        Its number among blocks of its kind, and the boundary of its streams that it is given.
    """

    kind: str
    index: int

    @classmethod
    def parse(cls, name: str) -> Block:
        """The block called `name`.

        Raises
        ------
        TaqError
            It is not the name of a block.
        """
        match = _BLOCK.fullmatch(name)
        if match is None:
            what, remedy = f"block {name!r} is not known", "write it like mm0 or uni4"
            raise TaqError(problem(what, remedy=remedy))
        return cls(match[1], int(match[2]))

    @property
    def name(self) -> str:
        """What stores and options call it."""
        return f"{self.kind}{self.index}"

    @property
    def order(self) -> tuple[int, int]:
        """Sort key: the order in which blocks run."""
        return list(KINDS).index(self.kind), self.index

    @property
    def unified(self) -> bool:
        """Whether image and text are one stream in it."""
        return self.kind == "uni"

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams it is given, in the order of its arguments."""
        return KINDS[self.kind]

    @property
    def layers(self) -> tuple[LayerName, ...]:
        """Its streams as layers."""
        return tuple(LayerName(self.name, stream) for stream in self.streams)

    def input_key(self, stream: str) -> str:
        """Name of the input of a stream in a file of cached blocks: `mm3__arg1`."""
        return f"{self.name}__arg{self.streams.index(stream)}"

    def output_key(self, stream: str) -> str:
        """Name of the output of a stream in a file of cached blocks: `mm3__out1`."""
        return f"{self.name}__out{self.streams.index(stream)}"

    @property
    def timestep_key(self) -> str:
        """Name of the timestep in a file of cached blocks, the argument after the streams."""
        return f"{self.name}__arg{len(self.streams)}"


def is_block_key(key: str) -> bool:
    """Whether a key of a file is an input or output of a block: `mm3__arg1`."""
    name, _, slot = key.partition("__")
    return _BLOCK.fullmatch(name) is not None and slot.startswith(("arg", "out"))


def model_blocks(multimodal: int, unified: int = 0) -> tuple[Block, ...]:
    """Blocks of a model in the order they run, from the number of each kind."""
    counts = zip(KINDS, (multimodal, unified), strict=True)
    return tuple(Block(kind, index) for kind, count in counts for index in range(count))


def block_number(text: str) -> str:
    """A block's name, or already its number, as the number of its boundary: `mm3` is `3`."""
    return text[len(match[1]) :] if (match := _BLOCK.fullmatch(text)) else text


@dataclass(frozen=True, order=True)
class LayerName:
    """Identity of one linear or its input (or of a whole layer where `site` is empty).

    A layer without a block has its own name for `block`, and no `stream`.
    """

    block: str
    stream: str
    site: str = ""
    projection: str = ""

    @property
    def layer(self) -> str:
        """Coordinate value of the `layer` dimension: `mm0.img`, `uni4`, `x_embedder`."""
        return self.block if self.stream in ("uni", "") else f"{self.block}.{self.stream}"

    @property
    def in_block(self) -> bool:
        """Whether it is part of a block."""
        return self.block not in MODEL_LAYERS

    @property
    def input(self) -> LayerName:
        """The tensor that it reads: `mm0.img.attn.qkv` of q, `modulation` of an adaLN linear."""
        if self.site == ADALN:
            return LayerName(MODULATION, "", ADALN)
        return LayerName(self.block, self.stream, self.site)

    @property
    def full(self) -> str:
        """Canonical full name: `mm0.img.mlp.fc2`, `mm0.img.attn.k_proj`, `mm0.img.attn.qkv`."""
        if not self.site:
            return self.layer
        section, part = self.site.split(".")
        return f"{self.layer}.{section}.{self.projection or part}"

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """Order of layers in a store: multimodal before unified, by block, img before txt.

        Layers without a block come after all blocks, in the order they run.
        """
        if not self.in_block:
            return len(KINDS), list(MODEL_LAYERS).index(self.block), 0
        return *Block.parse(self.block).order, STREAMS.index(self.stream)


def linear_names(layer: LayerName) -> tuple[str, ...]:
    """Full names of the linears that read this tensor: three for `attn.qkv`, one otherwise.

    Which linears read `modulation` depends on the model; its own name stands for them.
    """
    if layer.site != "attn.qkv" or layer.projection:
        return (layer.full,)
    return tuple(LayerName(layer.block, layer.stream, layer.site, p).full for p in PROJECTIONS)


def tensor_site(site: str) -> str:
    """Site that a group is of: `mlp.fc2.c1280` holds the layers of `mlp.fc2` of one width."""
    return ".".join(site.split(".")[:2])


def site_rank(site: str) -> int:
    """Place of a site: those of blocks in their order, then `MODEL_SITES`; unknown ones last."""
    known, every = tensor_site(site), EVERY_SITE
    return every.index(known) if known in every else len(every)
