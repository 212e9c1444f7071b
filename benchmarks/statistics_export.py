"""The whole quantization config, against the source analyser's way of writing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .inputs import Inputs
from .measure import Contender, Run
from .npz_folder import NpzFolder
from .question import Question
from .rows import Target

SOURCE = "source analyser"
COMPACT = "source analyser, indent=None"


def config_contenders(inputs: Inputs, *, outliers: bool) -> list[Contender]:
    """Config v4 of all steps and linears, as a file."""
    folder = NpzFolder(inputs.source("statistics"))
    target = inputs.folder / "exports"
    target.mkdir(parents=True, exist_ok=True)

    def ours() -> Run:
        from taqstore import open_store
        from taqstore.export.formats import export

        # As `taqstore export` does it, the store's opening included.
        store, out = inputs.store("statistics"), target / "ours.json"
        options: dict[str, Any] = {"outliers": True} if outliers else {}

        def run(call: int) -> Path:
            groups = open_store(store, chunks=None)
            return export("quant-config", groups, out, force=True, **options).path

        return run

    def source(indent: int | None) -> Run:
        out = target / f"theirs-{indent}.json"
        return lambda call: folder.quant_config(out, outliers=outliers, indent=indent)

    return [
        Contender("export", ours, ours=True, canonical=_document),
        Contender(SOURCE, lambda: source(2), canonical=_document),
        Contender(COMPACT, lambda: source(None), canonical=_document),
    ]


def _document(path: Path) -> Any:
    return json.loads(path.read_text())


def _files(inputs: Inputs) -> list[Path]:
    return [inputs.source("statistics"), inputs.store("statistics")]


STATISTICS_EXPORT = {
    "export": Question(
        "quant-config",
        lambda inputs: config_contenders(inputs, outliers=False),
        _files,
        {SOURCE: Target(5)},
        rounds=3,
    ),
    "export-outliers": Question(
        "quant-config with outliers",
        lambda inputs: config_contenders(inputs, outliers=True),
        _files,
        {SOURCE: Target(5)},
        rounds=3,
    ),
}
