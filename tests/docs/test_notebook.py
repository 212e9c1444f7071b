"""The notebook runs from top to bottom, and every figure of it shows data."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

from support.rooms import ROOT

_CELL = re.compile(r"^# %%(.*)$", re.M)
NOTEBOOK = ROOT / "docs" / "notebook.py"


def cells() -> list[tuple[str, str]]:
    """Kind and text of each cell; the head with what jupytext says of itself is none."""
    _, *parts = _CELL.split(NOTEBOOK.read_text(encoding="utf-8"))
    return list(zip((kind.strip() for kind in parts[::2]), parts[1::2], strict=True))


def shown(text: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; what its last line is, if that is an expression."""
    body = ast.parse(text).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
    return None if last is None else eval(ast.unparse(last), names)


def test_it_is_text_that_jupytext_opens() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:\n#   jupytext:\n")
    assert "format_name: percent" in text.split("# ---")[1]
    assert {kind for kind, _ in cells()} == {"", "[markdown]"}
    for kind, part in cells():
        lines = [line for line in part.splitlines() if line]
        assert lines
        assert all(line.startswith("#") for line in lines) == (kind == "[markdown]")


def test_every_cell_runs_and_shows_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")  # what earlier tests left open
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    figures, seen = 0, []
    for kind, text in cells():
        if kind:
            continue
        value = shown(text, names)
        assert value is not None, text
        seen.append(value)
        for number in pyplot.get_fignums():
            axes = pyplot.figure(number).axes
            drawn = [np.asarray(line.get_ydata(), float) for line in axes[0].lines]
            drawn += [np.ma.getdata(one.get_array()) for one in axes[0].collections]
            assert drawn
            assert all(np.isfinite(values).all() and np.ptp(values) > 0 for values in drawn), text
            assert axes[0].get_title()
            figures += 1
        pyplot.close("all")
    assert figures == 4
    assert sum(hasattr(value, "_repr_html_") for value in seen) == 3
    assert "plots/range_mlp_fc2_all.png" in map(str, seen[-1])
    assert (tmp_path / seen[-1][0]).stat().st_size > 10_000
    ranges = xr.open_zarr(tmp_path / "ranges.zarr", consolidated=False)
    assert ranges["tensor_max"].equals(names["fc2"]["tensor_max"])
