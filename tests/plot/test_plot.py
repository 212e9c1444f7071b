"""Figures: their axes, the files they become, and what cannot be drawn."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import taqstore
from support.plot_inputs import (
    CHANNELS,
    LAYERS,
    SIGMA,
    axes,
    large,
    observed,
    pooled_postgelu,
    raw_values,
    rows_of,
    timestep_stats,
    view_of,
)
from taqstore.analysis import diagnostics
from taqstore.errors import MissingError, MisuseError, TaqError
from taqstore.plot import FIGURES, make_pages, render
from taqstore.plot.kinds.channels import channel_data, draw_channels
from taqstore.plot.kinds.heatmap import heatmap_data
from taqstore.plot.kinds.negative import draw_negative, negative_data
from taqstore.plot.kinds.range import draw_median_range, draw_tensor_extrema, range_data
from taqstore.plot.parts import drawing as figures

KINDS = [word for word, row in FIGURES.items() if row.made == "site"]


def draw_all() -> Iterator[tuple[str, Axes]]:
    ranges = range_data(view_of(observed(), "range"))
    image = ranges.isel(layer=[0, 2])
    yield "median", draw_median_range(image, axes())
    yield "extrema", draw_tensor_extrema(image, axes())
    heat = heatmap_data(view_of(observed(), "heatmap")).isel(layer=[0, 2])
    yield "heatmap", figures.draw_heatmap(heat, axes(), variable="std")
    share = negative_data(diagnostics(view_of(observed(), "negative"))).isel(layer=[0, 2])
    yield "negative", draw_negative(share, axes())


def test_noise_is_at_the_left_and_axes_are_labelled() -> None:
    for name, ax in draw_all():
        left, right = ax.get_xlim()
        assert left >= 1.0 > right, name
        assert right <= SIGMA[-1], name
        assert "σ" in ax.get_xlabel(), name
        assert ax.get_ylabel(), name


def test_lines_hold_the_data_in_order_of_noise() -> None:
    ranges = range_data(view_of(observed().isel(step=[2, 0, 3, 1]), "range"))
    ax = draw_median_range(ranges, axes())
    assert len(ax.lines) == len(LAYERS)
    for line, stream in zip(ax.lines, ranges["stream"].values, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), SIGMA.astype(float))
        assert (line.get_linestyle(), line.get_marker()) == figures.STREAM_STYLES[stream]
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), ranges["median_range"][:, 2])


def test_heatmap_cells_stand_at_their_block_and_sigma() -> None:
    heat = heatmap_data(view_of(observed(), "heatmap")).isel(layer=[0, 2])
    far = heat.assign_coords(block=("layer", [0, 3]))
    ax = figures.draw_heatmap(far, axes(), variable="std")
    mesh = ax.collections[0].get_array()
    assert mesh is not None
    np.testing.assert_array_equal(mesh[0], heat["std"][:, 0])
    np.testing.assert_array_equal(mesh[3], heat["std"][:, 1])
    assert mesh.mask[1:3].all()
    bottom, top = ax.get_ylim()
    assert bottom == 3.5
    assert top == -0.5
    middles = (SIGMA[1:].astype(float) + SIGMA[:-1]) / 2
    edges = ax.collections[0].get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges[1:-1], middles, rtol=1e-12)
    assert edges[0] == 1.0
    assert edges[-1] == 0.0


def test_negative_map_says_the_number_of_every_row() -> None:
    share = negative_data(diagnostics(view_of(observed(), "negative"))).isel(layer=[0, 2])
    texts = [text.get_text() for text in draw_negative(share, axes()).texts]
    percent = 100 * share["negative_fraction_all"].values
    assert texts == [*(f"{value:.1f} %" for value in percent), "all steps"]


def test_outlier_channels_are_red_and_the_others_are_not() -> None:
    shown = channel_data(view_of(observed(), "channels", layers=["mm0.img"]))
    for order in ("channel", "rank"):
        ax = draw_channels(shown, axes(), order=order)
        plain, red = ax.collections
        assert to_hex(red.get_color()[0]) == figures.OUTLIER_COLOR.lower()
        segments = red.get_segments()
        assert len(segments) == 1
        assert len(plain.get_segments()) == CHANNELS - 1
        outlier = shown.isel(channel=int(shown["outlier"].values.argmax()))
        expected = [[outlier[order], outlier["lower"]], [outlier[order], outlier["upper"]]]
        np.testing.assert_array_equal(segments[0], expected)


@pytest.mark.parametrize("sigma", [None, [np.nan, 0.5, 0.2, 0.1], [1.0, 1.0, 0.5, 0.2]])
def test_steps_stand_in_where_sigma_cannot_order_them(sigma: list[float] | None) -> None:
    dataset = pooled_postgelu().drop_vars("sigma")
    if sigma is not None:
        dataset = dataset.assign_coords(sigma=("step", sigma))
    ax = draw_median_range(range_data(view_of(dataset, "range")), axes())
    assert ax.get_xlabel() == figures.STEP_LABEL
    assert not ax.xaxis_inverted()


def test_heatmap_colours_diverge_only_where_signs_differ() -> None:
    both, _ = figures.heatmap_style(np.array([-3.0, 1.0]))
    assert (both.vmin, both.vmax) == (-3.0, 3.0)
    one, _ = figures.heatmap_style(np.array([0.0, np.nan, 2.0]))
    assert (one.vmin, one.vmax) == (0.0, 2.0)
    assert type(figures.heatmap_style(np.array([1.0, 400.0]))[0]).__name__ == "LogNorm"


@pytest.mark.parametrize("kind", KINDS)
def test_pages_stay_readable_with_many_layers(kind: str) -> None:
    layers = ["mm0.img", "mm2.txt"] if kind in BY_LAYER else None
    dataset = large().rename(min="avg_min", max="avg_max")  # averaged extrema: longest titles
    for page in make_pages(kind, dataset, layers=layers, site="mlp.fc2"):
        page.figure.draw_without_rendering()
        for ax in page.figure.axes:
            legend = ax.get_legend()
            assert legend is None or len(legend.get_texts()) <= 3
            labels = [t.get_text() for t in ax.get_yticklabels() if t.get_visible()]
            assert len(labels) <= 30
        for artist in (*page.figure.axes, *page.figure.texts):
            box, paper = artist.get_tightbbox(), page.figure.bbox
            assert box is not None
            assert paper.x0 - 1 <= box.x0 < box.x1 <= paper.x1 + 1, artist
            assert paper.y0 - 1 <= box.y0 < box.y1 <= paper.y1 + 1, artist


BY_LAYER = ("histogram", "ridgeline", "channels", "channelmap", "box")
EXPECTED_STEMS = {
    "range": ["range_mlp_fc2_all", "range_mlp_fc2_image", "range_mlp_fc2_text"],
    "heatmap": [f"heatmap_mlp_fc2_{name}" for name in ("mean", "std", "absmax")],
    "negative": ["negative_mlp_fc2"],
    **{
        kind: [f"{kind}_{name}_mlp_fc2" for name in ("mm0_img", "mm0_txt", "mm1_img")]
        for kind in BY_LAYER
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_has_its_csv_beside_it(kind: str, tmp_path: Path) -> None:
    paths = render(kind, observed(), tmp_path / "new" / "plots", site="mlp.fc2")
    assert [p.name for p in paths] == [
        f"{stem}.{suffix}" for stem in EXPECTED_STEMS[kind] for suffix in ("png", "csv")
    ]
    assert sorted(p.name for p in (tmp_path / "new" / "plots").iterdir()) == sorted(
        p.name for p in paths
    )
    for path in paths:
        head = path.read_bytes()[:8]
        assert (head == b"\x89PNG\r\n\x1a\n") == (path.suffix == ".png")


def test_csv_rows_are_the_raw_numbers_under_full_names(tmp_path: Path) -> None:
    x = raw_values()
    render("range", observed(), tmp_path, site="mlp.fc2", formats=())
    rows = rows_of(tmp_path / "range_mlp_fc2_image.csv")
    assert len(rows) == len(SIGMA) * 2
    for row in rows:
        step, layer = int(row["step"]), LAYERS.index(row["layer"].removesuffix(".mlp.fc2"))
        assert np.float32(row["sigma"]) == SIGMA[step]
        assert row["stream"] == "img"
        assert float(row["tensor_max"]) == x[step, layer].max()
        expected = np.median(x[step, layer].max(0) - x[step, layer].min(0))
        assert float(row["median_range"]) == expected


def test_histogram_csv_leaves_out_empty_bins_and_loses_no_value(tmp_path: Path) -> None:
    render("histogram", pooled_postgelu(), tmp_path, layers=["mm0.txt"], site="mlp.fc2", formats=())
    rows = rows_of(tmp_path / "histogram_mm0_txt_mlp_fc2.csv")
    x = raw_values()[:, 1]
    for step in range(len(SIGMA)):
        mine = [row for row in rows if int(row["step"]) == step]
        assert all(int(row["count"]) > 0 for row in mine)
        assert sum(int(row["count"]) for row in mine) == (abs(x[step]) <= 8).sum()


def test_projections_become_linears_of_their_own_where_they_differ(tmp_path: Path) -> None:
    dataset = timestep_stats(projections=True)
    options = {"site": "attn.qkv", "formats": ()}
    paths = render("histogram", dataset, tmp_path, layers=["mm1.img"], **options)
    assert [p.stem for p in paths] == [f"histogram_mm1_img_attn_{p}_proj" for p in "qkv"]
    one = view_of(dataset, "histogram", layers=["mm1.img.attn.k_proj"], site="attn.qkv")
    assert one["layer"].values.tolist() == ["mm1.img.attn.k_proj"]
    shared = view_of(dataset, "range", site="attn.qkv")
    assert shared["layer"].values.tolist() == [f"{name}.attn.qkv" for name in LAYERS]
    rows = rows_of(render("negative", dataset, tmp_path, **options)[0])
    assert len(rows) == len(SIGMA) * len(LAYERS) * 3


def test_lazy_and_loaded_groups_give_the_same_files(tmp_path: Path) -> None:
    for name, dataset in (("loaded", observed()), ("lazy", observed().chunk({"batch": 1}))):
        for kind in KINDS:
            render(kind, dataset, tmp_path / name, layers=["mm1.*"], formats=())
    names = sorted(p.name for p in (tmp_path / "lazy").glob("*.csv"))
    assert len(names) == 11
    for name in names:
        assert (tmp_path / "lazy" / name).read_bytes() == (tmp_path / "loaded" / name).read_bytes()


def test_layers_and_steps_without_values_leave_gaps(tmp_path: Path) -> None:
    dataset = pooled_postgelu()
    for name in ("mean", "std", "min", "max"):
        dataset[name][:, 1] = np.nan
        dataset[name][2, 0] = np.nan
    dataset["histogram"][:, 1] = 0
    for kind in KINDS:
        render(kind, dataset, tmp_path, layers=["mm0.*"])
    assert (tmp_path / "histogram_mm0_img.png").exists()
    assert not (tmp_path / "histogram_mm0_txt.png").exists()
    rows = rows_of(tmp_path / "range_all.csv")
    assert sum(row["median_range"] == "nan" for row in rows) == len(SIGMA) + 1


def test_infinite_values_do_not_stop_the_others_from_being_drawn(tmp_path: Path) -> None:
    dataset = pooled_postgelu()
    dataset["max"][1, 0, 3] = dataset["mean"][1, 0] = np.inf
    for kind in ("range", "channels", "heatmap"):
        render(kind, dataset, tmp_path, layers=["*.img"])
    assert "inf" in {row["tensor_max"] for row in rows_of(tmp_path / "range_all.csv")}


def test_another_format_of_a_single_layer_and_step(tmp_path: Path) -> None:
    one = pooled_postgelu().isel(step=[1], layer=[0])
    for kind in KINDS:
        render(kind, one, tmp_path, formats=["svg"])
    assert (tmp_path / "negative.svg").read_text().startswith("<?xml")
    assert sorted({p.suffix for p in tmp_path.iterdir()}) == [".csv", ".svg"]


def test_a_failed_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "negative.png").write_text("old")

    def full(self: Figure, path: Path, **options: object) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(TaqError, match="No space"):
        render("negative", pooled_postgelu(), tmp_path)
    # The numbers are written before the picture is.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["negative.csv", "negative.png"]
    assert (tmp_path / "negative.png").read_text() == "old"


@pytest.mark.parametrize(
    ("kind", "drop", "options", "message"),
    [
        ("pie", [], {}, r"figure 'pie' is not known; there is range, histogram"),
        ("range", [], {"formats": ["bmp"]}, r"picture format 'bmp' is not known"),
        ("range", [], {"site": "../up"}, r"site '../up' is not known"),
        ("range", [], {"layers": ["mm9.img"]}, r"mm9.img"),
        ("range", [], {"layers": ["nonsense"]}, r"layer name 'nonsense' is not known"),
        ("range", [], {"layers": ["mm_00_img_fc1"], "site": "mlp.fc2"}, r"input of mlp.fc1"),
        ("range", ["min"], {}, r"plot range: needs min with max or avg_min with avg_max \(found"),
        ("negative", ["bin_edges"], {}, r"plot negative: needs histogram with bin_edges or"),
        ("heatmap", ["std", "min"], {}, r"plot heatmap: needs mean with std or"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    kind: str, drop: list[str], options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises((MissingError, MisuseError), match=message) as caught:
        render(kind, pooled_postgelu().drop_vars(drop), tmp_path / "out", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_layer_labels_never_become_paths(tmp_path: Path) -> None:
    dataset = pooled_postgelu().assign_coords(layer=["mm0.img", "../../evil", "mm1.img"])
    with pytest.raises(MissingError, match=r"'../../evil' is not known"):
        render("channels", dataset, tmp_path / "out")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("kind", ["histogram", "negative"])
def test_empty_histograms_are_refused(kind: str, tmp_path: Path) -> None:
    empty = pooled_postgelu().assign(histogram=lambda d: xr.zeros_like(d["histogram"]))
    with pytest.raises(MissingError, match="no values were counted"):
        render(kind, empty, tmp_path)


def test_only_this_package_imports_matplotlib_and_never_pyplot() -> None:
    root = Path(taqstore.__file__).parent
    for path in [*root.rglob("*.py"), *(root.parent / "pipelines").rglob("*.py")]:
        with tokenize.open(path) as stream:
            imports = re.findall(r"^\s*(?:from|import) +(matplotlib\S*)", stream.read(), re.M)
        assert not imports or root / "plot" in path.parents, path
        assert "matplotlib.pyplot" not in imports, path
