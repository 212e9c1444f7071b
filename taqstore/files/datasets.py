"""Datasets written to one file or folder, in the format that its suffix names."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.errors import TaqError, problem
from taqstore.files.remote import output_path
from taqstore.files.staged import whole_file, whole_folder
from taqstore.files.tables import to_table, write_csv
from taqstore.files.targets import TABLES, check_suffix

FOLDER = ".zarr"
"""Suffix of a dataset that is a folder."""
_ZARR = ("zarr.json", "*/zarr.json", "*/c", "*/c/*")


def write_file(dataset: xr.Dataset, path: Path, *, force: bool = False) -> None:
    """Write a Dataset as `.nc` or `.zarr`, or its one table as `.parquet` or `.csv`.

    The file appears whole or not at all. NetCDF knows no float16: such variables become float32
    with `original_dtype`; attributes it cannot hold become JSON text.

    Parameters
    ----------
    force
        Replace what is there.

    Raises
    ------
    TaqError
        A library is missing, the target exists, the disk refuses, or the
        variables do not make one table.
    MisuseError
        The suffix is not known.
    """
    path = output_path(path)
    check_suffix(path)
    writer = _WRITERS[path.suffix]
    if path.suffix == FOLDER:
        with whole_folder(path, content=_ZARR, force=force) as fresh:
            writer(dataset, fresh)
    else:
        with whole_file(path, force=force) as fresh:
            writer(dataset, fresh)


def write_table(table: pd.DataFrame, path: Path, *, force: bool = False) -> None:
    """Write one table as `.parquet` or `.csv`, whole or not at all.

    Raises
    ------
    TaqError
        A library is missing, the target exists, or the disk refuses.
    MisuseError
        Another suffix.
    """
    check_suffix(path, TABLES)
    writer = _TABLE_WRITERS[path.suffix]
    with whole_file(path, force=force) as fresh:
        writer(table, fresh)


def _write_netcdf(dataset: xr.Dataset, fresh: Path) -> None:
    _need("h5netcdf", fresh)
    _need("h5py", fresh)
    plain = _plain_strings(dataset.drop_encoding())
    halves = [name for name, array in plain.variables.items() if array.dtype == np.float16]
    plain = _replaced(plain, {name: _widened(plain.variables[name]) for name in halves})
    plain.attrs = _netcdf_attributes(plain.attrs)
    for name in plain.variables:
        plain[name].attrs = _netcdf_attributes(plain[name].attrs)
    plain.to_netcdf(fresh, engine="h5netcdf")


def _netcdf_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Text and numbers as they are, everything else as JSON."""
    plain = (str, np.number, np.ndarray)
    return {
        key: value if isinstance(value, plain) or type(value) in (int, float) else json.dumps(value)
        for key, value in attrs.items()
    }


def _write_zarr(dataset: xr.Dataset, fresh: Path) -> None:
    plain = _plain_strings(dataset.drop_encoding())
    for name, array in plain.data_vars.items():
        if array.chunks is not None:
            # A selection leaves chunks of uneven sizes, which Zarr does not have.
            even = {dim: max(sizes) for dim, sizes in array.chunksizes.items()}
            plain[name] = array.chunk(even)
    plain.to_zarr(fresh, mode="w-", zarr_format=3, consolidated=False)


def _plain_strings(dataset: xr.Dataset) -> xr.Dataset:
    """Strings as Python objects in memory: every format writes these with variable length."""
    texts = {
        name: xr.Variable(array.dims, array.to_numpy().astype(object), array.attrs)
        for name, array in dataset.variables.items()
        if array.dtype.kind in "OUT"
    }
    return _replaced(dataset, texts)


def _widened(variable: xr.Variable) -> xr.Variable:
    attrs = {**variable.attrs, "original_dtype": "float16"}
    return xr.Variable(variable.dims, variable.data.astype(np.float32), attrs)


def _replaced(dataset: xr.Dataset, arrays: Mapping[Hashable, xr.Variable]) -> xr.Dataset:
    """The Dataset with some variables replaced; coordinates stay coordinates."""
    coords = {name: array for name, array in arrays.items() if name in dataset.coords}
    others = {name: array for name, array in arrays.items() if name not in dataset.coords}
    return dataset.assign_coords(coords).assign(others)


def _write_parquet(table: pd.DataFrame, fresh: Path) -> None:
    _need("pyarrow", fresh)
    table.to_parquet(fresh, engine="pyarrow", index=False)


def _write_csv(table: pd.DataFrame, fresh: Path) -> None:
    with fresh.open("w", encoding="utf-8", newline="") as stream:
        write_csv(table, stream)


def _need(library: str, path: Path) -> None:
    try:
        import_module(library)
    except ImportError as error:
        what = f"{path.suffix} files need {library}, which is not installed"
        raise TaqError(problem(what, remedy="pip install 'taqstore[files]'")) from error


_TABLE_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
}
_WRITERS: dict[str, Callable[[xr.Dataset, Path], None]] = {
    ".nc": _write_netcdf,
    FOLDER: _write_zarr,
    ".parquet": lambda dataset, path: _write_parquet(to_table(dataset), path),
    ".csv": lambda dataset, path: _write_csv(to_table(dataset), path),
}
