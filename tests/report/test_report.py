"""The report: its numbers against raw activations, its verdicts, its markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from support.builders import write_latents
from support.report_page import HOSTILE, SHAPE, Page, hostile_store
from taqstore.errors import MissingError, TaqError
from taqstore.plot.parts.svg import inline_svg
from taqstore.report import build
from taqstore.report.page import Threshold, decibel, judge, number, percent
from taqstore.store.reader import Store, open_store
from taqstore.testing import linear_inputs, make_store, raw_activations

LIMIT = Threshold(2.0, "", "")


def text_of(store: Store, **options: Any) -> str:
    """The page without figures, which take most of the time: `test_page` has them."""
    return build(store, pictures=False, **options)


class Part(Store):
    """A store of which only some sites are seen, changed as a test wants it."""

    sites: tuple[str, ...] = ("attn.o_proj",)

    def __iter__(self) -> Iterator[str]:
        return (f"activations/{site}" for site in self.sites)

    def __getitem__(self, path: str) -> xr.Dataset:
        return self.changed(super().__getitem__(path))

    def changed(self, data: xr.Dataset) -> xr.Dataset:
        return data

    @classmethod
    def like(cls, store: Store) -> Part:
        return cls(store.location, chunks="auto", checksum=True, incomplete=False)


class TwoSites(Part):
    sites = ("attn.qkv", "mlp.fc2")


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose histograms are the exact distribution of its float16 values."""
    path = tmp_path_factory.mktemp("exact") / "run.zarr"
    return open_store(make_store(path, shape=SHAPE, mantissa_bits=10))


@pytest.fixture(scope="module")
def text(exact: Store) -> str:
    return text_of(TwoSites.like(exact), bits=(6, 4), budget=5, groups=2)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def raw() -> dict[str, list[np.ndarray]]:
    """Values of every linear input at every step, of all images: float64 (row, channel)."""
    seen: dict[str, list[np.ndarray]] = {}
    for step in SHAPE.stats_steps:
        images = [raw_activations(SHAPE, image=image, step=step) for image in range(SHAPE.images)]
        for name in linear_inputs(SHAPE):
            if not name.endswith(TwoSites.sites):
                continue
            parts = [
                tensors[name.replace("qkv", "q_proj")].astype(np.float16).astype(np.float64)
                for tensors in images
            ]
            seen.setdefault(name, []).append(np.concatenate(parts))
    return seen


def loss(x: np.ndarray, alpha: float, bits: int) -> float:
    """Squared error of symmetric rounding as a share of the mean square, by hand."""
    top = 2 ** (bits - 1) - 1
    step = alpha / top
    rounded = np.clip(np.rint(x / step), -top - 1, top) * step
    return float(np.mean((rounded - x) ** 2) / np.mean(x**2))


@pytest.mark.parametrize("bits", [6, 4])
@pytest.mark.parametrize("static", [False, True])
def test_cost_of_absmax_is_that_of_quantizing_the_values(
    page: Page, raw: dict[str, list[np.ndarray]], bits: int, static: bool
) -> None:
    losses = []
    for steps in raw.values():
        bounds = [np.abs(x).max() for x in steps]
        widest = max(bounds)
        losses += [
            loss(x, widest if static else bound, bits)
            for x, bound in zip(steps, bounds, strict=True)
        ]
    rows = next(rows for name, rows in page.tables.items() if name.startswith("SQNR and mean"))
    row = rows[1 + static]
    assert row[0].startswith("absmax")
    assert row[{6: 2, 4: 3}[bits]].startswith(f"{-10 * np.log10(np.mean(losses)):.1f} dB (")


def test_worst_layers_are_those_of_quantizing_the_values(
    page: Page, raw: dict[str, list[np.ndarray]]
) -> None:
    losses = {
        name: np.mean([loss(x, np.abs(x).max(), 4) for x in steps]) for name, steps in raw.items()
    }
    ordered = sorted(losses, key=lambda name: -losses[name])
    head, *rows = next(rows for name, rows in page.tables.items() if name.startswith("SQNR of the"))
    assert [row[0] for row in rows] == ordered[: len(rows)]
    assert len(rows) == min(12, len(losses))
    column = head.index("A4")
    for row in rows:
        assert row[column] == f"{-10 * np.log10(losses[row[0]]):.1f} dB"


def test_asymmetry_by_hand(text: str, page: Page, raw: dict[str, list[np.ndarray]]) -> None:
    middles, negatives = {}, {}
    for name, steps in raw.items():
        ends = [(x.min(), x.max()) for x in steps]
        middles[name] = np.mean([abs(low + high) / 2 / (high - low) for low, high in ends])
        negatives[name] = np.mean(np.concatenate([x.ravel() for x in steps]) < 0)
    count = sum(value >= 0.25 for value in middles.values())
    assert 0 < count < len(middles) / 2
    assert f"{count} of {len(middles)} layers lie to one side of zero." in page.text
    section = text[text.index('<section id="asymmetry"') :]
    assert section.index("in part") < section.index("</h2>")
    first = next(r for n, rows in page.tables.items() if n.startswith("By site") for r in rows[1:])
    mine = [n for n in raw if n.endswith(first[0]) and f".{first[1]}." in n]
    assert first[3] == percent(float(np.median([middles[n] for n in mine])))
    assert first[5] == percent(float(np.median([negatives[n] for n in mine])))


def test_drift_and_tails_by_hand(page: Page, raw: dict[str, list[np.ndarray]]) -> None:
    bounds = {name: [np.abs(x).max() for x in steps] for name, steps in raw.items()}
    drifting = sum(max(b) / min(b) >= 2 for b in bounds.values())
    tails = []
    for steps in raw.values():
        widths = [x.max(axis=0) - x.min(axis=0) for x in steps]
        tails.append(np.mean([np.quantile(w, 0.99) / np.median(w) for w in widths]))
    heavy = sum(tail >= 2.5 for tail in tails)
    expected = f"{drifting} of {len(raw)} layers" if drifting else f"None of {len(raw)} layers"
    assert f"{expected} change" in page.text.replace("changes", "change")
    assert f"{heavy} of {len(raw)} layers ha" in page.text


def test_given_groups_and_widths_are_obeyed(page: Page, raw: dict[str, list[np.ndarray]]) -> None:
    groups = page.table("Optimal contiguous groups")
    assert {row[2] for site, row in groups.items() if site != "site"} == {"2"}
    assert all("|" in row[1] for site, row in groups.items() if site != "site")
    widths = next(rows for name, rows in page.tables.items() if name.startswith("Layers by width"))
    assert widths[0][2:4] == ["layers at A6", "layers at A4"]
    counts = np.array([[int(cell) for cell in row[2:4]] for row in widths[1:]])
    total = len(raw)
    assert counts.sum() == total
    assert (counts.sum(axis=0) * [6, 4]).sum() <= 5 * total


def test_widths_are_told_in_words(exact: Store) -> None:
    """By default layers compete; where one width meets the budget and wins, that is said."""
    page = Page(text_of(Part.like(exact), bits=(8, 4)))
    assert "Best at 6 bits on average: " in page.text
    assert "where as many bits are dealt by lot." in page.text
    told = Page(text_of(Part.like(exact), bits=(8, 4), budget=4)).text
    assert re.search(r"Best at 4 bits on average: all \d+ at 4 bits; \S+ dB, against", told)
    assert "dB with 4 bits everywhere. All get the same, as the budget buys no more than" in told
    assert "--average 6 has them compete." in told


def test_data_never_breaks_out(tmp_path: Path) -> None:
    text = text_of(Part.like(open_store(hostile_store(tmp_path / "a.zarr"))))
    page = Page(text)
    assert "<script" not in text
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.tags.count("style") == 1
    assert " ".join(HOSTILE.split()) in page.text


def test_hostile_layer_names_stay_text(exact: Store) -> None:
    class Renamed(Part):
        def changed(self, data: xr.Dataset) -> xr.Dataset:
            return data.assign_coords(layer=[f"{HOSTILE}{i}" for i in range(data.sizes["layer"])])

    text = text_of(Renamed.like(exact))
    assert "<script" not in text
    assert "<img" not in text
    assert HOSTILE in Page(text).text


@pytest.mark.reference
def test_reduced_statistics_say_what_they_cannot_tell(reference: Path, tmp_path: Path) -> None:
    from taqstore.pipelines.ingest import ingest

    ingest([reference / "calibration_data"], tmp_path / "pooled.zarr")
    page = Page(text_of(open_store(tmp_path / "pooled.zarr"), bits=(8,), budget=8))
    assert "argmaxinc/mlx-stable-diffusion-3-medium" in page.text
    assert "arrived already reduced" in page.text
    assert "The statistics arrived reduced over images" in page.text
    assert "needs histograms that add" in page.text
    assert page.table("SQNR and mean error")


def test_without_histograms_the_costs_are_not_told(exact: Store) -> None:
    class Bare(Part):
        def changed(self, data: xr.Dataset) -> xr.Dataset:
            return data.drop_vars("histogram")

    page = Page(text_of(Bare.like(exact)))
    assert page.text.count("This store cannot tell.") == 2 * 4  # worst, costs, groups, bits
    assert "needs histogram" in page.text
    assert not page.table("SQNR")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "pooled/nothing"}, "no statistics pooled/nothing"),
        ({"bits": (8, 1)}, "bit widths are 2 to 16"),
        ({"bits": ()}, "bit widths are 2 to 16"),
        ({"bits": (8, 6), "budget": 5.5}, "less than the smallest width"),
        ({"groups": 99}, "4 steps make 1 to 4 groups"),
    ],
)
def test_options_that_make_no_sense(exact: Store, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaqError, match=message):
        text_of(Part.like(exact), **options)


def test_a_drawing_is_the_same_every_time_and_stands_alone() -> None:
    def drawn(prefix: str) -> str:
        figure = Figure()
        ax = figure.subplots()
        ax.plot([0, 1], [1, 3], marker="o", label="<script>&")
        ax.pcolormesh(np.arange(900.0).reshape(30, 30))
        ax.legend()
        return inline_svg(figure, prefix)

    once = drawn("a")
    assert drawn("a") == once
    first, second = Page(once), Page(drawn("b"))
    assert not set(first.ids) & set(second.ids)
    assert first.references <= set(first.ids)
    assert "<script>&" in first.text
    assert "<script" not in once
    assert not {"style", "metadata"} & set(first.tags)
    assert first.tags.count("image") == 1  # 900 cells as pixels


def test_a_store_without_statistics(tmp_path: Path) -> None:
    write_latents(tmp_path / "l.zarr", [0])
    with pytest.raises(MissingError, match="no statistics"):
        text_of(open_store(tmp_path / "l.zarr"))


@pytest.mark.parametrize(
    ("values", "word", "count", "known"),
    [
        ([2.0, 1.0], "yes", 1, 2),
        ([2.0, 1.0, 1.9], "in part", 1, 3),
        ([1.0, np.nan], "no", 0, 1),
        ([np.nan], "not known", 0, 0),
        ([5.0, np.nan, np.nan], "yes", 1, 1),
    ],
)
def test_verdicts(values: list[float], word: str, count: int, known: int) -> None:
    verdict = judge(pd.Series(values), LIMIT)
    assert (verdict.word, verdict.count, verdict.known) == (word, count, known)


def test_numbers_for_people() -> None:
    assert [number(v) for v in (0.0, 1234.5, 1.5e7, 0.00012345)] == [
        "0", "1230", "1.5e+07", "0.000123",
    ]  # fmt: skip
    assert number(-0.5, "dB") == "−0.5\xa0dB"
    assert number(float("inf")) == decibel(float("nan")) == "–"
    assert decibel(0.0) == "exact"
    assert decibel(0.001) == "30.0 dB"
    assert decibel(10.0) == "−10.0 dB"
    assert percent(0.12345) == "12.3\xa0%"
