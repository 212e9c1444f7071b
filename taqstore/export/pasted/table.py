"""What `taqstore analyze NAME STORE --paste WORD` prints: `PASTES` is the only list of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from taqstore.asked import word_of
from taqstore.faces import named


@dataclass(frozen=True)
class Paste:
    """One kind of text.

    Parameters
    ----------
    doc
        What it is, one line.
    function
        ``module:function`` of the groups of a store and the result of the analysis -> text.
    suffix
        Of a file of it.
    """

    doc: str
    function: str
    suffix: str


_HERE = "taqstore.export.pasted"
PASTES: dict[str, dict[str, Paste]] = {
    "frontier": {
        "allocation": Paste(
            "document that variants mixed run", f"{_HERE}.documents:allocation", ".json"
        ),
        "mlx": Paste(
            "class_predicate of mlx.nn.quantize, by DiffusionKit's names",
            f"{_HERE}.snippets:mlx",
            ".py",
        ),
        "modelopt": Paste(
            "quant_cfg of ModelOpt, by diffusers' names", f"{_HERE}.snippets:modelopt", ".py"
        ),
        "comfy": Paste(
            "layers to include and exclude, by names of checkpoints",
            f"{_HERE}.snippets:comfy",
            ".py",
        ),
        "quant-config": Paste(
            "config v4 of inputs, for variants /config", f"{_HERE}.documents:input_config", ".json"
        ),
    },
    "policy": {
        "policy": Paste(
            "diffusion_step_policy, as runtimes read it",
            f"{_HERE}.documents:step_policy",
            ".json",
        ),
        "quant-config": Paste(
            "config v4 of inputs by step, for variants /config",
            f"{_HERE}.documents:step_config",
            ".json",
        ),
    },
}
"""By the word of the analysis, then of the text; the first is what `-o FILE.json` writes."""


def pasted(
    analysis: str, word: str, groups: Mapping[str, xr.Dataset], results: Mapping[str, xr.Dataset]
) -> str:
    """The text of an answer.

    Parameters
    ----------
    analysis, word
        Keys of `PASTES`.
    groups
        The store that was asked.
    results
        What it answered, as of `query.analyze`.

    Raises
    ------
    MisuseError
        There is no such text, or the answer has not what it takes.
    MissingError
        The store has not what it takes.
    """
    row = PASTES[analysis][word_of(word, PASTES[analysis], "paste")]
    make: Any = named(row.function)
    text: str = make(groups, results[analysis])
    return text
