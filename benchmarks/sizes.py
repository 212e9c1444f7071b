"""Stored size against the compressed npz files that the store replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .inputs import Inputs
from .measure import Ratio, files_under
from .rows import Row, Target

NPZ = "compressed npz"
AFTER, BEFORE = "store", "store without deduplication (computed)"
KINDS = {"latents": "latents", "statistics": "statistics", "blocks": "blocks-24"}
TARGETS = {
    ("latents", AFTER): Target(1.15, at_least=False),
    ("blocks", BEFORE): Target(1.15, at_least=False),
    ("blocks", AFTER): Target(0.6, at_least=False),
    ("statistics", AFTER): Target(0.8, at_least=False),
}


def size_rows(inputs: Inputs) -> list[Row]:
    """Bytes of all files of the store, metadata included, over those of the npz files alone."""
    rows = []
    for kind, source in KINDS.items():
        npz = sum(path.stat().st_size for path in inputs.source_files(source))
        stored = _bytes_under(inputs.store(source))
        found = {AFTER: stored}
        if kind == "blocks":
            found[BEFORE] = stored + _saved_blocks(inputs, source)
        elif kind == "statistics":
            found[BEFORE] = stored + _saved_statistics(inputs)
        rows += [_row(kind, name, size, npz) for name, size in found.items()]
    return rows


def _row(kind: str, name: str, size: int, npz: int) -> Row:
    share = size / npz
    target = TARGETS.get((kind, name))
    found = Ratio(share, share, share)
    question = f"stored size, {kind}"
    return Row(question, name, NPZ, found, target, size, npz, "B", inverse=True)


def _bytes_under(path: Path) -> int:
    return sum(file.stat().st_size for file in files_under(path))


def _saved_blocks(inputs: Inputs, source: str) -> int:
    """Members of the cache beyond those the store keeps, uncompressed as the store keeps them."""
    from taqstore import open_store

    total = sum(_member_bytes(path) for path in inputs.source_files(source))
    store = open_store(inputs.store(source), chunks=None)
    return total - sum(int(store[group].nbytes) for group in store)


def _member_bytes(path: Path) -> int:
    with np.load(path) as file:
        return sum(int(file[name].nbytes) for name in file.files)


def _saved_statistics(inputs: Inputs) -> int:
    """Twice the arrays of q, k and v where they are kept once."""
    from taqstore import open_store
    from taqstore.upkeep.info import describe_group

    store = open_store(inputs.store("statistics"), chunks=None)
    return sum(
        2 * int(variable["stored_bytes"])
        for group in store
        if group.endswith("/attn.qkv")
        for variable in _variables(describe_group(store, group))
    )


def _variables(description: dict[str, Any]) -> list[dict[str, Any]]:
    return [v for v in description["variables"] if "projection" not in v["dims"]]
