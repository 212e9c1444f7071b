"""Files made of a store: exports, and the report."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from taqstore.analysis.shared.option import Option
from taqstore.errors import problem
from taqstore.export.formats import FORMATS, Format
from taqstore.serve.api.bounds import MOST_WRITTEN, Bounded
from taqstore.serve.http.endpoint import Endpoint, File
from taqstore.serve.http.problems import TooLargeError
from taqstore.serve.served.drawing import drawing
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line

REPORT = (
    Option("source", "Group prefix [default: first of those in the store].", str),
    Option(
        "bits",
        "A bit width to price and to choose from. Repeatable.",
        int,
        (8, 6, 4),
        least=2,
        most=16,
        many=True,
    ),
    Option(
        "budget",
        "Bits per value to recommend on average [default: halfway below the middle width].",
        least=2,
        most=16,
        flag="average",
    ),
    Option(
        "groups",
        "Number of time groups [default: the least that costs at most 5 % more].",
        int,
        least=1,
        flag="time-groups",
    ),
)
"""Of `taqstore report`."""
_KIND = Option("suffix", "Kind of file.", "word")
# The page has its style and its drawings inside.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


def endpoints() -> list[Endpoint]:
    """An endpoint for every format that is made of the store alone, and the report."""
    made = [
        Endpoint(
            f"/stores/{{store}}/export/{name}",
            f"Download: {row.doc}.",
            f"{__name__}:exported",
            "file",
            options=(*row.options, *_kind(row)),
            fixed={"format": name},
            raw=True,
        )
        for name, row in FORMATS.items()
        if not row.layout
    ]
    text = "The report: findings, costs, recommendations on one page."
    return [
        *made,
        Endpoint(
            "/stores/{store}/report", text, f"{__name__}:report", "file", options=REPORT, raw=True
        ),
    ]


def _kind(row: Format) -> list[Option]:
    words = tuple(suffix.removeprefix(".") for suffix in row.suffixes)
    return [_KIND.but(type=str, choices=words, default=words[0])] if len(words) > 1 else []


def exported(
    service: Service, *, store: str, format: str, suffix: str | None = None, **given: Any
) -> File:
    """A format of `taqstore export`: a file, or a folder as a zip.

    Raises
    ------
    TaqError
        As of `export.export`; or the download would be too large.
    """
    from taqstore.export.formats import export

    row = FORMATS[format]
    end = f".{suffix}" if suffix else (*row.suffixes, ".json" if row.schema else "")[0]
    # Copies of arrays are as large as what they copy; documents are small whatever they read.
    opened = service.store(store).reading(chunks=None, checksum=True, incomplete=False)
    with _scratch() as folder:
        out = folder / f"{Path(store).stem}-{format}{end}"
        summary = export(format, opened if row.schema else Bounded(opened), out, **given)
        after = ["-o", out.name]
        line = command_line(f"export {format}", service.address(store), rows=row.options,
                            values=given, after=after)  # fmt: skip
        return replace(_handed_over(out), cli=line, notes=summary.notes)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="taqstore-serve-") as folder:
        yield Path(folder)


def _handed_over(out: Path) -> File:
    """A file as it is, a folder as a zip, in a place of its own that is removed once sent."""
    kind = {".json": "application/json"}.get(out.suffix, "application/octet-stream")
    name, path = out.name, out
    if out.is_dir():
        name, kind, path = f"{out.name}.zip", "application/zip", out.with_name(f"{out.name}.zip")
        zip_folder(out, path)
    size = path.stat().st_size
    if size > MOST_WRITTEN:
        what = f"a download of {size >> 20} MiB is too large (at most {MOST_WRITTEN >> 20})"
        raise TooLargeError(problem(what, remedy="export it on the command line"))
    handle, kept = tempfile.mkstemp(prefix="taqstore-serve-")
    os.close(handle)
    return File(path.replace(kept), kind, name)


def zip_folder(folder: Path, out: Path) -> None:
    """Files of a folder in a zip, in order, without times: the same files give the same bytes."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w", force_zip64=True) as target, path.open("rb") as file:
                    while piece := file.read(1 << 20):
                        target.write(piece)


def report(service: Service, *, store: str, **given: Any) -> File:
    """The page that `taqstore report` writes."""
    from taqstore.report import build

    notes: list[str] = []

    def make() -> tuple[bytes, tuple[str, ...]]:
        with drawing():
            page = build(service.store(store), notes=notes, **given)
        return page.encode(), tuple(notes)

    # It takes a while: who has gone by then finds it when he comes again.
    page, told = service.kept(store, ("report", *sorted(given.items())), make)
    line = command_line("report", service.address(store), rows=REPORT, values=given,
                        after=["-o", "report.html"])  # fmt: skip
    return File(page, "text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY},
                cli=line, notes=told)  # fmt: skip
