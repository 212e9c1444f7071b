"""Two stores, or two subsets of images, side by side: each as its own map, ratios by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from support.asked import asking
from support.cells import printed, shown
from support.cli_runner import Runner
from taqstore.testing import RunShape, make_store

COMPARE = "/api/stores/run.zarr/compare"


def asked(client: TestClient, **options: Any) -> dict[str, Any]:
    answer = client.get(COMPARE, params=options)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize(
    "options",
    [
        {"quantity": "absmax", "other": "other.zarr"},
        {"quantity": "sqnr", "other": "other.zarr", "bits": 4, "clip": "mse"},
        {"quantity": "error", "batch": "0:2", "other-batch": "2:4", "bits": 4},
        {"quantity": "nonfinite", "other": "other.zarr", "site": "mlp.fc2"},
        {"quantity": "outliers", "batch": "0", "threshold": 1.1},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_sides_are_what_their_lines_print(
    client: TestClient, taq: Runner, options: dict[str, Any]
) -> None:
    document = asked(client, **options)
    variable = document["variable"]
    for side in ("first", "second"):
        cells = shown(document, side)
        assert len(cells) > 4
        assert cells == printed(taq, document[side]["cli"], variable)[variable]
    for row in document["rows"]:
        for a, b, ratio, log2, difference in zip(
            *(row[key] for key in ("first", "second", "ratio", "log2", "difference")), strict=True
        ):
            assert difference == b - a
            assert ratio == (1.0 if a == b == 0 else "inf" if a == 0 else b / a)
            if a > 0 and b > 0:
                assert log2 == pytest.approx(math.log2(b / a), rel=1e-12, abs=1e-15)
    assert document["left_out"] == []


def test_what_one_side_lacks_is_told(tmp_path: Path) -> None:
    some = RunShape(images=2, steps=6, blocks=2, hidden=8, stats_stride=2)
    shapes = {"run.zarr": some, "less.zarr": replace(some, blocks=3, stats_stride=3)}
    for name, shape in shapes.items():
        make_store(tmp_path / name, shape=shape)
    client = asking(*(tmp_path / name for name in shapes))
    document = asked(client, other="less.zarr")
    assert document["steps"] == [0]
    told = " ".join(document["left_out"])
    assert "steps of the first alone: 2, 4" in told
    assert "steps of the second alone: 3" in told
    assert "layers of the second alone" in told
    assert "mm2.img" in told
    assert {row["layer"].partition(".")[0] for row in document["rows"]} == {"mm0", "mm1"}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 400),
        ({"other": "run.zarr"}, 400),
        ({"other": "none.zarr"}, 404),
        ({"batch": "0", "other-batch": "0"}, 400),
        ({"quantity": "sensitivity", "other": "other.zarr"}, 400),
    ],
)
def test_refusals(client: TestClient, options: dict[str, Any], status: int) -> None:
    answer = client.get(COMPARE, params=options)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]


def test_a_summary_names_what_there_is(client: TestClient, two_runs: list[Path]) -> None:
    document = client.get("/api/stores/run.zarr/summary").json()
    assert document["source"] == "activations"
    sites = {one["site"]: [row["layer"] for row in one["layers"]] for one in document["sites"]}
    assert {"mlp.fc2", "attn.qkv"} <= sites.keys()
    assert "mm1.img" in sites["mlp.fc2"]
    assert [one["images"] for one in document["batches"]] == [[0], [1], [2], [3]]
    assert {"activations", "second_moments", "weights", "sensitivity"} <= set(document["has"])
    assert all(rule["can"] for rule in document["rules"])
    assert {"unit": "linear", "format": "rtn-w4"} in document["formats"]
    assert "sqnr" in document["figures"]
    assert "sensitivity" in document["figures"]
