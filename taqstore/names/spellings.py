"""Every spelling of a layer or linear that is read or written, and the identity it stands for."""

from __future__ import annotations

import re

from taqstore.asked import nearest
from taqstore.errors import MissingError, problem
from taqstore.names.layers import (
    ADALN,
    EVERY_SITE,
    KINDS,
    MODEL_LAYERS,
    Block,
    LayerName,
)

_PARTS: dict[str, tuple[str, str]] = {
    **{f"{p}_proj": ("attn.qkv", f"{p}_proj") for p in "qkv"},
    **dict.fromkeys(("qkv", "qkv_in"), ("attn.qkv", "")),
    **dict.fromkeys(("o_proj", "oproj", "o_in"), ("attn.o_proj", "")),
    **dict.fromkeys(("fc1", "fc1_in"), ("mlp.fc1", "")),
    **dict.fromkeys(("fc2", "fc2_in"), ("mlp.fc2", "")),
    "linear": (ADALN, ""),
}
_STREAMS = {"img": "img", "image": "img", "txt": "txt", "text": "txt"}
_PATTERN = re.compile(
    r"(?P<kind>mm|uni|blocks)(?P<tracer>_?)(?P<index>\d{1,4})"
    r"(?:_(?P<stream>img|image|txt|text)(?:_transformer_block)?)?"
    r"(?:_(?P<section>attn|mlp|adaln)(?=_))?"
    rf"(?:_(?P<part>{'|'.join(_PARTS)}))?"
)
_MODEL = {
    f"{layer}{site and '_'}{site.replace('.', '_')}": LayerName(layer, "", site)
    for layer, sites in MODEL_LAYERS.items()
    for site in ("", *sites)
}

# One branch's tracer also saw what goes into the first linear of a block's MLP.
_BEFORE = "pre::"


def parse_layer(name: str) -> LayerName:
    """Resolve any known spelling of a layer or linear to its identity.

    `mm0.img.mlp.fc2`, `mm0_img_mlp_fc2`, `mm_00_img` (= fc2 input), `mm_00_img:fc2_in`,
    `mm_00_img_oproj`, `pre::mm_00_img` (= fc1 input), `mm0.image_transformer_block.mlp.fc2`,
    `blocks.0.image.mlp.fc2` all work, and so does a bare layer (`mm0.img`, `uni4`), whose `site` is
    empty. So do layers without a block: `x_embedder`, `final_layer.adaln.linear`.

    Raises
    ------
    MissingError
        The spelling is not known.
    """
    before, plain = name.startswith(_BEFORE), re.sub(r"[./:]", "_", name.removeprefix(_BEFORE))
    if not before and plain in _MODEL:
        return _MODEL[plain]
    match = _PATTERN.fullmatch(plain)
    if match is None or (before and (match["part"] or not match["tracer"])):
        raise _unknown(name)
    kind, part = match["kind"], match["part"]
    block = f"{'uni' if kind == 'uni' else 'mm'}{int(match['index'])}"
    stream = "uni" if kind == "uni" else _STREAMS.get(match["stream"] or "", "")
    if not stream or (kind == "uni" and match["stream"]):
        raise _unknown(name)
    site, projection = _PARTS[part] if part else ("", "")
    if not part and kind != "blocks" and match["tracer"]:
        # The Phase 2 tracer saw only post-GELU tensors and left the site unsaid.
        site = "mlp.fc1" if before else "mlp.fc2"
    if (match["section"] or "") not in ("", site.partition(".")[0]) or (
        site == ADALN and not match["section"]
    ):
        raise _unknown(name)
    return LayerName(block, stream, site, projection)


def _unknown(name: str) -> MissingError:
    near = nearest(name, _like(name))
    remedy = "write it like mm0.img.mlp.fc2, mm0.txt.attn.k_proj or uni4.attn.o_proj"
    if near:
        remedy = f"did you mean {near}? Else {remedy}"
    return MissingError(problem(f"layer name {name!r} is not known", remedy=remedy))


def _like(name: str) -> list[str]:
    """Names there could be of the block that a name speaks of, and of layers without a block."""
    number = re.search(r"\d{1,4}", name)
    blocks = [Block(kind, int(number[0])) for kind in KINDS] if number else []
    layers = [layer for block in blocks for layer in block.layers]
    linears = [
        LayerName(layer.block, layer.stream, site, projection).full
        for layer in layers
        for site, projection in (*_PARTS.values(), ("attn.qkv", ""))
    ]
    return [*(layer.layer for layer in layers), *linears, *(one.full for one in _MODEL.values())]


def array_key(name: str) -> str:
    """A layer's name as keys of npz files have it, `mm0_img_mlp_fc2`; it cannot be inverted."""
    return name.replace(".", "_")


# The tracer's first version saw only post-GELU tensors and left the site unsaid.
_TRACER_SUFFIXES = {
    "attn.qkv": ":qkv_in",
    "attn.o_proj": ":o_in",
    "mlp.fc1": ":fc1_in",
    "mlp.fc2": "",
}


def tracer_name(name: LayerName) -> str:
    """A linear input as the Phase 2 tracer writes it: `mm_00_img`, `uni_04:fc1_in`.

    The tracer knew sites of blocks alone: it is given no other.
    """
    block = Block.parse(name.block)
    stream = "" if block.unified else f"_{name.stream}"
    return f"{block.kind}_{block.index:02d}{stream}{_TRACER_SUFFIXES[name.site]}"


_HALVES = {"img": "image_transformer_block", "txt": "text_transformer_block"}


def path_in_block(name: LayerName) -> str:
    """Where DiffusionKit's block has a linear: ``image_transformer_block.attn.q_proj``."""
    section, part = name.site.split(".")
    inside = _ADALN if name.site == ADALN else f"{section}.{name.projection or part}"
    return f"{_HALVES.get(name.stream, 'transformer_block')}.{inside}"


_ADALN = "adaLN_modulation.layers.1"
# Layers without a block, as DiffusionKit has them, SD3 checkpoints and diffusers.
_MODEL_PATHS = {
    "x_embedder.embed.image": ("x_embedder.proj", "x_embedder.proj", "pos_embed.proj"),
    "context_embedder.embed.text": ("context_embedder",) * 3,
    **{
        f"{ours}_embedder.{site}.fc{n}": (
            f"{ours}_embedder.mlp.layers.{2 * n - 2}",
            f"{ours}_embedder.mlp.{2 * n - 2}",
            f"time_text_embed.{theirs}_embedder.linear_{n}",
        )
        for ours, site, theirs in (("y", "pooled", "text"), ("t", "time", "timestep"))
        for n in (1, 2)
    },
    "final_layer.final.linear": ("final_layer.linear", "final_layer.linear", "proj_out"),
    f"final_layer.{ADALN}": (
        f"final_layer.{_ADALN}",
        "final_layer.adaLN_modulation.1",
        "norm_out.linear",
    ),
}


def path_in_model(name: LayerName) -> str:
    """Where DiffusionKit's MMDiT has a linear: from the list of its blocks on, or in none.

    Raises
    ------
    MissingError
        It names a tensor that many linears read, and no linear.
    """
    if not name.in_block:
        if name.full not in _MODEL_PATHS:
            what = f"{name.full} is no linear"
            raise MissingError(problem(what, remedy="name one that reads it: mm0.img.adaln.linear"))
        return _MODEL_PATHS[name.full][0]
    block = Block.parse(name.block)
    kind = "unified" if block.unified else "multimodal"
    return f"{kind}_transformer_blocks.{block.index}.{path_in_block(name)}"


_DIFFUSERS = {
    **{f"attn.to_{p}": f"img.attn.{p}_proj" for p in "qkv"},
    **{f"attn.add_{p}_proj": f"txt.attn.{p}_proj" for p in "qkv"},
    "attn.to_out.0": "img.attn.o_proj",
    "attn.to_add_out": "txt.attn.o_proj",
    "ff.net.0.proj": "img.mlp.fc1",
    "ff.net.2": "img.mlp.fc2",
    "ff_context.net.0.proj": "txt.mlp.fc1",
    "ff_context.net.2": "txt.mlp.fc2",
    "norm1.linear": f"img.{ADALN}",
    "norm1_context.linear": f"txt.{ADALN}",
}
_CHECKPOINT = {
    f"{block}.{part}": f"{stream}.{ours}"
    for block, stream in (("x_block", "img"), ("context_block", "txt"))
    for part, ours in (
        ("attn.qkv", "attn.qkv"),
        ("attn.proj", "attn.o_proj"),
        ("mlp.fc1", "mlp.fc1"),
        ("mlp.fc2", "mlp.fc2"),
        ("adaLN_modulation.1", ADALN),
    )
}
_CHECKPOINT_PREFIX = "model.diffusion_model."


def checkpoint_tensor(name: LayerName) -> str:
    """The weight of a linear in an SD3 checkpoint, as stable-diffusion.cpp calls it too.

    ``model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight``: q, k and v are one.

    Raises
    ------
    MissingError
        Such checkpoints have no such block: a unified one.
    """
    if name.full in _MODEL_PATHS:
        return f"{_CHECKPOINT_PREFIX}{_MODEL_PATHS[name.full][1]}.weight"
    if not name.in_block:
        what = f"{name.full} is no linear"
        raise MissingError(problem(what, remedy="name one that reads it: mm0.img.adaln.linear"))
    block = Block.parse(name.block)
    parts = {ours: theirs for theirs, ours in _CHECKPOINT.items()}
    found = parts.get(f"{name.stream}.{name.site}")
    if block.unified or found is None:
        what = f"SD3 checkpoints have no weight of {name.full}"
        raise MissingError(problem(what, remedy="use taqstore's names, and rename them"))
    return f"{_CHECKPOINT_PREFIX}joint_blocks.{block.index}.{found}.weight"


def diffusers_module(name: LayerName) -> str:
    """Where diffusers' SD3 transformer has a linear: ``transformer_blocks.0.attn.to_q``.

    Raises
    ------
    MissingError
        It has none such.
    """
    if name.full in _MODEL_PATHS:
        return _MODEL_PATHS[name.full][2]
    parts = {ours: theirs for theirs, ours in _DIFFUSERS.items()}
    found = parts.get(name.full.partition(".")[2])
    if not name.in_block or Block.parse(name.block).unified or found is None:
        what = f"diffusers' transformer of SD3 has no {name.full}"
        raise MissingError(problem(what, remedy="name a linear of it: mm0.img.attn.q_proj"))
    return f"transformer_blocks.{Block.parse(name.block).index}.{found}"


_SPELLINGS = (
    (re.compile(r"(?:.*\.)?joint_blocks\.(\d{1,4})\.(.+)"), _CHECKPOINT),
    (re.compile(r"(?:transformer\.)?transformer_blocks\.(\d{1,4})\.(.+)"), _DIFFUSERS),
)
_ELSEWHERE = {theirs: ours for ours, all_ in _MODEL_PATHS.items() for theirs in all_}
_PREFIXES = (_CHECKPOINT_PREFIX, "transformer.")
_MLX = (
    (re.compile(r"(?:.*\.)?multimodal_transformer_blocks\.(\d{1,4})\."), r"mm\1."),
    (re.compile(r"(?:.*\.)?unified_transformer_blocks\.(\d{1,4})\.transformer_block\."), r"uni\1."),
)


def weight_layer(name: str) -> LayerName | None:
    """The linear input whose weights a name stands for, or None.

    Names may be those of a store, of SD3 checkpoints, of diffusers or of DiffusionKit.
    """
    if name.endswith(".bias"):
        return None
    stem = name.removesuffix(".weight")
    bare = next((stem[len(p) :] for p in _PREFIXES if stem.startswith(p)), stem)
    if bare in _ELSEWHERE:
        return parse_layer(_ELSEWHERE[bare])
    for pattern, parts in _SPELLINGS:
        match = pattern.fullmatch(stem)
        if match is not None:
            part = parts.get(match[2])
            return parse_layer(f"mm{match[1]}.{part}") if part else None
    for pattern, ours in _MLX:
        stem = pattern.sub(ours, stem)
    stem = stem.removesuffix(_ADALN) + ADALN if stem.endswith(f".{_ADALN}") else stem
    try:
        linear = parse_layer(stem)
    except MissingError:
        return None
    return linear if linear.site else None


SITE_SPELLINGS = {
    **{part: site for part, (site, _) in _PARTS.items() if part != "linear"},
    **{f"{site.partition('.')[0]}_{part}": site for part, (site, _) in _PARTS.items()},
    **{
        array_key(theirs): parse_layer(f"mm0.{ours}").site
        for theirs, ours in (*_DIFFUSERS.items(), *_CHECKPOINT.items())
    },
    **{array_key(site): site for site in EVERY_SITE},
}
"""What a site is called where it stands alone, dots written as underscores -> the site."""
