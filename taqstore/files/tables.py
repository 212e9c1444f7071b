"""Datasets as tidy tables, on the terminal and as CSV or JSON that keep every float exactly.

One row per combination of coordinates. Variables with equal dimensions are columns of one table, so
a Dataset becomes as many tables as it has kinds of dimensions.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, TextIO

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.errors import TaqError, problem
from taqstore.terminal.aligned import print_fitted

MAX_ROWS = 5_000_000
BLOCK_ROWS = 65_536
_TEXT_WIDTH = 40


def to_table(dataset: xr.Dataset) -> pd.DataFrame:
    """One tidy table: coordinates first, then a column per variable, each in its own dtype.

    Rows are in C order of the Dataset's dimensions. A dimension without labels counts from 0.
    `attrs["dims"]` of the table names its dimensions, `attrs["beside"]` its other coordinates.

    Raises
    ------
    TaqError
        The variables have different dimensions, or there are more than `MAX_ROWS` rows.
    """
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


def to_tables(dataset: xr.Dataset) -> list[pd.DataFrame]:
    """One table, as `to_table` makes it, for each kind of dimensions, in order of the variables.

    Raises
    ------
    TaqError
        One of them has more than `MAX_ROWS` rows.
    """
    return [_table(dataset, dims, names) for dims, names in _kinds(dataset).items()]


def print_table(table: pd.DataFrame, limit: int = 40, *, stream: TextIO | None = None) -> None:
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
    shown = table.iloc[:limit] if limit else table
    columns = [
        [str(name), *map(_one_line, _short_text(values))] for name, values in _columns(shown)
    ]
    right = [np.asarray(values).dtype.kind in "fiu" for _, values in _columns(shown)]
    beside = table.attrs.get("beside", [])
    spare = [i for i, name in enumerate(table.columns) if name in beside][::-1]
    print_fitted(columns, right, constant=partial(_constant, table), spare=spare, stream=stream)
    if len(shown) < len(table):
        print(f"... {len(table) - len(shown)} more rows (of {len(table)})", file=stream)


def _constant(table: pd.DataFrame, column: int) -> bool:
    """Whether a column says the same in all rows of a table, shown or not."""
    values = table.iloc[:, column].to_numpy()
    if values.dtype.kind == "f" and bool(np.isnan(values).all()):
        return True
    return bool((values == values[0]).all())


def write_csv(table: pd.DataFrame, stream: TextIO) -> None:
    """Write CSV (quoted as in RFC 4180, Unix newlines) whose floats read back equal in their dtype.

    A float is the shortest decimal that its own dtype reads back; NaN and infinities are ``nan``,
    ``inf`` and ``-inf``.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for block in _blocks(table):
        writer.writerows(zip(*(exact_text(values) for _, values in _columns(block)), strict=True))


def write_json(tables: Sequence[pd.DataFrame], stream: TextIO) -> None:
    """Write ``{"tables": [{"dims": [...], "dtypes": {...}, "rows": [{...}, ...]}]}``.

    Floats are as in `write_csv`; NaN is null, infinities are the strings ``inf`` and ``-inf``.
    """
    stream.write('{"tables": [')
    for number, table in enumerate(tables):
        dtypes = {str(name): str(dtype) for name, dtype in table.dtypes.items()}
        head = {"dims": table.attrs.get("dims", []), "dtypes": dtypes}
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


def _json_rows(table: pd.DataFrame) -> Iterator[str]:
    keys = [json.dumps(str(name)) for name in table.columns]
    for block in _blocks(table):
        columns = [_json_text(values) for _, values in _columns(block)]
        for row in zip(*columns, strict=True):
            yield "{" + ", ".join(f"{k}: {v}" for k, v in zip(keys, row, strict=True)) + "}"


def _json_text(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        special = {"nan": "null", "inf": '"inf"', "-inf": '"-inf"'}
        return [special.get(text, text) for text in exact_text(values)]
    return [json.dumps(value) for value in values.tolist()]


def _blocks(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Slices of rows, so that the text of a large table is never in memory at once."""
    for start in range(0, len(table), BLOCK_ROWS):
        yield table.iloc[start : start + BLOCK_ROWS]


def _columns(table: pd.DataFrame) -> Iterator[tuple[Any, np.ndarray]]:
    for position, name in enumerate(table.columns):
        yield name, table.iloc[:, position].to_numpy()


def _kinds(dataset: xr.Dataset) -> dict[tuple[str, ...], list[str]]:
    """Variable names by their dimensions, these in the order of the Dataset."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, array in dataset.data_vars.items():
        dims = tuple(str(d) for d in dataset.dims if d in array.dims)
        kinds.setdefault(dims, []).append(str(name))
    return kinds


def _table(dataset: xr.Dataset, dims: tuple[str, ...], names: list[str]) -> pd.DataFrame:
    sizes = {dim: dataset.sizes[dim] for dim in dims}
    rows = prod(sizes.values())
    if rows > MAX_ROWS:
        raise TaqError(
            problem(
                f"a table of {rows} rows is too large (at most {MAX_ROWS})",
                found=", ".join(f"{dim} {size}" for dim, size in sizes.items()),
                remedy="narrow it with --step, --layer or --reduce, or write -o FILE.nc or .zarr",
            )
        )
    selected = dataset[names].compute()
    labels = {dim: _label(selected, dim) for dim in dims}
    others = {
        str(name): coord.variable
        for name, coord in selected.coords.items()
        if name not in sizes and set(coord.dims) <= set(dims) and coord.dims
    }
    variables: Mapping[str, xr.Variable] = {
        **labels,
        **others,
        **{name: selected[name].variable for name in names},
    }
    columns = {name: _spread(variable, sizes) for name, variable in variables.items()}
    table = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    table.attrs |= {"dims": list(dims), "beside": list(others)}
    return table


def _label(dataset: xr.Dataset, dim: str) -> xr.Variable:
    if dim in dataset.coords:
        return dataset[dim].variable.to_base_variable()
    return xr.Variable((dim,), np.arange(dataset.sizes[dim]), fastpath=True)


def _spread(variable: xr.Variable, sizes: Mapping[str, int]) -> np.ndarray | pd.Series[Any]:
    """Values of a variable for every row of a table with these dimensions."""
    inside = [dim for dim in sizes if dim in variable.dims]
    shape = [size if dim in variable.dims else 1 for dim, size in sizes.items()]
    values = variable.transpose(*inside).to_numpy().reshape(shape)
    values = np.broadcast_to(values, tuple(sizes.values())).ravel()
    if values.dtype.kind in "UOT":
        # Python strings in an object column: pandas' own string dtype is slow and needs pyarrow.
        return pd.Series(values.astype(object), dtype=object)
    return values
