"""The map shows what the command line prints, to the last digit, for every quantity and rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from support.cells import printed, shown
from support.cli_runner import Runner
from support.thinned import crossed
from taqstore import open_store
from taqstore.analysis import RULES
from taqstore.serve.views.quantities import QUANTITIES, SENSITIVITY

MAP = "/api/stores/run.zarr/map"
PLAIN = [word for word in QUANTITIES if word != SENSITIVITY]
WITH: list[dict[str, Any]] = [
    {"quantity": "sqnr", "bits": 3, "symmetric": "false", "clip": "percentile", "percentile": 97},
    {"quantity": "error", "bits": 5, "clip": "ema", "momentum": 0.5, "order": "3,1,2,0"},
    {"quantity": "clipped", "clip": "mse", "bits": 2, "cuts": "2,4"},
    {"quantity": "bound", "clip": "percentile", "batch": "1:3"},
    {"quantity": "sqnr", "clip": "l2.4", "bits": 4, "narrow-range": "true", "batch": "0"},
    {"quantity": "negative", "batch": "1:4", "site": ["mlp.fc2", "attn.qkv"]},
    {"quantity": "outliers", "threshold": 1.25, "layer": "mm1.*"},
    {"quantity": "spikes", "spike": 0.5, "stream": "txt"},
    {"quantity": "absmax", "layer": "mm0.img,mm1.txt", "batch": "0:2"},
    {"quantity": "std", "stream": "i*", "site": "mlp.fc1"},
]


def asked(client: TestClient, **options: Any) -> dict[str, Any]:
    answer = client.get(MAP, params=options)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def check(client: TestClient, taq: Runner, options: dict[str, Any]) -> dict[str, Any]:
    document = asked(client, **options)
    variable = document["variable"]
    line = printed(taq, document["cli"], variable)[variable]
    cells = shown(document)
    assert len(cells) > 4
    assert cells == {place: line[place] for place in cells}
    assert cells.keys() == line.keys()
    return document


@pytest.mark.parametrize("quantity", PLAIN)
def test_a_quantity(client: TestClient, taq: Runner, quantity: str) -> None:
    document = check(client, taq, {"quantity": quantity})
    assert document["left_out"] == []
    assert len(document["steps"]) == len(document["sigma"]) > 2


@pytest.mark.parametrize(("rule", "symmetric"), crossed(RULES, ("true", "false")))
def test_a_rule(client: TestClient, taq: Runner, rule: str, symmetric: str) -> None:
    check(client, taq, {"quantity": "sqnr", "clip": rule, "bits": 4, "symmetric": symmetric})


@pytest.mark.parametrize("options", WITH, ids=lambda one: "-".join(map(str, one.values())))
def test_options(client: TestClient, taq: Runner, options: dict[str, Any]) -> None:
    check(client, taq, options)


def test_the_python_gives_the_same(client: TestClient) -> None:
    document = asked(client, quantity="error", bits=4, clip="mse", layer="mm1.*")
    scope: dict[str, Any] = {}
    exec(document["python"], scope)
    cells = shown(document)
    assert cells
    for (site, layer, step), value in cells.items():
        one = scope["results"][f"activations/{site}"]["error"].sel(layer=layer, step=step)
        # Sums over the bins of some layers, and of all, may differ in the last bit.
        assert one.compute().item() == pytest.approx(value, rel=1e-14, abs=0)


def test_what_a_quantity_does_not_depend_on_is_passed_over(client: TestClient) -> None:
    plain = asked(client, quantity="negative")
    assert asked(client, quantity="negative", bits=3, clip="mse")["rows"] == plain["rows"]
    assert plain["asked"] == {}


def test_menus_are_those_of_the_store(client: TestClient) -> None:
    document = asked(client)
    offered = [row["quantity"] for row in document["quantities"]]
    assert offered == list(QUANTITIES)
    assert [row["rule"] for row in document["rules"]] == list(RULES)
    assert document["sources"] == ["activations"]
    other = client.get("/api/stores/other.zarr/map").json()
    assert SENSITIVITY not in [row["quantity"] for row in other["quantities"]]


def test_sensitivities_are_means_over_images(client: TestClient, two_runs: list[Path]) -> None:
    document = asked(client, quantity=SENSITIVITY)
    assert document["steps"] == ["all"]
    group = open_store(two_runs[0])[document["source"]]
    by_target = dict(
        zip(group["target"].values, group["latent_error"].values.mean(axis=0), strict=True)
    )
    values = [row["values"][0] for row in document["rows"]]
    np.testing.assert_allclose(values, list(by_target.values()), rtol=1e-14)
    first = document["rows"][0]
    assert first["site"]
    assert first["layer"] in str(next(iter(by_target)))


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"quantity": "beauty"}, 400),
        ({"quantity": "sqnr", "bits": 99}, 400),
        ({"quantity": "sqnr", "percentile": 99}, 400),
        ({"stream": "uni"}, 404),
        ({"layer": "mm99.img"}, 404),
        ({"site": "mlp.fc9"}, 400),
        ({"batch": "99"}, 404),
        ({"source": "pooled/postgelu"}, 404),
    ],
)
def test_refusals_are_one_line(client: TestClient, options: dict[str, Any], status: int) -> None:
    answer = client.get(MAP, params=options)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]
