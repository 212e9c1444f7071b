"""Pages of one group, and the files they become: pictures, each with a CSV of its numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from taqstore.files.datasets import write_table
from taqstore.files.remote import output_path
from taqstore.files.staged import whole_file
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.plot.figures import FIGURES, check_formats, known
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import linear_view, require
from taqstore.plot.parts.written import save
from taqstore.store.given import handed

_DPI = 120
# The same pixels in 3 % more bytes than at zlib's usual level, for two thirds of the time.
_PNG = {"pil_kwargs": {"compress_level": 2}}


@takes_storage_options
@handed(blocks=True)
def render(
    kind: str,
    dataset: xr.Dataset,
    out_dir: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    site: str = "",
    formats: Sequence[str] = ("png",),
    storage_options: StorageOptions | None = None,
    **options: Any,
) -> list[Path]:
    """Draw the figures of one kind and write them, a CSV beside each; return what was written.

    Parameters
    ----------
    kind, dataset, layers, site, options
        As in `make_pages`.
    formats
        Suffixes out of `FORMATS`; none for the CSV alone.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MissingError
        Unknown kind, format, site or layer; variables missing; no values in any histogram.
    """
    check_formats(formats)
    made = make_pages(kind, dataset, layers=layers, site=site, **options)
    return [path for page in made for path in write_page(page, output_path(out_dir), formats)]


@handed(blocks=True)
def make_pages(
    kind: str,
    dataset: xr.Dataset,
    *,
    layers: Sequence[str] | None = None,
    site: str = "",
    answers: xr.Dataset | None = None,
    **options: Any,
) -> Iterator[Page]:
    """Make the pages of one kind from one group; nothing is written.

    Parameters
    ----------
    kind
        Word of `FIGURES` whose figures are made site by site.
    dataset
        One group over (step, layer, channel or bin), with a batch axis if observed.
    layers
        Spellings of layers or linears, or globs over layer labels; None for all.
    site
        Site of the group (``mlp.fc2``), for titles and file names.
    answers
        What the analysis behind the figure says of the group, where that is known already; for
        kinds whose function has such a parameter.
    options
        Those that `FigureKind.options` names.

    Raises
    ------
    MissingError
        Unknown kind, site or layer; variables missing; no values in any histogram.
    """
    known("figure", kind, [word for word, row in FIGURES.items() if row.made == "site"])
    row = FIGURES[kind]
    names = require(dataset, row.requires, where=f"plot {kind}")
    extra = [name for name in row.optional if name in dataset.variables]
    view = linear_view(dataset, [*names, *extra], site=site, layers=layers)
    if answers is not None:
        found = [str(name) for name in answers.data_vars]
        options["answers"] = linear_view(answers, found, site=site, layers=layers)
    made: Iterator[Page] = row.load()(view, site, **options)
    return made


def write_page(page: Page, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the table of a page as CSV, then its picture in every format; return the paths.

    Parameters
    ----------
    folder
        Made where it is missing.
    formats
        Suffixes out of `FORMATS`.
    """
    # The numbers first: what cannot be drawn can still be read.
    table = folder / f"{page.stem}.csv"
    write_table(page.table, table, force=True)
    return [*(write_picture(page.figure, folder / f"{page.stem}.{f}") for f in formats), table]


def write_picture(figure: Figure, path: Path) -> Path:
    """Write a figure, its kind by the suffix; what was there is replaced. Returns the path."""
    form = path.suffix[1:]
    with whole_file(path, force=True) as fresh:
        save(figure, fresh, format=form, dpi=_DPI, **(_PNG if form == "png" else {}))
    return path
