"""Formats of answers: which one a client asked for, and tables written in it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from taqstore.errors import TaqError, problem
from taqstore.serve.http.endpoint import Tables
from taqstore.serve.http.problems import NotAcceptableError, TooLargeError

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 64 << 20
"""Of an answer that is text or a table."""


@dataclass(frozen=True)
class Form:
    """A format of tables.

    Parameters
    ----------
    word
        Suffix of the address, without the dot.
    media_type
        As in HTTP.
    write
        Makes it.
    also
        Other media types that mean it.
    needs
        Module that must be installed.
    """

    word: str
    media_type: str
    write: Callable[[Tables], bytes]
    also: tuple[str, ...] = ()
    needs: str = ""

    @property
    def is_there(self) -> bool:
        """Whether it can be made here."""
        return not self.needs or find_spec(self.needs) is not None


class _Bounded(io.StringIO):
    """Text that is refused where it grows too long."""

    def __init__(self) -> None:
        super().__init__(newline="")
        self._length = 0

    def write(self, text: str, /) -> int:
        self._length += len(text)
        check_bytes(self._length)
        return super().write(text)


def check_bytes(length: int) -> None:
    """Refuse an answer of so many bytes, by a TooLargeError, where it is too large."""
    if length > MOST_BYTES:
        what = f"the answer is larger than {MOST_BYTES >> 20} MiB"
        remedy = "narrow it with site, layer or step, or read it by /zarr or on the command line"
        raise TooLargeError(problem(what, remedy=remedy))


def _json(tables: Tables) -> bytes:
    import json

    from taqstore.files.tables import write_json

    text = _Bounded()
    write_json(tables.tables, text)
    about = {"notes": list(tables.notes), "cli": tables.cli, "python": tables.python}
    document = text.getvalue().rstrip().removesuffix("}")
    return f"{document},\n{json.dumps(about)[1:]}\n".encode()


def _csv(tables: Tables) -> bytes:
    from taqstore.files.tables import write_csv

    if tables.apart:
        raise TaqError(tables.apart)
    text = _Bounded()
    for number, table in enumerate(tables.tables):
        text.write("\n" if number else "")
        write_csv(table, text)
    return text.getvalue().encode()


def _one(tables: Tables, word: str) -> pd.DataFrame:
    if tables.apart:
        raise TaqError(tables.apart)
    if len(tables.tables) != 1:
        found = "; ".join(" x ".join(table.attrs["dims"]) for table in tables.tables)
        what = f".{word} holds one table, this answer has {len(tables.tables)}"
        raise TaqError(problem(what, found=found, remedy="use .json or .csv, or choose a site"))
    return tables.tables[0]


def _parquet(tables: Tables) -> bytes:
    held = io.BytesIO()
    _one(tables, "parquet").to_parquet(held, engine="pyarrow", index=False)
    return held.getvalue()


def _arrow(tables: Tables) -> bytes:
    import pyarrow as pa

    table = pa.Table.from_pandas(_one(tables, "arrow"), preserve_index=False)
    held = io.BytesIO()
    with pa.ipc.new_file(held, table.schema) as writer:
        writer.write_table(table)
    return held.getvalue()


JSON = Form("json", "application/json", _json)
FORMS: tuple[Form, ...] = (
    JSON,
    Form("csv", "text/csv", _csv),
    Form(
        "parquet",
        "application/vnd.apache.parquet",
        _parquet,
        ("application/x-parquet", "application/parquet"),
        "pyarrow",
    ),
    Form(
        "arrow",
        "application/vnd.apache.arrow.file",
        _arrow,
        ("application/x-arrow", "application/arrow"),
        "pyarrow",
    ),
)
"""Of tables; the first is what is given where nothing is asked for."""


def chosen(accept: str, suffix: str, offered: Sequence[Form] = FORMS) -> Form:
    """The format that a client asked for, by the suffix or else by `Accept`.

    Raises
    ------
    NotAcceptableError
        It takes none of those offered, or what makes the format is not installed.
    """
    words = ", ".join(form.media_type for form in offered)
    if suffix:
        form = next(form for form in FORMS if form.word == suffix)
    else:
        found = _accepted(accept, offered)
        if found is None:
            what = f"no answer is of the media types {accept!r}"
            raise NotAcceptableError(problem(what, remedy=f"there is {words}"))
        form = found
    if not form.is_there:
        what = f".{form.word} needs {form.needs}, which is not installed where this is served"
        remedy = "ask for .csv or .json, or pip install 'taqstore[files]' there"
        raise NotAcceptableError(problem(what, remedy=remedy))
    return form


def _accepted(accept: str, offered: Sequence[Form]) -> Form | None:
    """The form that a client likes best: of those it likes alike, the first."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    if not ranges:
        return offered[0]
    likes = [(max(_like(kind, ranges) for kind in (f.media_type, *f.also)), f) for f in offered]
    best = max(like for like, _ in likes)
    return next((form for like, form in likes if like == best and best > 0), None)


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().casefold() for piece in part.split(";"))
    quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return kind, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return kind, 1.0


def _like(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """How much a media type is liked: by the range that speaks of it most closely."""
    for wanted in (kind, re.sub("/.*", "/*", kind), "*/*"):
        told = [quality for name, quality in ranges if name == wanted]
        if told:
            return max(told)
    return 0.0
