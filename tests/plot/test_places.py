"""Where panels stand, what axes count, and what a line's end says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from support.derived_inputs import FC2, large_sites, observations, two_sites
from taqstore.plot import draw as store
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.places import OUTSIDE, placed
from taqstore.plot.parts.views import linear_view

COUNTED = ("block", "group", "step index", "channel", "batches")


def outside(layer: str) -> xr.Dataset:
    """`observations` of one linear outside of blocks."""
    data = observations().isel(layer=[0]).drop_vars(["stream", "block"], errors="ignore")
    return data.assign_coords(layer=[layer])


def whole_model() -> dict[str, xr.Dataset]:
    """Two sites of blocks, and sites of which a model has one linear."""
    return {
        **two_sites(),
        "activations/embed.image": outside("x_embedder"),
        "activations/time.fc1": outside("t_embedder"),
        "activations/time.fc2": outside("t_embedder"),
        "activations/final.linear": outside("final_layer"),
    }


def views(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    sites = {path.partition("/")[2]: data for path, data in groups.items()}
    return {site: linear_view(data, ["max"], site=site) for site, data in sites.items()}


def drawn(kind: str, groups: dict[str, xr.Dataset]) -> Iterator[Page]:
    options = {"other": groups} if kind == "diff" else {}
    for page in store.pages(kind, groups, **options):
        page.figure.draw_without_rendering()
        yield page


def panels(figure: Figure) -> list[Axes]:
    """Axes but for colour bars."""
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


@pytest.mark.parametrize("gather", [True, False])
def test_every_part_has_one_place_and_no_place_is_empty_but_at_the_end_of_a_row(
    gather: bool,
) -> None:
    found, rows, columns = placed(views(whole_model()), gather=gather)
    taken = sorted((panel.row, panel.column) for panel in found)
    assert len(set(taken)) == len(taken) == (5 if gather else 8)
    assert {row for row, _ in taken} == set(range(rows))
    for row in range(rows):
        filled = [column for at, column in taken if at == row]
        assert filled == list(range(len(filled)))
        assert len(filled) <= columns == 2
    layers = sum(panel.data.sizes["layer"] for panel in found)
    assert layers == sum(data.sizes["layer"] for data in whole_model().values())


def test_linears_outside_of_blocks_are_rows_of_one_panel() -> None:
    one = placed(views(whole_model()), gather=True)[0][-1]
    assert (one.title, one.gathered) == (OUTSIDE, True)
    expected = ["embed.image", "time.fc1", "time.fc2", "final.linear"]
    assert one.data["label"].values.tolist() == expected
    assert one.data["block"].values.tolist() == [0, 1, 2, 3]
    for label, row in zip(expected, range(4), strict=True):
        mine = views(whole_model())[label]["max"].isel(layer=0)
        np.testing.assert_array_equal(one.data["max"].isel(layer=row), mine)


def test_steps_that_differ_are_not_put_together() -> None:
    sites = views(whole_model())
    sites["time.fc1"] = sites["time.fc1"].isel(step=slice(1, None))
    titles = [panel.title for panel in placed(sites, gather=True)[0]]
    assert OUTSIDE not in titles
    assert titles[-4:] == [
        "model: embed.image", "model: time.fc1", "model: time.fc2", "model: final.linear",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["groups", "bits", "diff", "order", "sqnr"])
def test_a_whole_model_is_drawn_without_empty_panels(kind: str) -> None:
    for page in drawn(kind, whole_model()):
        shown = panels(page.figure)
        assert all(ax.has_data() for ax in shown), page.stem
        titled = [ax.get_title() for ax in shown if ax.get_title()]
        if page.stem in ("bits_budget", "groups_error"):
            continue
        assert titled.count(OUTSIDE) == 1, page.stem
        (ax,) = (ax for ax in shown if ax.get_title() == OUTSIDE)
        names = [text.get_text() for text in (*ax.get_xticklabels(), *ax.get_yticklabels())]
        assert {"embed.image", "time.fc1", "time.fc2", "final.linear"} <= set(names), page.stem
        assert "block" not in ax.get_ylabel() + ax.get_xlabel()


@pytest.mark.parametrize("kind", ["groups", "bits", "order", "sqnr", "heatmap", "negative"])
def test_what_is_counted_has_whole_ticks(kind: str) -> None:
    seen = 0
    for page in drawn(kind, two_sites()):
        for axis in (axis for ax in page.figure.axes for axis in (ax.xaxis, ax.yaxis)):
            # Averages of bits are no counts, and names stand at places.
            if axis.get_label_text().startswith(COUNTED) or "number of" in axis.get_label_text():
                ticks = axis.get_majorticklocs()
                np.testing.assert_array_equal(ticks, np.round(ticks), err_msg=page.stem)
                seen += 1
    assert seen


@pytest.mark.parametrize("kind", ["order", "groups"])
def test_legends_hide_nothing(kind: str) -> None:
    page = next(drawn(kind, large_sites()))
    (legend,) = page.figure.legends
    assert all(ax.get_legend() is None for ax in page.figure.axes)
    box = legend.get_window_extent()
    assert not [ax for ax in panels(page.figure) if ax.get_window_extent().overlaps(box)]


def test_fits_are_curves_between_the_data() -> None:
    page = next(drawn("trajectories", {FC2: observations()}))
    ax = page.figure.axes[0]
    rows = page.table[page.table["layer"].str.contains("img")]
    layers = [part for _, part in rows.groupby("layer", sort=False)]
    curves = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(curves) == len(layers)
    for line, part in zip(curves, layers, strict=True):
        x, y = (np.asarray(values) for values in line.get_data())
        sigma = part["sigma"].to_numpy(np.float64)
        assert len(x) > 10 * len(sigma)
        assert (x.max(), x.min()) == (sigma.max(), sigma.min())
        fit = np.polyfit(sigma, part["alpha"], int(part["degree"].iloc[0]))
        np.testing.assert_allclose(y, np.polyval(fit, x), rtol=1e-7)
    points = [line for line in ax.lines if line.get_linestyle() != "-"]
    assert [line.get_marker() for line in points] == ["o"] * len(layers)


@pytest.mark.parametrize("kind", ["range", "trajectories"])
def test_24_blocks_are_named_at_the_ends_of_their_lines(kind: str) -> None:
    groups = {FC2: large_sites()[FC2]}
    page = next(drawn(kind, groups))
    for ax in panels(page.figure):
        boxes = [text.get_window_extent() for text in ax.texts]
        assert len(boxes) >= 5, ax.get_title()  # of 24, some end close together
        assert len({text.get_text() for text in ax.texts}) == len(boxes)
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert not [pair for pair in pairs if pair[0].overlaps(pair[1])]
        # Lines of many blocks are thin; only data of fits bear markers.
        assert all(line.get_linewidth() < 1 for line in ax.lines if line.get_linestyle() == "-")


def test_the_label_of_a_line_is_its_block() -> None:
    page = next(drawn("range", {FC2: large_sites()[FC2]}))
    table = page.table[page.table["layer"].str.contains("img")]
    last = table[table["sigma"] == table["sigma"].min()].set_index("block")["median_range"]
    for text in page.figure.axes[0].texts:
        assert text.xy[1] == last[int(text.get_text())]  # type: ignore[attr-defined]
