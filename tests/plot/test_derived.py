"""Figures of analyses: their files, their axes, and what cannot be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from support.derived_inputs import FC2, QKV, drawn, large_sites, two_sites
from support.plot_inputs import timestep_stats
from taqstore.errors import MissingError, TaqError
from taqstore.plot import draw as store

KINDS = ("trajectories", "curve", "groups", "bits", "diff", "order")
STEMS = {
    "trajectories": ["trajectories_mlp_fc2", "trajectories_attn_qkv"],
    "curve": [
        *(f"curve_{layer}_mlp_fc2" for layer in ("mm0_img", "mm0_txt", "mm1_img")),
        *(f"curve_{layer}_attn_qkv" for layer in ("mm0_img", "mm0_txt")),
    ],
    "groups": ["groups_error", "groups_cuts"],
    "bits": ["bits_budget", "bits_layers", "bits_steps"],
    "diff": ["diff_range_log2", "diff_jensen_shannon"],
    "order": ["order_band", "order_alpha_spread", "order_shift_spread"],
}


def options(kind: str, groups: dict[str, xr.Dataset]) -> dict[str, Any]:
    return {"other": groups} if kind == "diff" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_has_its_csv_beside_it(kind: str, tmp_path: Path) -> None:
    groups = two_sites()
    paths, notes = store.draw(kind, groups, tmp_path, **options(kind, groups))
    assert [p.name for p in paths] == [f"{s}.{x}" for s in STEMS[kind] for x in ("png", "csv")]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths if p.suffix == ".png")
    assert notes == []


@pytest.mark.parametrize("kind", KINDS)
def test_pages_stay_readable_at_full_size(kind: str) -> None:
    groups = large_sites()
    if kind in ("trajectories", "curve"):  # a page of each site: one with all layers, one without
        groups = dict(list(groups.items())[:2])
    layers = ["mm7.img"] if kind == "curve" else None
    for page in store.pages(kind, groups, layers=layers, **options(kind, groups)):
        page.figure.draw_without_rendering()
        axes = page.figure.axes
        legends = [ax.get_legend() for ax in axes] + page.figure.legends
        assert all(len(legend.get_texts()) <= 8 for legend in legends if legend)
        for artist in (*axes, *page.figure.texts, *page.figure.legends):
            box, paper = artist.get_tightbbox(), page.figure.bbox
            assert box is not None
            assert paper.x0 - 1 <= box.x0 < box.x1 <= paper.x1 + 1, (page.stem, artist)
            assert paper.y0 - 1 <= box.y0 < box.y1 <= paper.y1 + 1, (page.stem, artist)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "curve"])
def test_noise_is_at_the_left_and_axes_are_labelled(kind: str) -> None:
    groups = two_sites()
    for page in store.pages(kind, groups, **options(kind, groups)):
        for ax in page.figure.axes:
            if "σ" in ax.get_xlabel():
                assert ax.get_xlim()[0] > ax.get_xlim()[1], page.stem
        assert any(ax.get_ylabel() for ax in page.figure.axes), page.stem
        assert any(ax.get_xlabel() for ax in page.figure.axes) or page.stem == "bits_layers"


@pytest.mark.parametrize("kind", ["trajectories", "curve", "groups", "bits"])
def test_pooled_statistics_are_drawn_with_their_projections(kind: str, tmp_path: Path) -> None:
    groups = {"pooled/timestep_stats/attn.qkv": timestep_stats(projections=True)}
    tables = drawn(kind, groups, tmp_path)
    names = {name for table in tables.values() for name in table.get("layer", ())}
    if kind in ("curve", "bits"):
        expected = {f"{b}.attn.{p}_proj" for b in ("mm0.img", "mm0.txt", "mm1.img") for p in "qkv"}
        assert names == expected


def test_lazy_and_loaded_groups_give_the_same_tables(tmp_path: Path) -> None:
    lazy = {path: data.chunk({"batch": 1, "step": 2}) for path, data in two_sites().items()}
    for kind in KINDS:
        for name, groups in (("loaded", two_sites()), ("lazy", lazy)):
            given = {"layers": ["mm0.img"], **options(kind, groups)}
            drawn(kind, groups, tmp_path / name, **given)
    tables = sorted((tmp_path / "loaded").iterdir())
    assert len(tables) == 14
    for table in tables:
        # Sums over blocks may differ from sums over all in their last digits.
        both = [pd.read_csv(folder / table.name) for folder in (table.parent, tmp_path / "lazy")]
        pd.testing.assert_frame_equal(*both, rtol=1e-12)


def test_layers_are_chosen_in_both_stores(tmp_path: Path) -> None:
    groups = two_sites()
    tables = drawn("diff", groups, tmp_path, other=groups, layers=["mm1.*"])
    assert set(tables["diff_range_log2"]["layer"]) == {"mm1.img.mlp.fc2"}
    assert (tables["diff_range_log2"]["range_log2"] == 0).all()


def test_a_site_that_lacks_something_is_named_after_the_others_are_drawn(tmp_path: Path) -> None:
    groups = two_sites()
    groups[QKV] = groups[QKV].assign(histogram=xr.zeros_like(groups[QKV]["histogram"]))
    for kind in ("curve", "groups"):
        paths, notes = store.draw(kind, groups, tmp_path, formats=())
        assert paths
        assert len(notes) == 1
        assert "no values were counted" in notes[0]


def test_unknown_layers_are_gaps_in_every_table(tmp_path: Path) -> None:
    data = two_sites()[FC2]
    data["min"][:, :, 1] = data["max"][:, :, 1] = np.nan
    data["histogram"][:, :, 1] = 0
    groups = {FC2: data}
    for kind, column in (("groups", "group"), ("bits", "bits"), ("order", "alpha_spread")):
        tables = drawn(kind, groups, tmp_path, **options(kind, groups))
        table = next(t for t in reversed(tables.values()) if column in t and "step" in t)
        unknown = table[column].isna().groupby(table["layer"]).all()
        assert unknown.to_dict() == {
            "mm0.img.mlp.fc2": False,
            "mm0.txt.mlp.fc2": True,
            "mm1.img.mlp.fc2": False,
        }, kind


def test_steps_stand_in_for_sigma_and_groups_go_without_buckets(tmp_path: Path) -> None:
    groups = {FC2: two_sites()[FC2].drop_vars("sigma")}
    assert "buckets" not in drawn("groups", groups, tmp_path)["groups_error"]
    (cuts,) = [page for page in store.pages("groups", groups) if page.stem == "groups_cuts"]
    assert cuts.figure.axes[-2].get_xlabel().startswith("step index")


def dropped(*names: str) -> dict[str, xr.Dataset]:
    return {path: data.drop_vars(list(names)) for path, data in two_sites().items()}


@pytest.mark.parametrize(
    ("kind", "groups", "given", "message"),
    [
        ("trajectories", dropped("min"), {}, "no group can show 'trajectories'"),
        ("trajectories", dropped("sigma"), {}, "schedule needs sigma"),
        ("curve", dropped("histogram"), {}, "no group can show 'curve'"),
        ("curve", two_sites(), {"step": 9}, "nothing matches --step 9"),
        ("groups", dropped("histogram"), {}, "no group can show 'groups'"),
        ("groups", dropped("histogram"), {"group": FC2}, "groups needs hist_counts"),
        ("bits", dropped("histogram"), {"group": FC2}, "bits needs hist_counts"),
        ("bits", two_sites(), {"average": 3.0}, "less than the smallest choice"),
        ("order", {"pooled/timestep_stats/mlp.fc2": timestep_stats()}, {}, "can show 'order'"),
        ("order", two_sites(), {"momentum": 1.5}, "1.5"),
        ("order", two_sites(), {"layers": ["mm9.img"]}, "nothing matches --layer mm9.img"),
        ("diff", two_sites(), {}, "plot diff needs the option 'other'"),
        ("diff", two_sites(), {"other": {}}, "no group can show 'diff'"),
        ("bits", two_sites(), {"bits": 4}, "plot bits takes no option 'bits'"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    kind: str,
    groups: dict[str, xr.Dataset],
    given: dict[str, Any],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(TaqError) as caught:
        store.draw(kind, groups, tmp_path / "out", **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["groups", "bits", "curve"])
def test_empty_histograms_are_refused(kind: str, tmp_path: Path) -> None:
    empty = {
        path: data.assign(histogram=xr.zeros_like(data["histogram"]))
        for path, data in two_sites().items()
    }
    with pytest.raises(MissingError, match="no values were counted"):
        store.draw(kind, empty, tmp_path)
