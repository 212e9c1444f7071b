"""A source, a source of statistics, an exporter and a model are a row each: nothing else to edit.

Each toy has its code in one file of `support`; its row is put into the table, and it is there in
choices, help and tables of docs, and works to the end.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr
from taqstore.pipelines.models.table import MODELS
from taqstore.pipelines.sources.table import SOURCES, SourceRow

from support.cli_runner import Runner
from support.docs_tables import (
    exporters_table,
    models_table,
    sources_table,
    statistics_sources_table,
)
from support.live_capture import needs_models
from support.toy_source import PREFIX, write_toy
from taqstore import open_store
from taqstore.analysis.shared.inputs import require
from taqstore.errors import MissingError
from taqstore.export.formats import FORMATS, Format
from taqstore.export.options import SOURCE
from taqstore.kinds.statistics_sources import STATISTICS, StatisticsSource, preferred
from taqstore.testing import make_activations


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys in their tables, and commands made anew from these."""
    source = SourceRow("toy", "a toy of ranges", (f"{PREFIX}/<site>",), module="support.toy_source")
    monkeypatch.setitem(SOURCES, "toy", source)
    places = {"analyses": 1, "figures": 1, "extrema": 1}
    statistics = StatisticsSource(PREFIX, "ranges of a toy", ("min", "max", "spin"), places)
    monkeypatch.setitem(STATISTICS, PREFIX, statistics)
    exporter = Format("ranges as toy lines", "support.toy_exporter:toy", options=(SOURCE,))
    monkeypatch.setitem(FORMATS, "toy", exporter)
    for module in ("ingest", "export", "model_options", "generate", "cache_plan", "cache"):
        monkeypatch.delitem(sys.modules, f"taqstore.cli.{module}", raising=False)


@pytest.fixture
def store(rows: None, taq: Runner, tmp_path: Path) -> Path:
    """The toy and a folder of statistics in one store."""
    path = tmp_path / "run.zarr"
    activations = make_activations(tmp_path / "activations")
    done = taq("ingest", write_toy(tmp_path / "t.json"), activations, path)
    assert done.code == 0, done.err
    return path


def test_a_source_is_offered_found_planned_and_stored(store: Path, taq: Runner) -> None:
    assert "| `toy` | a toy of ranges | `pooled/toy/<site>` |\n" in sources_table()
    shown = taq("ingest", "--help")
    assert "|toy]" in shown.out
    assert "toy          a toy of ranges" in shown.out
    group = open_store(store)["pooled/toy/mlp.fc2"]
    assert group["max"].sel(step=1, layer="mm0.txt").values.tolist() == [13, 14, 15, 16]
    only = store.with_name("only.zarr")
    assert taq("ingest", store.with_name("t.json"), only, "--only", "toy").code == 0
    assert list(open_store(only)) == ["pooled/toy/mlp.fc2"]


def test_what_is_accepted_is_said_where_nothing_is_found(
    rows: None, taq: Runner, tmp_path: Path
) -> None:
    refused = taq("ingest", tmp_path, tmp_path / "s.zarr")
    assert refused.code == 1
    assert "; a toy of ranges" in refused.err


def test_a_source_of_statistics_is_preferred_by_its_row(store: Path, taq: Runner) -> None:
    row = "| `pooled/toy` | ranges of a toy | `min`, `max`, `spin` |"
    assert row in statistics_sources_table()
    assert preferred("analyses")[0] == preferred("extrema")[0] == PREFIX
    assert "activations" in preferred("analyses")
    by_default = taq("analyze", "scales", store, "--csv").out
    assert by_default == taq("analyze", "scales", store, "--csv", "--source", "toy").out
    other = taq("analyze", "scales", store, "--csv", "--source", "pooled/timestep_stats").out
    assert other != by_default
    act_scales = store.with_name("a.npz")
    assert taq("export", "act-scales", store, "-o", act_scales).code == 0
    drawn = taq("plot", "range", store, "-o", store.with_name("plots"))
    assert drawn.code == 0, drawn.err


def test_what_holds_a_missing_variable_is_named(rows: None) -> None:
    with pytest.raises(MissingError, match=r"use activations/<site> or .* or pooled/toy/<site>"):
        require(xr.Dataset(), ("min", "max"), analysis="scales")
    with pytest.raises(MissingError, match=r"; use pooled/toy/<site>$"):
        require(xr.Dataset(), ("spin",), analysis="dance")


def test_an_exporter_is_offered_refuses_and_writes(store: Path, taq: Runner) -> None:
    assert "| `toy` | ranges as toy lines | `--source` |\n" in exporters_table()
    assert "ranges as toy lines" in taq("export", "--help").out
    out = store.with_name("toy.txt")
    refused = taq("export", "toy", store, "-o", out, "--clip", "p999")
    assert (refused.code, out.exists()) == (2, False)
    assert "--clip does not go with toy" in refused.err
    assert taq("export", "toy", store, "-o", out).code == 0
    assert out.read_text() == "mlp.fc2 24.0"


def test_a_model_is_offered_and_refused_by_its_row(
    rows: None, taq: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MODELS, "toy", replace(MODELS["reference"], name="toy", doc="a toy"))
    assert "| `toy` | a toy |" in models_table()
    for command in ("generate", "cache"):
        assert "toy]" in taq(command, "--help").out.replace("\n", "").replace(" ", "")
    (tmp_path / "p.txt").write_text("a zero", encoding="utf-8")
    options = ["--prompts", tmp_path / "p.txt", "--images", "1", "--steps", "2"]
    refused = taq("generate", tmp_path / "run.zarr", "--model", "toyed", *options)
    assert refused.code == 2
    assert "did you mean toy?" in refused.err


@needs_models
def test_a_model_runs_by_its_row(
    rows: None, taq: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MODELS, "toy", replace(MODELS["reference"], name="toy", doc="a toy"))
    (tmp_path / "p.txt").write_text("a zero", encoding="utf-8")
    options = ["--prompts", tmp_path / "p.txt", "--images", "1", "--steps", "2"]
    done = taq("generate", tmp_path / "run.zarr", "--model", "toy", *options)
    assert done.code == 0, done.err
    assert open_store(tmp_path / "run.zarr")["latents"].sizes["step"] == 3


@pytest.mark.parametrize("module", ["ingest", "generate", "gptq", "evaluate", "export"])
def test_help_of_a_command_imports_no_arrays(module: str) -> None:
    code = f"import taqstore.cli.{module}, sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "click" in loaded
    assert not {"numpy", "xarray", "zarr", "dask", "mlx"} & set(loaded)


def test_the_tables_say_what_is_stored(tmp_path: Path, taq: Runner) -> None:
    """What a row says a source holds is what ingesting one puts into its groups."""
    store = tmp_path / "run.zarr"
    assert taq("ingest", make_activations(tmp_path / "activations"), store).code == 0
    opened = open_store(store)
    held = {str(name) for path in opened for name in opened[path].data_vars}
    assert held <= set(STATISTICS["pooled/timestep_stats"].holds)
    assert {"avg_min", "shift"} <= held
