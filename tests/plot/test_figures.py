"""The table of figures is the only list and light; a new figure is one file and one row."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import taqstore
from support.cli_runner import Runner
from support.derived_inputs import observations
from support.docs_tables import figure_table
from support.plot_inputs import observed, timestep_stats
from taqstore.plot.figures import FIGURES, FigureKind, InReport
from taqstore.report.findings import Findings, Plan, gather
from taqstore.report.page import Section
from taqstore.report.pictures import draw
from taqstore.testing import RunShape, make_store

ROOT = Path(taqstore.__file__).parent
SHAPE = RunShape(
    images=1, steps=4, blocks=1, hidden=8, image_tokens=6, text_tokens=3, latent=(4, 3),
    channels=4, stats_stride=2, cache_stride=3,
)  # fmt: skip
TOY = '''"""Absmax of the first layer at every step."""

from matplotlib.figure import Figure

from taqstore.plot.parts.panels import Page, page_stem, table
from taqstore.plot.parts.views import extrema


def toy_pages(view, site, *, bits=8):
    data = extrema(view).max("channel").isel(layer=[0])[["upper"]].compute()
    figure = Figure()
    figure.subplots().plot(data["upper"].values[:, 0])
    yield Page(page_stem("toy", site, f"{bits}bit"), figure, table(data))
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FigureKind:
    """A figure added as anyone would: one file, one row."""
    (tmp_path / "toy_figure.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    row = FigureKind(
        "largest value of the first layer",
        "toy_figure:toy_pages",
        "site",
        (("min", "max"),),
        options=("bits",),
        report=InReport("toys", "Toys of {focus} at {low} bits.", "site"),
    )
    monkeypatch.setitem(FIGURES, "toy", row)
    # The command is made from the table when its file is imported.
    monkeypatch.delitem(sys.modules, "taqstore.cli.plot", raising=False)
    return row


def test_a_new_row_is_in_the_help_and_in_the_docs(taq: Runner, toy: FigureKind) -> None:
    shown = taq("plot", "--help")
    assert f"  toy           {toy.doc} (--bits)\n" in shown.out
    assert f"| `toy` | {toy.doc} | `min`, `max` | `bits` |" in figure_table()
    refused = taq("plot", "toy", "s.zarr", "-o", "out", "--step", "1")
    assert (refused.code, "plot toy takes no --step" in refused.err) == (2, True)


def test_a_new_row_is_drawn_by_the_command(taq: Runner, toy: FigureKind, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", shape=SHAPE)
    group = ("--group", "activations/mlp.fc2")
    shown = taq("plot", "toy", store, "-o", tmp_path / "out", "--bits", "3", *group)
    assert (shown.code, shown.err) == (0, "")
    picture, table = (Path(line) for line in shown.out.splitlines())
    assert picture.name == "toy_mlp_fc2_3bit.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    first = taqstore.open_store(store)["activations/mlp.fc2"].isel(layer=0)
    expected = first["max"].max(["batch", "channel"]).values
    assert [float(row["upper"]) for row in rows] == expected.tolist()


def test_a_new_row_stands_in_its_section_of_the_report(toy: FigureKind) -> None:
    groups = {"activations/mlp.fc2": observed(), "activations/mlp.fc1": observed()}
    plan, findings = Plan("activations", (8, 4), 6.0, None), Findings({}, {})
    section = Section("toys", "Toys?", "Yes.", focus="mlp.fc1")
    (picture,) = draw(groups, section, plan, findings)
    assert picture.caption == "Toys of mlp.fc1 at 4 bits."
    assert picture.svg.startswith("<svg")
    assert draw(groups, Section("toys", "Toys?", "Not known."), plan, findings) == ()
    assert draw(groups, Section("other", "Others?", "Yes."), plan, findings) == ()


@pytest.mark.parametrize("projections", [False, True])
def test_pictures_of_known_answers_are_those_of_the_groups(projections: bool) -> None:
    prefix = "pooled/timestep_stats" if projections else "activations"
    group = timestep_stats(projections=True) if projections else observations()
    groups = {f"{prefix}/attn.qkv": group}
    plan = Plan(prefix, (8, 4), 6.0, None)
    known, nothing = gather(groups, plan), Findings({}, {})
    places = [
        row.report for row in FIGURES.values() if row.report and row.report.section != "judged"
    ]
    for key in dict.fromkeys(place.section for place in places if place.shows != "linear"):
        section = Section(key, "", "", focus="attn.qkv" if key in ("asymmetry", "drift") else "")
        drawn = draw(groups, section, plan, nothing)
        assert drawn
        assert draw(groups, section, plan, known) == drawn


def test_every_word_has_its_file_and_every_file_its_word() -> None:
    files = {path.stem for path in (ROOT / "plot" / "kinds").glob("*.py")} - {"__init__"}
    assert files == set(FIGURES)


@pytest.mark.parametrize("word", FIGURES)
def test_rows_are_whole(word: str) -> None:
    row = FIGURES[word]
    assert row.source.startswith(f"taqstore.plot.kinds.{word}:")
    assert callable(row.load())
    assert row.doc
    assert "\n" not in row.doc
    assert bool(row.requires) == (row.made != "store") == (not row.groups) == (not row.maker)
    assert set(row.needs) <= set(row.options)
    pages = (ROOT.parent / "README.md", *(ROOT.parent / "docs").glob("*.md"))
    assert any(f"`{word}`" in page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import taqstore.plot; dir(taqstore.plot)", ()),
        ("import taqstore.plot; taqstore.plot.FIGURES", ()),
        (
            "from taqstore.cli import cli; cli(['plot', '--help'], standalone_mode=False)",
            ("click",),
        ),
        ("import taqstore.plot.parts.views", ("numpy", "xarray")),
    ],
)
def test_the_table_is_light(code: str, allowed: tuple[str, ...]) -> None:
    heavy = ("click", "numpy", "xarray", "matplotlib")
    program = f"{code}\nimport sys\nprint('LOADED', *[n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout.rpartition("LOADED")[2].split() == list(allowed)


def test_the_face_offers_what_it_names() -> None:
    plot = importlib.import_module("taqstore.plot")
    for name in plot.__all__:
        assert getattr(plot, name) is not None
    assert {"draw", "evaluation", "kinds", *plot.__all__} <= set(dir(plot))
