"""Spellings of a site or a block by itself, without the rest of a layer's name."""

from __future__ import annotations

import re

from taqstore.errors import MissingError, problem
from taqstore.names.layers import EVERY_SITE, Block
from taqstore.names.spellings import SITE_SPELLINGS

# Layers of one width have a group of their own, called like mlp.fc2.c1280.
_WIDTH = re.compile(r"(.+)_([co]\d+)")
_LISTS = r"(?:joint_|(?:multimodal_)?transformer_)?blocks"
_BLOCKS = (
    (re.compile(r"(mm|uni)_?(\d{1,4})"), ""),
    (re.compile(rf"(model\.diffusion_model\.|transformer\.)?{_LISTS}[._](\d{{1,4}})"), "mm"),
    (re.compile(r"(unified)_transformer_blocks\.(\d{1,4})(?:\.transformer_block)?"), "uni"),
)


def parse_site(name: str) -> str:
    """Resolve a spelling of a site alone: `fc2`, `mlp_fc2`, `o_in`, `attn.k_proj`, `ff.net.2`.

    That of a width keeps it: `mlp_fc2_c1280` is `mlp.fc2.c1280`.

    Raises
    ------
    MissingError
        The spelling is not known.

    >>> parse_site("fc2_in"), parse_site("attn.to_q"), parse_site("embed_image")
    ('mlp.fc2', 'attn.qkv', 'embed.image')
    """
    plain = re.sub(r"[./:]", "_", name)
    stem, width = plain, ""
    if (
        plain not in SITE_SPELLINGS
        and (match := _WIDTH.search(plain))
        and match.end() == len(plain)
    ):
        stem, width = plain[: match.start()], f".{match[1]}"
    if stem not in SITE_SPELLINGS:
        remedy = f"there is {', '.join(EVERY_SITE)}"
        raise MissingError(problem(f"site {name!r} is not known", remedy=remedy))
    return SITE_SPELLINGS[stem] + width


def parse_block(name: str) -> str:
    """Resolve a spelling of a block alone: `mm_03`, `blocks.3`, `joint_blocks.3`, `uni4`.

    Raises
    ------
    MissingError
        The spelling is not known.

    >>> parse_block("mm_03"), parse_block("transformer_blocks.3"), parse_block("uni_04")
    ('mm3', 'mm3', 'uni4')
    """
    for pattern, kind in _BLOCKS:
        if match := pattern.fullmatch(name):
            return Block(kind or match[1], int(match[2])).name
    what, remedy = f"block {name!r} is not known", "write it like mm0 or uni4"
    raise MissingError(problem(what, remedy=remedy))
