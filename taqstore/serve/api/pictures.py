"""`taqstore plot` over HTTP: an endpoint for every row of `FIGURES`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.errors import MissingError, problem
from taqstore.plot.figures import FIGURES, FORMATS, FigureKind
from taqstore.plot.options import OPTIONS
from taqstore.serve.http.endpoint import Endpoint, File, Tables
from taqstore.serve.http.problems import TooLargeError
from taqstore.serve.served.drawing import drawing
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened, python_call

if TYPE_CHECKING:
    from taqstore.plot.parts.panels import Page

TYPES = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf",
         "csv": "text/csv", "zip": "application/zip"}  # fmt: skip
MOST_PAGES = 40
"""Pages that are drawn for one answer."""
_DPI = 120
LAYERS = Option("layers", "Layer glob or name. Repeatable.", "word", (), many=True, flag="layer")
GROUP = Option("group", "Group to draw [default: all sites that can show it].", str)
_OTHER = Option("other", "Name of the second store, of those that are served.", str)
_SHOWN = (LAYERS, GROUP, _OTHER.but(flag="against"), Option("formats", "", str, flag="format"))
_PAGE = Option("page", "Which of its pages: a number from 0, or a name.", str, "0")


def endpoints() -> list[Endpoint]:
    """Pictures of each figure; of the one that is a table, the table."""
    return [_endpoint(word, row) for word, row in FIGURES.items()]


def _endpoint(word: str, row: FigureKind) -> Endpoint:
    own = [option for option in OPTIONS if option.name in row.options]
    other = [_OTHER] if "other" in row.options else []
    where = [] if row.made == "store" else [LAYERS, GROUP]
    doc, fixed = f"{row.doc[0].upper()}{row.doc[1:]}.", {"figure": word}
    if row.made == "table":
        return Endpoint(f"/stores/{{store}}/plot/{word}", doc, f"{__name__}:table", "tables",
                        (*where, *own), fixed=fixed, raw=True)  # fmt: skip
    return Endpoint(f"/stores/{{store}}/plot/{word}.{{format}}", doc, f"{__name__}:picture", "file",
                    (*where, *own, *other, _PAGE), fixed=fixed, raw=True)  # fmt: skip


def picture(
    service: Service, *, store: str, figure: str, format: str, page: str = "0", **given: Any
) -> File:
    """A page of a figure as a picture, or all of them in a zip; ``.csv`` is the page's numbers.

    Raises
    ------
    TaqError
        As of `plot.draw.pages`; there is no such page; or pages are too many for a zip.
    """
    if format not in (known := (*FORMATS, "csv", "zip")):
        remedy = f"there is .{', .'.join(known)}"
        raise MissingError(problem(f"no picture .{format}", remedy=remedy))
    key = "picture", figure, format, page, *sorted(given.items())
    if other := given.get("other"):
        key = (*key, service.version(other))
    draw = partial(_made, service, store, figure, format, page, given)
    content, stem = service.kept(store, key, draw)
    said = {**given, "formats": format if format in FORMATS else None}
    if other:
        said["other"] = service.address(other)
    line = command_line(f"plot {figure}", service.address(store), rows=(*_SHOWN, *OPTIONS),
                        values=said, after=["-o", "plots"])  # fmt: skip
    name, headers = (f"{figure}.zip", {}) if format == "zip" else ("", {"Taqstore-Page": stem})
    return File(content, TYPES[format], name, headers=headers, cli=line)


def _made(
    service: Service, store: str, figure: str, format: str, page: str, given: dict[str, Any]
) -> tuple[bytes, str]:
    """The picture, and which page it is."""
    from taqstore.plot.draw import pages

    asked = _asked(given)
    if "other" in asked:
        asked["other"] = service.store(asked["other"])
    with drawing():
        made = pages(figure, service.store(store), **asked)
        if format == "zip":
            return _zipped(made), ""
        number, found = _page(made, page)
        return _drawn(found, format), f"{number} {found.stem}"


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "layers": given.get("layers") or None}


def _page(made: Iterator[Page], asked: str) -> tuple[int, Page]:
    stems = []
    for number, page in _first(made):
        if asked in (str(number), page.stem):
            return number, page
        stems.append(page.stem)
    what = f"no page {asked!r}"
    raise MissingError(problem(what, remedy=f"there is {len(stems)}: {', '.join(stems[:8])}"))


def _first(made: Iterator[Page]) -> Iterator[tuple[int, Page]]:
    """Pages with their numbers; too many are refused: each takes some tenths of a second."""
    for number, page in enumerate(made):
        if number >= MOST_PAGES:
            what = f"more than {MOST_PAGES} pages"
            raise TooLargeError(problem(what, remedy="name a layer or a group"))
        yield number, page


def _drawn(page: Page, format: str) -> bytes:
    if format == "csv":
        from taqstore.files.tables import write_csv

        text = io.StringIO(newline="")
        write_csv(page.table, text)
        return text.getvalue().encode()
    held = io.BytesIO()
    page.figure.savefig(held, format=format, dpi=_DPI)
    return held.getvalue()


def _zipped(made: Iterator[Page]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        for _, page in _first(made):
            for format in ("png", "csv"):
                archive.writestr(zipfile.ZipInfo(f"{page.stem}.{format}"), _drawn(page, format))
    return held.getvalue()


def table(service: Service, *, store: str, figure: str, **given: Any) -> Tables:
    """The figure that is a table, as its command prints it."""
    from taqstore.plot.draw import tables

    found = tables(figure, service.store(store), **_asked(given))
    address, word = service.address(store), f"plot {figure}"
    line = command_line(word, address, rows=(LAYERS, GROUP), values=given, after=["-o", "plots"])
    call = python_call("draw", [repr(figure), "store", "'plots'"], given)
    code = "\n".join(
        ("import taqstore", "from taqstore.plot.draw import draw", "", opened(address), call)
    )
    return Tables([one for _, one in found], (), line, code)
