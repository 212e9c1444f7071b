"""Files give back what was written: dtypes, bits, text; and appear whole or not at all."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from support.statistics_sample import make_statistics
from taqstore.errors import TaqError
from taqstore.files import tables as table_module
from taqstore.files.datasets import write_file
from taqstore.files.tables import to_table, write_csv
from taqstore.query.select import select


@pytest.fixture
def statistics() -> xr.Dataset:
    return make_statistics()


def _assert_same(read: xr.Dataset, dataset: xr.Dataset) -> None:
    assert set(read.variables) == set(dataset.variables)
    for name, variable in dataset.variables.items():
        values, back = variable.values, read[name].values
        assert read[name].dims == variable.dims
        if values.dtype.kind in "OUT":
            assert back.astype(object).tolist() == values.astype(object).tolist()
            continue
        if values.dtype == np.float16 and back.dtype == np.float32:
            assert read[name].attrs["original_dtype"] == "float16"
            back = back.astype(np.float16)
        assert back.dtype == values.dtype
        assert back.tobytes() == values.tobytes()


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_of_arrays_give_everything_back(
    statistics: xr.Dataset, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    dataset = select(statistics, step="0,3,9", channel="::2").chunk(channel=(1, 2, 1))
    write_file(dataset, path)
    if suffix == ".nc":
        read = xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False)
        assert read["avg_max"].dtype == np.float32
        assert json.loads(read.attrs["nested"]) == {"a": [1, None]}
    else:
        read = xr.open_zarr(path, consolidated=False)
        assert read["avg_max"].dtype == np.float16
        assert read.attrs["nested"] == {"a": [1, None]}
    with read:
        _assert_same(read.load(), dataset)
        assert read["avg_min"].attrs == {"original_dtype": "float64"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_encodings_of_a_store_do_not_follow(tmp_path: Path) -> None:
    dataset = xr.Dataset({"x": (("step", "channel"), np.arange(12.0).reshape(4, 3))})
    dataset.to_zarr(
        tmp_path / "store.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"x": {"chunks": (2, 3), "shards": (4, 3)}},
    )
    stored = xr.open_zarr(tmp_path / "store.zarr", consolidated=False)
    for name in ("a.nc", "a.zarr"):
        write_file(select(stored, step="0,1,3"), tmp_path / name)
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as read:
        assert read["x"].values.tolist() == np.arange(12.0).reshape(4, 3)[[0, 1, 3]].tolist()
    assert xr.open_zarr(tmp_path / "a.zarr", consolidated=False)["x"].shape == (3, 3)


def test_parquet_and_csv_hold_the_table(statistics: xr.Dataset, tmp_path: Path) -> None:
    dataset = statistics[["avg_min", "avg_max"]]
    for suffix in (".parquet", ".csv"):
        write_file(dataset, tmp_path / f"out{suffix}")
    table = to_table(dataset)
    parquet = pd.read_parquet(tmp_path / "out.parquet")
    assert list(parquet.columns) == list(table.columns)
    for name in table.columns:
        if table[name].dtype.kind == "f":
            assert parquet[name].dtype == table[name].dtype
            assert parquet[name].to_numpy().tobytes() == table[name].to_numpy().tobytes()
        else:
            assert parquet[name].tolist() == table[name].tolist()
    stream = io.StringIO(newline="")
    write_csv(table, stream)
    assert (tmp_path / "out.csv").read_bytes() == stream.getvalue().encode()


def test_an_unknown_suffix_lists_the_known(statistics: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(TaqError, match=r"'\.xlsx'.*\.nc, \.zarr, \.parquet, \.csv"):
        write_file(statistics, tmp_path / "a.xlsx")
    with pytest.raises(TaqError, match="share their dimensions"):
        write_file(statistics, tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "module"), [(".nc", "h5netcdf"), (".parquet", "pyarrow")])
def test_a_missing_library_is_named(
    statistics: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    module: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TaqError, match=rf"{module}.*pip install 'taqstore\[files\]'"):
        write_file(statistics[["avg_min"]], tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".parquet", ".csv"])
def test_a_target_is_replaced_only_when_asked(
    statistics: xr.Dataset, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write_file(statistics[["avg_min"]], path)
    known = path / "zarr.json" if suffix == ".zarr" else path
    known.write_text("{}")
    with pytest.raises(TaqError, match=r"exists.*--force"):
        write_file(statistics[["avg_min"]], path)
    assert known.read_text() == "{}"
    write_file(statistics[["avg_min"]], path, force=True)
    assert known.read_bytes() != b"{}"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_nothing(
    statistics: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_module.csv, "writer", full)
    with pytest.raises(TaqError, match="No space left on device"):
        write_file(statistics[["avg_min"]], tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())
