"""One linear: histograms are exact sums, and every number is what the command line prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from support.cells import printed
from support.cli_runner import Runner
from taqstore import analysis, open_store
from taqstore.analysis import RULES
from taqstore.serve.views.layer import PRICES

STORE = "/api/stores/run.zarr"
WHERE = {"site": "mlp.fc2", "layer": "mm1.img"}


def asked(client: TestClient, view: str, **options: Any) -> dict[str, Any]:
    answer = client.get(f"{STORE}/{view}", params={**WHERE, **options})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def same(value: float) -> Any:
    """Sums over the bins of one step, and of one among others, may differ in the last bit."""
    return pytest.approx(value, rel=1e-14, abs=0)


def group(two_runs: list[Path]) -> Any:
    return open_store(two_runs[0])["activations/mlp.fc2"].sel(layer=["mm1.img"]).load()


def test_bins_shown_hold_exactly_what_lies_in_them(
    client: TestClient, two_runs: list[Path]
) -> None:
    document = asked(client, "layer", step=2)
    shown, data = document["histogram"], group(two_runs)
    counts = data["histogram"].sum("batch").values[:, 0]
    low, high = data["bin_left"].values, data["bin_right"].values
    assert len(shown["left"]) <= 300
    for step, row in enumerate(shown["by_step"]):
        for left, right, count in zip(shown["left"], shown["right"], row, strict=True):
            assert count == int(counts[step][(low >= left) & (high <= right)].sum())
        assert sum(row) == counts[step].sum() > 0
    assert shown["count"] == shown["by_step"][document["steps"].index(2)]
    ends = data["tensor_min"].min("batch").sel(step=2), data["tensor_max"].max("batch").sel(step=2)
    assert document["extrema"] == [end.item() for end in ends]


@pytest.mark.parametrize(
    ("bits", "symmetric", "batch"), [(8, "true", None), (3, "false", None), (5, "true", "1:3")]
)
def test_every_rule_is_priced_as_the_command_line_does(
    client: TestClient, taq: Runner, bits: int, symmetric: str, batch: str | None
) -> None:
    options = {"bits": bits, "symmetric": symmetric, "step": 4, "percentile": 98, "momentum": 0.7}
    options |= {"batch": batch} if batch else {}
    document = asked(client, "layer", **options)
    assert [row["rule"] for row in document["rules"]] == list(RULES)
    assert document["left_out"] == []
    for row in document["rules"]:
        taken = {k: v for k, v in options.items() if k in (*RULES[row["rule"]].options, "batch")}
        words = [f" --{key} {value}" for key, value in taken.items()]
        line = document["cli"].replace(" --batch 1:3", "") + f" --clip {row['rule']}"
        cells = printed(taq, line + "".join(words), *PRICES)
        for name in PRICES:
            expected = cells[name]["mlp.fc2", "mm1.img", 4]
            assert row[name] == same(expected), (row["rule"], name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip": "mse", "bits": 3},
        {"clip": "entropy", "symmetric": "false", "bits": 6},
        {"clip": "mean_percentile", "percentile": 95},
        {"clip": "absmax", "cuts": "static"},
        {"upper": 0.31, "bits": 4},
        {"lower": -0.2, "upper": 0.5, "symmetric": "false", "bits": 4},
        {"lower": -0.7, "upper": 0.5, "batch": "0"},
    ],
    ids=str,
)
def test_a_price_is_that_of_the_line_it_shows(
    client: TestClient, taq: Runner, options: dict[str, Any]
) -> None:
    document = asked(client, "price", step=2, **options)
    cells = printed(taq, document["cli"], *PRICES)
    for name in PRICES:
        found = list(cells.get(name, {}).values()) or [document[name]]
        at = document["steps"].index(2) if len(found) > 1 else 0
        assert document[name] == same(found[at]), name
        assert document["by_step"][name][document["steps"].index(2)] == document[name]


def test_bounds_by_hand_are_priced_from_the_values(client: TestClient) -> None:
    """A bound beyond every value clips nothing, one inside some; the error grows as it should."""
    wide = asked(client, "price", upper=1e4, bits=8)
    some = asked(client, "price", upper=0.05, bits=8)
    assert wide["clipped_share"] == 0
    assert wide["clip_loss"] == 0
    assert 0 < some["clipped_share"] < 1
    assert some["clip_loss"] > 0
    assert wide["step_size"] == 1e4 / 127


def test_python_of_given_bounds(client: TestClient) -> None:
    document = asked(client, "price", step=2, lower=-0.2, upper=0.5, symmetric="false", bits=4)
    scope: dict[str, Any] = {}
    exec(document["python"], scope)
    result = scope["results"]["activations/mlp.fc2"]
    assert result["sqnr"].compute().item() == same(document["sqnr"])


def test_the_schedule_and_its_groups(client: TestClient, taq: Runner) -> None:
    document = asked(client, "trajectory", clip="mse", bits=4)
    cells = printed(taq, document["cli"], "alpha", "fitted", "degree", "r2")
    assert document["upper"] == list(cells["alpha"].values())
    (fit,) = document["fits"]
    assert fit["values"] == list(cells["fitted"].values())
    assert [fit["degree"]] == list(cells["degree"].values())
    assert [fit["r2"]] == list(cells["r2"].values())
    groups = printed(taq, document["groups_cli"], "group", "upper")
    number = list(groups["group"].values())
    assert [step for one in document["groups"] for step in one["steps"]] == document["steps"]
    sizes = [number.count(n) for n in range(max(number) + 1)]
    assert [len(one["steps"]) for one in document["groups"]] == sizes
    expected = [one["upper"] for one in document["groups"] for _ in one["steps"]]
    assert list(groups["upper"].values()) == expected


def test_channels_are_the_widest(client: TestClient, taq: Runner, two_runs: list[Path]) -> None:
    document = asked(client, "channels", step=4, top=5)
    data = group(two_runs).sel(step=4)
    low, high = data["min"].min("batch").values[0], data["max"].max("batch").values[0]
    width = high.astype(float) - low.astype(float)
    order = sorted(range(len(width)), key=lambda c: (-width[c], c))[:5]
    assert [one["channel"] for one in document["channels"]] == order
    assert document["count"] == len(width)
    assert document["median"] == np.median(width)
    cells = printed(taq, document["cli"], "multiplier", "is_outlier")
    shifts = analysis.shifts(group(two_runs))["shift"].sel(step=4).values[0]
    for one in document["channels"]:
        at = one["channel"]
        assert (one["min"], one["max"], one["range"]) == (low[at], high[at], width[at])
        assert one["multiple"] == width[at] / np.median(width)
        assert one["shift"] == shifts[at]
        for name in ("multiplier", "is_outlier"):
            assert one[name] == cells[name]["mlp.fc2", "mm1.img", at]


def test_images_apart(client: TestClient, two_runs: list[Path]) -> None:
    document = asked(client, "images", percentile=99)
    data = group(two_runs)
    assert [one["images"] for one in document["images"]] == data["image"].values.tolist()
    for batch, one in enumerate(document["images"]):
        part = data.isel(batch=[batch])
        low, high = part["tensor_min"].values[0, :, 0], part["tensor_max"].values[0, :, 0]
        assert one["values"]["min"] == low.astype(float).tolist()
        assert one["values"]["max"] == high.astype(float).tolist()
        assert one["values"]["absmax"] == np.maximum(abs(low), abs(high)).astype(float).tolist()
        tail = analysis.scales(part, clip="percentile", percentile=99)["alpha"]
        assert one["values"]["percentile"] == tail.values[:, 0].tolist()
        counts = part["histogram"].values[0, :, 0].astype(float)
        below = part["bin_right"].values <= 0
        share = counts[:, below].sum(axis=1) / counts.sum(axis=1)
        assert one["values"]["negative"] == share.tolist()


def test_the_first_linear_and_the_middle_step_are_shown_unasked(client: TestClient) -> None:
    answer = client.get(f"{STORE}/layer").json()
    assert (answer["site"], answer["layer"]) == (answer["sites"][0], answer["layers"][0])
    assert answer["step"] == answer["steps"][len(answer["steps"]) // 2]


@pytest.mark.parametrize(
    ("view", "options", "status"),
    [
        ("layer", {"step": 99}, 404),
        ("layer", {"layer": "mm9.img"}, 404),
        ("layer", {"layer": "rubbish"}, 404),
        ("price", {"lower": 1}, 400),
        ("price", {"lower": 1, "upper": 0}, 400),
        ("price", {"upper": "inf"}, 400),
        ("price", {"clip": "nothing"}, 400),
        ("channels", {"top": 0}, 400),
        ("trajectory", {"count": 99}, 422),
        ("images", {"percentile": 101}, 400),
    ],
)
def test_refusals(client: TestClient, view: str, options: dict[str, Any], status: int) -> None:
    answer = client.get(f"{STORE}/{view}", params={**WHERE, **options})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].count("\n") == 0
