"""Datasets as tidy tables, on the terminal and as CSV or JSON that keep every float exactly.

One row per combination of coordinates. Variables with equal dimensions are columns of one table, so
a Dataset becomes as many tables as it has kinds of dimensions.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.terminal.aligned import print_fitted

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    Table: TypeAlias = "pd.DataFrame | Columns"

MAX_ROWS = 5_000_000
BLOCK_ROWS = 65_536
_TEXT_WIDTH = 40


@dataclass(frozen=True)
class Columns:
    """A table without pandas, whose import takes longer than a small table.

    Parameters
    ----------
    names, values
        Of its columns, texts as Python strings.
    dtypes
        What pandas calls those of the columns.
    rows
        How many it has.
    dims, beside
        Names of its dimensions, and of its other coordinates.
    """

    names: Sequence[Any]
    values: Sequence[np.ndarray]
    dtypes: Sequence[str]
    rows: int
    dims: Sequence[str]
    beside: Sequence[str]

    @classmethod
    def of(cls, table: Table) -> Columns:
        """The columns of a table, not copied."""
        if isinstance(table, Columns):
            return table
        values = [table.iloc[:, place].to_numpy() for place in range(table.shape[1])]
        dims, beside = (table.attrs.get(name, []) for name in ("dims", "beside"))
        return cls(
            list(table.columns), values, list(map(str, table.dtypes)), len(table), dims, beside
        )

    def frame(self) -> pd.DataFrame:
        """The same table as one of pandas."""
        import pandas as pd

        # Python strings in an object column: pandas' own string dtype is slow and needs pyarrow.
        columns = {
            name: pd.Series(values, dtype=object) if values.dtype == object else values
            for name, values in zip(self.names, self.values, strict=True)
        }
        table = pd.DataFrame(columns, index=pd.RangeIndex(self.rows))
        table.attrs |= {"dims": list(self.dims), "beside": list(self.beside)}
        return table

    def part(self, start: int, stop: int) -> list[np.ndarray]:
        """Some rows of every column."""
        return [values[start:stop] for values in self.values]


def to_table(dataset: xr.Dataset) -> pd.DataFrame:
    """One tidy table: coordinates first, then a column per variable, each in its own dtype.

    Rows are in C order of the Dataset's dimensions. A dimension without labels counts from 0.
    `attrs["dims"]` of the table names its dimensions, `attrs["beside"]` its other coordinates.

    Raises
    ------
    TaqError
        The variables have different dimensions, or there are more than `MAX_ROWS` rows.
    """
    return one_columns(dataset).frame()


def one_columns(dataset: xr.Dataset) -> Columns:
    """The table of `to_table` without pandas; the group may be one without xarray."""
    ((dims, names),) = check_one_kind(dataset).items()
    return _table(dataset, dims, names)


def check_one_kind(dataset: xr.Dataset) -> dict[tuple[str, ...], list[str]]:
    """Dimensions of all variables, and their names; a TaqError where they have different ones."""
    kinds = _kinds(dataset)
    if len(kinds) != 1:
        found = [f"{', '.join(names)} ({', '.join(dims)})" for dims, names in kinds.items()]
        raise TaqError(
            problem(
                "one table needs variables that share their dimensions",
                found="; ".join(found) or "no variables",
                remedy="name variables of one kind, or reduce the others",
            )
        )
    return kinds


def check_rows(dataset: xr.Dataset, more: Mapping[str, int] | None = None) -> None:
    """Refuse a Dataset that makes too large a table: from sizes, nothing is computed.

    Parameters
    ----------
    more
        Sizes of dimensions of which the Dataset holds a part.

    Raises
    ------
    TaqError
        One table of it has more than `MAX_ROWS` rows.
    """
    sizes = {str(dim): size for dim, size in dataset.sizes.items()} | dict(more or {})
    for dims in _kinds(dataset):
        _checked_rows({dim: sizes[dim] for dim in dims})


def to_tables(dataset: xr.Dataset) -> list[pd.DataFrame]:
    """One table, as `to_table` makes it, for each kind of dimensions, in order of the variables.

    Raises
    ------
    TaqError
        One of them has more than `MAX_ROWS` rows.
    """
    return [columns.frame() for columns in to_columns(dataset)]


def to_columns(dataset: xr.Dataset) -> list[Columns]:
    """The tables of `to_tables` without pandas; the group may be one without xarray."""
    return [_table(dataset, dims, names) for dims, names in _kinds(dataset).items()]


def print_table(table: Table, limit: int = 40, *, stream: TextIO | None = None) -> None:
    """Print aligned plain text: numbers to the right, with six digits; text to the left, cut.

    On a terminal, what it has room for, as `print_fitted` says; coordinates beside those of the
    dimensions (`attrs["beside"]`) are left out first.

    Parameters
    ----------
    limit
        Rows shown; 0 shows all. A last line says how many are left out.
    stream
        Where to; standard output by default.
    """
    held = Columns.of(table)
    rows = min(limit, held.rows) if limit else held.rows
    columns = [
        [str(name), *map(_one_line, _short_text(values))]
        for name, values in zip(held.names, held.part(0, rows), strict=True)
    ]
    right = [values.dtype.kind in "fiu" for values in held.values]
    spare = [i for i, name in enumerate(held.names) if name in held.beside][::-1]
    print_fitted(columns, right, constant=partial(_constant, held), spare=spare, stream=stream)
    if rows < held.rows:
        print(f"... {held.rows - rows} more rows (of {held.rows})", file=stream)


def _constant(table: Columns, column: int) -> bool:
    """Whether a column says the same in all rows of a table, shown or not."""
    values = table.values[column]
    if values.dtype.kind == "f" and bool(np.isnan(values).all()):
        return True
    return bool((values == values[0]).all())


def write_csv(table: Table, stream: TextIO) -> None:
    """Write CSV (quoted as in RFC 4180, Unix newlines) whose floats read back equal in their dtype.

    A float is the shortest decimal that its own dtype reads back; NaN and infinities are ``nan``,
    ``inf`` and ``-inf``.
    """
    writer = csv.writer(stream, lineterminator="\n")
    held = Columns.of(table)
    writer.writerow(held.names)
    for block in _blocks(held):
        writer.writerows(zip(*map(exact_text, block), strict=True))


def write_json(tables: Sequence[Table], stream: TextIO) -> None:
    """Write ``{"tables": [{"dims": [...], "dtypes": {...}, "rows": [{...}, ...]}]}``.

    Floats are as in `write_csv`; NaN is null, infinities are the strings ``inf`` and ``-inf``.
    """
    stream.write('{"tables": [')
    for number, table in enumerate(map(Columns.of, tables)):
        dtypes = dict(zip(map(str, table.names), table.dtypes, strict=True))
        head = {"dims": list(table.dims), "dtypes": dtypes}
        stream.write(", " * bool(number) + json.dumps(head)[:-1] + ', "rows": [')
        for position, row in enumerate(_json_rows(table)):
            stream.write(",\n" * bool(position) + row)
        stream.write("]}")
    stream.write("]}\n")


def exact_text(values: np.ndarray) -> list[str]:
    """Every value as text; floats as the shortest decimal that their own dtype reads back."""
    if values.dtype == np.float64:
        return [repr(value) for value in values.tolist()]
    if values.dtype.kind == "f":
        return [str(value) for value in values]
    return [str(value) for value in values.tolist()]


def _short_text(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        return [f"{value:.6g}" for value in values.tolist()]
    texts = exact_text(values)
    return [t if len(t) <= _TEXT_WIDTH else f"{t[: _TEXT_WIDTH - 3]}..." for t in texts]


def _one_line(text: str) -> str:
    """Escape what could break the line or steer the terminal: prompts come from foreign files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _json_rows(table: Columns) -> Iterator[str]:
    keys = [json.dumps(str(name)) for name in table.names]
    for block in _blocks(table):
        for row in zip(*map(_json_text, block), strict=True):
            yield "{" + ", ".join(f"{k}: {v}" for k, v in zip(keys, row, strict=True)) + "}"


def _json_text(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        special = {"nan": "null", "inf": '"inf"', "-inf": '"-inf"'}
        return [special.get(text, text) for text in exact_text(values)]
    return [json.dumps(value) for value in values.tolist()]


def _blocks(table: Columns) -> Iterator[list[np.ndarray]]:
    """Slices of rows, so that the text of a large table is never in memory at once."""
    for start in range(0, table.rows, BLOCK_ROWS):
        yield table.part(start, start + BLOCK_ROWS)


def _kinds(dataset: xr.Dataset) -> dict[tuple[str, ...], list[str]]:
    """Variable names by their dimensions, these in the order of the Dataset."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, array in dataset.data_vars.items():
        dims = tuple(str(d) for d in dataset.dims if d in array.dims)
        kinds.setdefault(dims, []).append(str(name))
    return kinds


def _checked_rows(sizes: Mapping[str, int]) -> int:
    rows = prod(sizes.values())
    if rows > MAX_ROWS:
        raise TaqError(
            problem(
                f"a table of {rows} rows is too large (at most {MAX_ROWS})",
                found=", ".join(f"{dim} {size}" for dim, size in sizes.items()),
                remedy="narrow it with --step, --layer or --reduce, or write -o FILE.nc or .zarr",
            )
        )
    return rows


def _table(dataset: xr.Dataset, dims: tuple[str, ...], names: list[str]) -> Columns:
    sizes = {dim: dataset.sizes[dim] for dim in dims}
    rows = _checked_rows(sizes)
    selected = dataset[names].compute()
    others = {
        str(name): coord
        for name, coord in selected.coords.items()
        if name not in sizes and set(coord.dims) <= set(dims) and coord.dims
    }
    variables = {**others, **{name: selected[name] for name in names}}
    columns = {dim: _spread((dim,), _label(selected, dim), sizes) for dim in dims} | {
        name: _spread(one.dims, one.values, sizes) for name, one in variables.items()
    }
    dtypes = [str(values.dtype) for values in columns.values()]
    return Columns(list(columns), list(columns.values()), dtypes, rows, dims, list(others))


def _label(dataset: xr.Dataset, dim: str) -> np.ndarray:
    if dim not in dataset.coords:
        return np.arange(dataset.sizes[dim])
    labels: np.ndarray = dataset[dim].values
    return labels


def _spread(dims: Sequence[Any], values: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    """Values along some dimensions for every row of a table with these sizes."""
    inside = [dims.index(dim) for dim in sizes if dim in dims]
    shape = [size if dim in dims else 1 for dim, size in sizes.items()]
    whole = np.broadcast_to(values.transpose(inside).reshape(shape), tuple(sizes.values()))
    every = whole.ravel()
    return every.astype(object) if every.dtype.kind in "UOT" else every
