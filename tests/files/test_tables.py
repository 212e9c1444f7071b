"""Tables keep every value: bit for bit through CSV and JSON, row by row from the Dataset."""

from __future__ import annotations

import csv
import io
import json
from fractions import Fraction

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from support.statistics_sample import LAYERS, SIGMA, STEPS, make_statistics, raise_if_computed
from taqstore.errors import TaqError
from taqstore.files import tables as table_module
from taqstore.files.tables import (
    exact_text,
    print_table,
    to_table,
    to_tables,
    write_csv,
    write_json,
)

AWKWARD = [0.1, 1e-8, -0.0, 1e16, 3.4028235e38, 1.1754944e-38, 1.4e-45, 1 / 3]


@pytest.fixture
def statistics() -> xr.Dataset:
    return make_statistics()


def test_table_has_a_row_per_combination(statistics: xr.Dataset) -> None:
    table = to_table(statistics[["n_batches", "has_shift"]])
    names = ["step", "layer", "sigma", "timestep", "block", "stream", "n_batches", "has_shift"]
    assert list(table.columns) == names
    assert table.attrs["dims"] == ["step", "layer"]
    assert len(table) == 20
    rows = [
        (step, layer, SIGMA[i], statistics["n_batches"].values[i, j])
        for i, step in enumerate(STEPS)
        for j, layer in enumerate(LAYERS)
    ]
    assert (
        list(zip(*(table[n] for n in ("step", "layer", "sigma", "n_batches")), strict=True)) == rows
    )
    dtypes = [str(table[n].dtype) for n in ("sigma", "timestep", "n_batches", "has_shift")]
    assert dtypes == ["float32", "float16", "uint32", "bool"]


def test_variables_of_other_order_and_without_labels_share_a_table() -> None:
    a = np.arange(6).reshape(2, 3)
    dataset = xr.Dataset({"a": (("step", "channel"), a), "b": (("channel", "step"), a.T * 2)})
    table = to_table(dataset)
    assert table["b"].tolist() == (a * 2).ravel().tolist()
    assert table["channel"].tolist() == [0, 1, 2] * 2


def test_each_kind_of_dimensions_is_a_table(statistics: xr.Dataset) -> None:
    tables = to_tables(statistics)
    dims = [["step", "layer", "channel"], ["step", "layer"], ["layer"]]
    assert [t.attrs["dims"] for t in tables] == [*dims, ["step", "layer", "projection"]]
    with pytest.raises(TaqError, match=r"avg_min, avg_max \(step, layer, channel\); n_batches"):
        to_table(statistics)


def test_a_scalar_is_one_row() -> None:
    table = to_table(xr.Dataset({"x": np.float32(0.1)}))
    assert table.to_dict("list") == {"x": [np.float32(0.1)]}


def test_too_many_rows_are_refused_before_anything_is_read(
    statistics: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "MAX_ROWS", 139)
    with (
        dask.config.set(scheduler=raise_if_computed),
        pytest.raises(TaqError, match=r"140 rows.*step 4, layer 5, channel 7.*--reduce"),
    ):
        to_table(statistics[["avg_min"]])


def test_exact_text_is_the_shortest_that_reads_back() -> None:
    rng = np.random.default_rng(7)
    for dtype in (np.float16, np.float32, np.float64):
        bits = rng.integers(0, 2**16, 8000, dtype=np.uint16)
        values = np.frombuffer(bits.tobytes(), dtype)
        values = np.concatenate([values[np.isfinite(values)], np.array(AWKWARD[:3], dtype)])
        texts = exact_text(values)
        back = np.array([float(text) for text in texts]).astype(dtype)
        assert back.tobytes() == values.tobytes()
    assert exact_text(np.float32([0.1, 1e-8, -0.0])) == ["0.1", "1e-08", "-0.0"]
    assert exact_text(np.float16([0.1])) == ["0.1"]


def _awkward() -> xr.Dataset:
    specials = [np.nan, np.inf, -np.inf]
    data = {
        "single": ("row", np.array(AWKWARD + specials, np.float32)),
        "double": ("row", np.array(AWKWARD + specials)),
        "half": ("row", np.array([0.1, 8.93, *range(9)], np.float16)),
        "big": ("row", np.full(11, 2**64 - 1, np.uint64)),
        "flag": ("row", np.arange(11) % 3 == 0),
        "text": ("row", np.array(["a,b", 'q"q', "", "l\nm", "ü", "nan", *"ghijk"], dtype=object)),
    }
    return xr.Dataset(data)


def test_csv_keeps_every_value() -> None:
    dataset, stream = _awkward(), io.StringIO(newline="")
    write_csv(to_table(dataset), stream)
    stream.seek(0)
    header, *rows = csv.reader(stream)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    for name in ("single", "double", "half"):
        values = dataset[name].values
        back = np.array([float(text) for text in columns[name]]).astype(values.dtype)
        assert np.array_equal(back, values, equal_nan=True)
        assert np.array_equal(np.signbit(back[:8]), np.signbit(values[:8]))
    assert columns["single"][0] == "0.1"
    assert list(columns["text"]) == dataset["text"].values.tolist()
    assert columns["flag"][:2] == ("True", "False")
    assert set(columns["big"]) == {str(2**64 - 1)}


def test_json_keeps_every_value(statistics: xr.Dataset) -> None:
    dataset, stream = _awkward(), io.StringIO()
    tables = [*to_tables(dataset), *to_tables(statistics[["n_batches"]])]
    write_json(tables, stream)
    first, second = json.loads(stream.getvalue(), parse_constant=raise_if_computed)["tables"]
    assert [table["dims"] for table in (first, second)] == [["row"], ["step", "layer"]]
    assert [first["dtypes"][name] for name in ("single", "text")] == ["float32", "object"]
    for name in ("single", "double", "half"):
        texts = [row[name] for row in first["rows"]]
        numbers = np.array([np.nan if v is None else float(v) for v in texts])
        values = dataset[name].values
        assert np.array_equal(numbers.astype(values.dtype), values, equal_nan=True)
    assert [row["text"] for row in first["rows"]] == dataset["text"].values.tolist()
    assert first["rows"][0]["flag"] is True
    assert [row["single"] for row in first["rows"][8:]] == [None, "inf", "-inf"]
    counts = [row["n_batches"] for row in second["rows"]]
    assert counts == statistics["n_batches"].values.ravel().tolist()


def test_text_in_many_blocks_equals_text_in_one(
    statistics: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = to_table(statistics[["avg_min"]])
    texts = []
    for rows in (10**6, 9):
        monkeypatch.setattr(table_module, "BLOCK_ROWS", rows)
        for stream, write in ((io.StringIO(), write_csv), (io.StringIO(), _write_one_json)):
            write(table, stream)
            texts.append(stream.getvalue())
    assert texts[:2] == texts[2:]
    assert texts[0].count("\n") == 141


def _write_one_json(table: pd.DataFrame, stream: io.StringIO) -> None:
    write_json([table], stream)


def test_printed_tables_are_aligned_and_say_what_is_left_out() -> None:
    data = {"name": ("row", ["a", "long"]), "value": ("row", np.float32([1 / 3, -1234.5678]))}
    table, stream = to_table(xr.Dataset(data)), io.StringIO()
    print_table(table, 1, stream=stream)
    print_table(table, 0, stream=stream)
    assert stream.getvalue().splitlines() == [
        "row  name     value",
        "  0  a     0.333333",
        "... 1 more rows (of 2)",
        "row  name     value",
        "  0  a     0.333333",
        "  1  long  -1234.57",
    ]


def test_printed_text_stays_on_its_line_and_harmless() -> None:
    texts = np.array(["\x1b[31mred\nü", "a" * 41, "b" * 40], dtype=object)
    table, stream = to_table(xr.Dataset({"text": ("row", texts)})), io.StringIO()
    print_table(table, stream=stream)
    lines = ["row  text", r"  0  \x1b[31mred\nü", f"  1  {'a' * 37}...", f"  2  {'b' * 40}"]
    assert stream.getvalue().splitlines() == lines


def test_the_frozen_shortest_texts_are_right() -> None:
    """9.999999e-09 would be a neighbour: the text lies within half a unit of its value."""
    value = np.float32(1e-8)
    (text,) = exact_text(np.array([value]))
    half = (Fraction(float(np.nextafter(value, np.float32(1)))) - Fraction(float(value))) / 2
    assert abs(Fraction(text) - Fraction(float(value))) < half
