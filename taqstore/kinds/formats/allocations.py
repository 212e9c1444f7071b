"""Allocations: which format the weights of every linear have, as a JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taqstore.errors import MissingError, SourceError, problem
from taqstore.files.schema import validate
from taqstore.names import LayerName, parse_layer

SCHEMA, FORMAT = "allocation", "taqstore_allocation_v1"
_MOST_BYTES = 1 << 26


def read_allocation(path: Path) -> dict[LayerName, str]:
    """Format of each linear that a file names.

    Raises
    ------
    SourceError
        The file is no JSON, too large, or names a linear twice or one there cannot be.
    DocumentError
        It is no such document.
    """
    where = str(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SourceError(problem("too large for an allocation", where=where))
        document = json.loads(path.read_text("utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        remedy = "taqstore analyze frontier STORE --paste allocation prints one"
        what = "no allocation"
        raise SourceError(problem(what, where=where, found=str(error), remedy=remedy)) from error
    if not isinstance(document, dict):
        raise SourceError(problem("no JSON object", where=where))
    validate(SCHEMA, document, where=where)
    return _linears(document["linears"], where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two values none would be the one meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is there twice")
    return found


def _linears(formats: Mapping[str, str], where: str) -> dict[LayerName, str]:
    found: dict[LayerName, str] = {}
    for text, format in formats.items():
        try:
            name = parse_layer(text)
        except MissingError as error:
            raise SourceError(f"{where}: {error}") from error
        if not name.site or (name.site == "attn.qkv" and not name.projection):
            what = f"{text} is no linear"
            raise SourceError(problem(what, where=where, remedy="write it like mm0.img.mlp.fc2"))
        if name in found:
            raise SourceError(problem(f"{name.full} is there twice", where=where, found=text))
        found[name] = format
    return found
