"""A row makes an analysis of a whole store, of two stores, with a verdict: library, CLI, docs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from support.cli_runner import Runner
from support.docs_tables import analyses_table
from taqstore import open_store
from taqstore.analysis import ANALYSES
from taqstore.analysis.shared.option import Option
from taqstore.analysis.shared.row import SELECTION, Analysis
from taqstore.errors import MisuseError, TaqError
from taqstore.query import analyze
from taqstore.query.analyze import whole_tables, write_results
from taqstore.query.diff import option_names
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
Groups = Mapping[str, xr.Dataset]


def widest(groups: Groups, *, factor: float = 1.0) -> dict[str, xr.Dataset]:
    """The widest tensor of every group of statistics, and how many groups there are."""
    held = [path for path in groups if path.startswith("activations/")]
    width = [float(groups[path]["tensor_max"].max()) * factor for path in held]
    result = xr.Dataset({"width": ("group", width)}, {"group": held})
    bad = f"{held[0]} is too wide" if max(width) > 1000 else ""
    return {"widest": result.assign_attrs(failure=bad)}


def paired(first: Groups, second: Groups) -> dict[str, xr.Dataset]:
    """Groups of two stores."""
    return {
        name: xr.Dataset({"count": ("store", [len(list(groups))])})
        for name, groups in (("first", first), ("second", second))
    }


def named_parts(
    groups: Groups, *, sites: Sequence[str] = (), layer: str | None = None
) -> dict[str, xr.Dataset]:
    """What was chosen."""
    return {"it": xr.Dataset({"site": ("row", [*sites, layer or ""])})}


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = Option("factor", "Times this.", default=1.0, least=0, most=1e9)
    toys = {
        "widest": Analysis("The widest.", f"{__name__}:widest", (factor,), whole=True,
                           fails=True, selects=SELECTION),
        "paired": Analysis("Two.", f"{__name__}:paired", whole=True, second=True),
        "parts": Analysis("Parts.", f"{__name__}:named_parts", whole=True,
                          selects=("site", "layer")),
    }  # fmt: skip
    for name, row in toys.items():
        monkeypatch.setitem(ANALYSES, name, row)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_store(tmp_path_factory.mktemp("whole") / "run.zarr", shape=SHAPE))


def test_the_function_is_given_the_statistics_that_were_chosen(store: Path, taq: Runner) -> None:
    opened = open_store(store)
    whole = analyze("widest", opened)["widest"]
    assert whole["group"].values.tolist() == [p for p in opened if p.startswith("activations/")]
    sliced = analyze("widest", opened, sites=["mlp.fc1"], selection={"step": "1:4"})["widest"]
    direct = opened["activations/mlp.fc1"].sel(step=[3])["tensor_max"].max()
    assert sliced["width"].values.tolist() == [float(direct)]
    assert taq("analyze", "widest", store, "--site", "mlp.fc9").code == 2


def test_a_table_has_no_site_and_names_where_there_are_several(store: Path, taq: Runner) -> None:
    (table,) = json.loads(taq("analyze", "widest", store, "--json").out)["tables"]
    assert table["dims"] == ["group"]
    assert list(table["rows"][0]) == ["group", "width"]
    (both,) = whole_tables(analyze("paired", open_store(store), other=open_store(store)))
    assert both.columns.tolist() == ["name", "store", "count"]
    assert both["name"].tolist() == ["first", "second"]


def test_results_are_written_by_suffix(store: Path, taq: Runner, tmp_path: Path) -> None:
    for suffix in (".csv", ".nc"):
        done = taq("analyze", "widest", store, "-o", tmp_path / f"w{suffix}")
        assert done.code == 0, done.err
    read = pd.read_csv(tmp_path / "w.csv")
    np.testing.assert_allclose(xr.load_dataset(tmp_path / "w.nc")["width"], read["width"])
    for suffix in (".nc", ".zarr"):
        refused = taq("analyze", "paired", store, store, "-o", tmp_path / f"p{suffix}")
        assert refused.code == 1
        assert "holds one result" in refused.err
        assert "use --json" in refused.err


def test_no_file_is_advised_that_would_be_refused(tmp_path: Path) -> None:
    one, two = (xr.Dataset({f"{d}_x": (d, [1.0])}, {d: [0]}) for d in ("step", "image"))
    several = {"first": one, "second": two}
    both = {"first": one.assign(two)}
    for results, whole, advice in (
        (several, True, "; use --json"),
        (both, True, "; use --json, or -o FILE.nc"),
        (several, False, "; use --json, or --site with -o FILE.nc"),
    ):
        with pytest.raises(TaqError) as refused:
            write_results(results, tmp_path / "x.csv", whole=whole)
        assert str(refused.value).endswith(advice), refused.value


def test_a_verdict_is_an_exit_code_when_asked_for(store: Path, taq: Runner) -> None:
    good = taq("analyze", "widest", store, "--fail")
    assert good.code == 0, good.err
    said = taq("analyze", "widest", store, "--factor", 1e8)
    bad = taq("analyze", "widest", store, "--factor", 1e8, "--fail")
    assert (said.code, bad.code) == (0, 1)
    assert bad.out == said.out
    assert "attn.o_proj is too wide" in bad.err
    assert "attn.o_proj is too wide" in said.err
    assert taq("analyze", "scales", store, "--fail").code == 2


def test_a_second_store_is_needed_or_refused(store: Path, taq: Runner) -> None:
    assert taq("analyze", "paired", store, store).code == 0
    assert taq("analyze", "paired", store).code == 2
    assert taq("analyze", "widest", store, store).code == 2
    assert taq("analyze", "scales", store, store).code == 2
    assert taq("analyze", "paired", store, store.with_name("none.zarr")).code == 1
    opened = open_store(store)
    for name, other in (("scales", opened), ("widest", opened), ("paired", None)):
        with pytest.raises(MisuseError, match=f"{name} .* second store"):
            analyze(name, opened, other=other)


@pytest.mark.parametrize("word", SELECTION)
def test_a_choice_that_makes_no_sense_is_refused(word: str, store: Path, taq: Runner) -> None:
    assert taq("analyze", "paired", store, store, f"--{word}", "1").code == 2
    opened, more = open_store(store), {}
    if word in ("source", "site"):
        more = {"source": "activations"} if word == "source" else {"sites": ["mlp.fc1"]}
    else:
        more = {"selection": {word: "1"}}
    with pytest.raises(MisuseError, match=f"paired cannot choose by {word}"):
        analyze("paired", opened, other=opened, **more)  # type: ignore[arg-type]


def test_without_statistics_the_choice_is_handed_over(store: Path, taq: Runner) -> None:
    shown = taq("analyze", "parts", store, "--site", "mlp.fc1", "--layer", "mm0*", "--csv")
    assert shown.out.split() == ["row,site", "0,mlp.fc1", "1,mm0*"]
    assert taq("analyze", "parts", store, "--step", "1").code == 2
    opened: Any = open_store(store)
    assert analyze("parts", opened)["it"]["site"].values.tolist() == [""]


def test_rows_are_in_the_docs_and_no_analysis_of_a_site(store: Path, taq: Runner) -> None:
    assert "| `widest` | The widest. | `--factor` |\n" in analyses_table()
    with pytest.raises(MisuseError, match="widest is of whole stores"):
        option_names("widest")
    words = ("activations/mlp.fc1", "min", "--analysis", "widest")
    assert taq("diff", store, store, *words).code == 2
