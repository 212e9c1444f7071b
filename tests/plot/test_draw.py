"""From a store to figures: which groups, which options, and `taqstore plot` as typed."""

from __future__ import annotations

import csv
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from support.cli_runner import Runner
from support.plot_inputs import LAYERS, exact, observed, pooled_postgelu, timestep_stats
from taqstore.analysis import error
from taqstore.errors import MissingError, TaqError
from taqstore.files.tables import to_table
from taqstore.names import EXTREMA
from taqstore.plot import FIGURES, FigureKind
from taqstore.plot.draw import draw, pages
from taqstore.plot.parts.panels import Page
from taqstore.store.reader import open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(
    images=2, steps=6, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(4, 3),
    channels=4, stats_stride=2, cache_stride=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "s.zarr", shape=SHAPE)


def test_pages_are_made_one_by_one_and_nothing_is_written(tmp_path: Path) -> None:
    made = pages("ridgeline", {"activations/mlp.fc2": observed()}, layers=["*.img"])
    first = next(made)
    assert isinstance(first, Page)
    assert first.stem == "ridgeline_mm0_img_mlp_fc2"
    assert isinstance(first.figure, Figure)
    assert [page.stem for page in made] == ["ridgeline_mm1_img_mlp_fc2"]
    written, notes = draw("ridgeline", {"activations/mlp.fc2": observed()}, tmp_path, formats=())
    assert written[0].name == f"{first.stem}.csv"
    assert notes == []


def test_sites_that_lack_something_are_passed_over_with_a_line() -> None:
    empty = pooled_postgelu().assign(histogram=lambda d: xr.zeros_like(d["histogram"]))
    groups = {"pooled/postgelu/mlp.fc1": empty, "pooled/postgelu/mlp.fc2": pooled_postgelu()}
    lines: list[str] = []
    made = list(pages("negative", groups, on_skip=lines.append))
    assert [page.stem for page in made] == ["negative_mlp_fc2"]
    assert lines == ["plot negative: no values were counted in any histogram"]
    with pytest.raises(MissingError, match=r"^plot negative: no values were counted"):
        next(pages("negative", {"pooled/postgelu/mlp.fc1": empty}))


def test_groups_without_a_batch_yet_are_not_chosen() -> None:
    new = observed().isel(batch=[])
    groups = {"activations/mlp.fc2": new, "pooled/timestep_stats/mlp.fc2": timestep_stats()}
    (page, *_) = pages("range", groups)
    assert "averaged" not in page.stem
    assert "means over images" in page.figure.get_suptitle()
    with pytest.raises(MissingError, match=r"no group can show 'sqnr' \(found activations/mlp.fc2"):
        next(pages("sqnr", {"activations/mlp.fc2": new}))


def test_boxes_take_the_channel_histograms_of_a_site_where_there_are_any() -> None:
    groups = {
        "activations/attn.qkv": exact(),
        "activations/mlp.fc2": exact(),
        "channel_histograms/mlp.fc2": exact(by_channel=True),
    }
    titles = {page.stem: page.figure.get_suptitle() for page in pages("box", groups)}
    assert "largest value" in titles["box_mm0_img_attn_qkv"]
    assert "all values" in titles["box_mm0_img_mlp_fc2"]
    (page, *_) = pages("box", groups, group="activations/mlp.fc2")
    assert "largest value" in page.figure.get_suptitle()
    groups["channel_histograms/mlp.fc2"] = groups["channel_histograms/mlp.fc2"].isel(batch=[])
    titles = {page.stem: page.figure.get_suptitle() for page in pages("box", groups)}
    assert "largest value" in titles["box_mm0_img_mlp_fc2"]


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, list[str]]]]:
    """A kind over sites that takes down which layers of which groups it was given."""
    seen: list[dict[str, dict[str, list[str]]]] = []

    def make(groups: dict[str, xr.Dataset], **options: object) -> Iterator[Page]:
        sides = {"groups": groups, **options}
        seen.append(
            {
                name: {path: list(map(str, data["layer"].values)) for path, data in side.items()}
                for name, side in sides.items()
                if isinstance(side, dict)
            }
        )
        yield Page("echo", Figure(), to_table(xr.Dataset({"a": ("step", [1])})))

    module = ModuleType("echo_figure")
    monkeypatch.setattr(module, "make", make, raising=False)
    monkeypatch.setitem(sys.modules, "echo_figure", module)
    row = FigureKind(
        "", "echo_figure:make", "sites", EXTREMA, options=("other", "bits"), needs=("other",)
    )
    monkeypatch.setitem(FIGURES, "echo", row)
    return seen


def test_kinds_over_sites_get_both_stores_sliced_to_the_layers(
    echo: list[dict[str, dict[str, list[str]]]],
) -> None:
    first = {"activations/mlp.fc1": observed(), "pooled/timestep_stats/mlp.fc2": timestep_stats()}
    second = {"pooled/timestep_stats/mlp.fc2": timestep_stats()}
    assert len(list(pages("echo", first, other=second, layers=["*.txt"]))) == 1
    both = {"pooled/timestep_stats/mlp.fc2": ["mm0.txt"]}
    assert echo == [{"groups": both, "other": both}]
    list(pages("echo", first, other=first))
    assert echo[1]["groups"] == {"activations/mlp.fc1": list(LAYERS)}
    with pytest.raises(MissingError, match="mm7"):
        list(pages("echo", first, other=second, layers=["mm7.*"]))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("range", {"bits": 4}, r"plot range takes no option 'bits'; it takes none"),
        ("sqnr", {"momentum": 0.5}, r"plot sqnr takes no option 'momentum'; there is bits"),
        ("summary", {"bits": 4}, r"plot summary takes no option 'bits'"),
        ("echo", {}, r"plot echo needs the option 'other'"),
    ],
)
def test_options_a_kind_does_not_take_are_named(
    kind: str, options: dict[str, object], message: str, tmp_path: Path, echo: object,
) -> None:  # fmt: skip
    if kind == "echo":
        with pytest.raises(TaqError, match=message):
            pages(kind, {"activations/mlp.fc2": observed()}, **options)
    else:
        with pytest.raises(TaqError, match=message):
            draw(kind, {"activations/mlp.fc2": observed()}, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind", [word for word, row in FIGURES.items() if "bits" not in row.options]
)
def test_bits_are_refused_by_kinds_that_take_none(taq: Runner, kind: str) -> None:
    shown = taq("plot", kind, "nowhere.zarr", "-o", "out", "--bits", "4")
    assert shown.code == 2
    assert f"plot {kind} takes no --bits" in shown.err
    assert shown.out == ""


def test_options_on_the_command_line_have_the_names_of_the_library(taq: Runner) -> None:
    flags = {"bits": "4", "momentum": "0.5", "step": "1", "average": "5", "orders": "3"}
    for kind, row in FIGURES.items():
        given = [part for flag, value in flags.items() if flag in row.options
                 for part in (f"--{flag}", value)]  # fmt: skip
        given += ["--against", "nowhere.zarr"] if "other" in row.needs else []
        shown = taq("plot", kind, "nowhere.zarr", "-o", "out", *given)
        # The options are fine; the store is not there.
        assert (shown.code, "nowhere.zarr" in shown.err) == (1, True), (kind, shown)


def test_a_second_store_is_asked_for(taq: Runner) -> None:
    shown = taq("plot", "diff", "a.zarr", "-o", "out")
    assert shown.code == 2
    assert "plot diff needs --against" in shown.err


def test_sqnr_as_typed_writes_what_the_analysis_says(
    taq: Runner, store: Path, tmp_path: Path
) -> None:
    shown = taq("plot", "sqnr", store, "-o", tmp_path, "--bits", "5", "--format", "svg")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines() == [str(tmp_path / f"sqnr_5bit.{s}") for s in ("svg", "csv")]
    with (tmp_path / "sqnr_5bit.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    opened = open_store(store)
    for site in ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2"):
        expected = error(opened[f"activations/{site}"], bits=5)["sqnr"].compute()
        mine = [row for row in rows if row["layer"].endswith(f".{site}")]
        assert len(mine) == expected.size
        for row in mine:
            layer = row["layer"].removesuffix(f".{site}")
            assert float(row["sqnr"]) == float(expected.sel(layer=layer, step=int(row["step"])))


@pytest.mark.parametrize("kind", ["ridgeline", "channelmap", "box", "heatmap"])
def test_pictures_of_a_store_as_typed(kind: str, taq: Runner, store: Path, tmp_path: Path) -> None:
    options = ["--layer", "mm1.img", "--group", "activations/mlp.fc2", "--format", "svg"]
    shown = taq("plot", kind, store, "-o", tmp_path, *options, "--format", "png")
    assert (shown.code, shown.err) == (0, "")
    files = [Path(line) for line in shown.out.splitlines()]
    assert {path.suffix for path in files} == {".svg", ".png", ".csv"}
    for path in files:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    if kind == "channelmap":
        group = open_store(store)["activations/mlp.fc2"].sel(layer="mm1.img")
        expected = np.maximum(abs(group["min"]), abs(group["max"])).max("batch").values
        with files[-1].open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["panel"] == "all"]
        got = np.array([float(row["absmax"]) for row in rows]).reshape(expected.shape)
        np.testing.assert_array_equal(got, expected.astype(np.float64))
