"""One row makes a clip rule or an analysis: found in the library, CLI, plots, report and docs."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from support.cli_runner import Runner
from support.derived_inputs import two_sites
from support.docs_tables import analyses_table, options_table, rules_table
from support.statistics_synthetic import activations, observed
from taqstore.analysis import ANALYSES, RULES, curve, error, scales, temporal
from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.from_extrema import extrema
from taqstore.analysis.ranges.rules import ClipRule
from taqstore.analysis.shared.inputs import Bounds
from taqstore.analysis.shared.option import Option
from taqstore.analysis.shared.row import Analysis
from taqstore.errors import TaqError
from taqstore.faces import named
from taqstore.files.tables import to_table
from taqstore.plot.draw import pages
from taqstore.query import analyze
from taqstore.report.costs import configurations
from taqstore.report.findings import Plan, gather
from taqstore.testing import make_store

SITE = "activations/mlp.fc1"


def half(dataset: xr.Dataset, clip: Clip, scheme: Any, **others: Any) -> Bounds:
    """A clip rule: half of the extrema."""
    return Bounds(*(end / 2 for end in extrema(dataset, clip, scheme, **others)))


def widths(dataset: xr.Dataset, *, factor: float = 1.0) -> xr.Dataset:
    """An analysis: ranges of tensors, times a factor."""
    width = dataset["tensor_max"].astype(np.float64) - dataset["tensor_min"]
    return xr.Dataset({"width": width.max("batch") * factor})


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> ClipRule:
    row = ClipRule(
        "half of the extrema",
        "half of the largest |x|",
        f"{__name__}:half",
        "extrema",
        options=("momentum",),
        mark=("h", "#123456"),
        compared=True,
    )
    monkeypatch.setitem(RULES, "half", row)
    return row


@pytest.fixture
def analysis(monkeypatch: pytest.MonkeyPatch) -> Analysis:
    options = (Option("factor", "Times this.", default=1.0, least=0, most=10),)
    row = Analysis("How wide tensors are.", f"{__name__}:widths", options)
    monkeypatch.setitem(ANALYSES, "widths", row)
    return row


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc1", activations("mlp.fc1"), mantissa_bits=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_store(tmp_path_factory.mktemp("tables") / "run.zarr"))


def printed(taq: Runner, *arguments: Any) -> str:
    shown = taq(*arguments)
    assert shown.code == 0, shown.err
    return " ".join(shown.out.split())


@pytest.mark.usefixtures("rule")
def test_a_new_rule_works_in_the_library_and_in_the_cli(
    taq: Runner, group: xr.Dataset, store: Path
) -> None:
    halved, whole = (scales(group, clip=name) for name in ("half", "absmax"))
    np.testing.assert_array_equal(halved["alpha"], whole["alpha"] / 2)
    assert (halved.attrs["clip"], "momentum" in halved.attrs) == ("half", True)
    command = ("analyze", "scales", store, "--site", "mlp.fc1", "--csv", "--clip")
    whole_words, halved_words = (
        [line.split(",") for line in taq(*command, name).out.splitlines()]
        for name in ("absmax", "half")
    )
    assert halved_words[0] == whole_words[0]
    at = whole_words[0].index("alpha")
    assert len(whole_words) > 2
    for whole_row, halved_row in zip(whole_words[1:], halved_words[1:], strict=True):
        assert float(halved_row[at]) == float(whole_row[at]) / 2


@pytest.mark.usefixtures("rule")
def test_a_new_rule_is_in_choices_and_help(taq: Runner) -> None:
    for word in ("scales", "error"):
        text = printed(taq, "analyze", word, "--help")
        assert "entropy|half]" in text.replace(" ", "")
        assert "With --clip ema or half: weight" in text
    assert "[absmax|mse]" in printed(taq, "analyze", "temporal", "--help")  # half takes an option


@pytest.mark.usefixtures("rule")
def test_what_a_new_rule_does_not_take_is_refused(taq: Runner, group: xr.Dataset) -> None:
    with pytest.raises(TaqError, match="order goes with clip ema, not with half"):
        scales(group, clip="half", order=(0, 1, 2, 3))
    with pytest.raises(TaqError, match=r"'thirds' is not known; there is absmax, .*entropy, half"):
        scales(group, clip="thirds")


def test_a_new_rule_without_options_has_a_static_cost(
    rule: ClipRule, taq: Runner, group: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaqError, match=r"'half' is not known; there is absmax, mse$"):
        temporal(group, clip="half")
    monkeypatch.setitem(RULES, "half", replace(rule, options=()))
    assert "[absmax|mse|half]" in printed(taq, "analyze", "temporal", "--help")
    priced = [temporal(group, clip=name)["per_step_error"] for name in ("half", "absmax")]
    direct = error(group, clip="half")["error"]
    np.testing.assert_allclose(priced[0], direct, rtol=1e-9)
    assert (priced[0] > priced[1]).all()


def test_a_new_rule_is_marked_in_figures(rule: ClipRule, group: xr.Dataset) -> None:
    marks = curve(group.isel(step=[4]))["rule"].values.tolist()
    assert marks == [name for name, row in RULES.items() if row.mark]
    page = next(pages("curve", two_sites()))
    assert any(text.get_text().startswith("half: α") for text in page.figure.legends[0].get_texts())
    (line,) = [x for x in page.figure.axes[0].lines if str(x.get_label()).startswith("half")]
    assert (line.get_marker(), line.get_color()) == rule.mark
    assert "half" in set(page.table["rule"])


def test_a_new_rule_is_priced_in_the_report(rule: ClipRule, group: xr.Dataset) -> None:
    plan = Plan("activations", (8, 4), 6.0, None)
    section = configurations(gather({SITE: group}, plan), plan)
    (table,) = section.tables
    rows = [row for row in table.rows if row[0] == f"half: {rule.label}"]
    assert [row[1] for row in rows] == ["each its own", "all together"]
    assert all("dB" in cell for row in rows for cell in row[2:])


def test_a_new_rule_is_in_the_docs(rule: ClipRule) -> None:
    assert rules_table().splitlines()[-1] == f"| `half` | {rule.doc} | extrema | `momentum` |"
    assert "`half`" in options_table("scales")


@pytest.mark.usefixtures("analysis")
def test_a_new_analysis_is_a_subcommand(taq: Runner, store: Path, tmp_path: Path) -> None:
    assert "widths How wide tensors are." in printed(taq, "analyze", "--help")
    text = printed(taq, "analyze", "widths", "--help")
    assert "--factor FLOAT RANGE Times this. [default: 1.0; 0<=x<=10]" in text
    target = tmp_path / "w.csv"
    printed(taq, "analyze", "widths", store, "--factor", 2, "-o", target)
    once = to_table(analyze("widths", _store(store))["activations/mlp.fc1"])
    written = pd.read_csv(target).query("site == 'mlp.fc1'")
    np.testing.assert_allclose(written["width"], 2 * once["width"], rtol=1e-6)
    assert taq("analyze", "widths", store, "--factor", 11).code == 2


@pytest.mark.usefixtures("analysis")
def test_a_new_analysis_is_in_the_docs() -> None:
    assert analyses_table().splitlines()[-1] == "| `widths` | How wide tensors are. | `--factor` |"
    assert options_table("widths").endswith(
        "| `--factor` | float 0 to 10 | `1.0` | Times this. |\n"
    )


def _store(path: Path) -> Any:
    from taqstore import open_store

    return open_store(path)


@pytest.mark.parametrize("word", ANALYSES)
def test_an_analysis_is_found_where_its_word_says(word: str) -> None:
    row = ANALYSES[word]
    assert row.function == f"taqstore.analysis.{word}:{word}"
    assert row.doc.endswith(".")


@pytest.mark.parametrize("word", ANALYSES)
def test_options_are_declared_with_the_defaults_of_the_functions(word: str) -> None:
    row = ANALYSES[word]
    functions = [row.load(), *([named(row.joint)] if row.joint else [])]
    for option in row.options:
        if option.bundle:
            (field,) = (
                x for x in fields(named(row.bundles[option.bundle])) if x.name == option.name
            )
            assert field.default is not MISSING
            assert option.default in (None, field.default)
            continue
        for function in functions:
            parameter = inspect.signature(function).parameters[option.name]
            default = None if option.when and option.type is not bool else option.default
            assert parameter.default == default, option.name


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_a_function_and_takes_what_a_clip_has(name: str) -> None:
    row = RULES[name]
    assert callable(row.load())
    assert set(row.options) <= {"percentile", "momentum", "order"}
    assert set(row.options) <= set(Clip(name).stamp)


def test_rules_are_told_apart_in_figures() -> None:
    marks = [row.mark for row in RULES.values() if row.mark]
    shapes, colours = zip(*marks, strict=True)
    assert len(set(shapes)) == len(set(colours)) == len(marks)
