"""A question that can be asked over HTTP, and the kinds of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from taqstore.analysis.shared.option import Option
from taqstore.faces import named

if TYPE_CHECKING:
    import pandas as pd

API = "/api"
"""Where endpoints are."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint below `/api`. Routes, refusals and the OpenAPI document are made from it.

    Parameters
    ----------
    path
        ``/stores/{store}/map``; what stands in braces is handed to the function by its name,
        ``{group:path}`` may have slashes in it.
    doc
        What it tells, one line.
    function
        ``module:function``, called ``f(service, **path, **options)``: the options as `settle`
        leaves them, those that were not given and have no default left out.
    answers
        `document`: a dict that becomes JSON. `tables`: `Tables`, which become JSON, CSV, Parquet
        or Arrow by Accept or by the suffix of the address. `file`: a `File`.
    options
        What may be asked for, as of the analyses.
    bundles
        As of `analysis.shared.row.Analysis`.
    fixed
        Handed to the function besides, the same for every request.
    raw
        Whether the function is handed values as they were given: without defaults, not bundled.
    """

    path: str
    doc: str
    function: str
    answers: Literal["document", "tables", "file"] = "document"
    options: tuple[Option, ...] = ()
    bundles: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    raw: bool = False

    def load(self) -> Any:
        """The function."""
        return named(self.function)


@dataclass(frozen=True)
class Tables:
    """Tidy tables.

    Parameters
    ----------
    notes
        What the command line would print on stderr.
    cli, python
        What gives the same numbers.
    apart
        Why they are no one table, where formats that hold one refuse them by that; empty: CSV may
        hold several.
    """

    tables: list[pd.DataFrame]
    notes: tuple[str, ...] = ()
    cli: str = ""
    python: str = ""
    apart: str = ""


@dataclass(frozen=True)
class File:
    """A file to download, or a picture to show.

    Parameters
    ----------
    content
        Bytes, or where a file lies that is removed once it was sent.
    media_type
        As in HTTP.
    name
        What a browser saves it as; empty: it is shown.
    headers
        Further ones, such as a policy of the page's own.
    cli
        What writes the same file.
    notes
        What the command line would print on stderr.
    """

    content: bytes | Path
    media_type: str
    name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cli: str = ""
    notes: tuple[str, ...] = ()
