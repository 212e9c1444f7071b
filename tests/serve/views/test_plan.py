"""The plan: what is shown is what the shown command prints, and what is best is best."""

from __future__ import annotations

import json
import shlex
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cli_runner import Runner
from taqstore.errors import MissingError, MisuseError, TaqError
from taqstore.serve.served.service import Service
from taqstore.serve.views.plan.groups import OPTIONS, group_plan
from taqstore.serve.views.plan.measured import frontier_plan, policy_plan, stored
from taqstore.serve.views.plan.widths import width_plan

RUN = "run.zarr"
WIDTHS: dict[str, Any] = {
    "choices": (4, 6, 8), "per": "layer", "weight": "relative", "symmetric": True,
}  # fmt: skip


def tables(taq: Runner, line: str) -> list[dict[str, Any]]:
    """What the shown command prints, as JSON."""
    words = shlex.split(line)
    assert words[0] == "taqstore"
    found = taq(*words[1:], "--json")
    assert found.code == 0, found.err
    made: list[dict[str, Any]] = json.loads(found.out)["tables"]
    return made


def rows_of(made: list[dict[str, Any]], *dims: str) -> list[dict[str, Any]]:
    return next(one["rows"] for one in made if set(one["dims"]) == set(dims))


@pytest.mark.parametrize("average", [None, 4.7, 8.0])
@pytest.mark.parametrize("per", ["layer", "step"])
def test_widths_are_those_of_the_command(
    asked: Service, taq: Runner, average: float | None, per: str
) -> None:
    found = width_plan(asked, store=RUN, average=average, **{**WIDTHS, "per": per})
    dims = ("site", "layer") if per == "layer" else ("site", "step", "layer")
    printed = rows_of(tables(taq, found["cli"]), *dims)
    shown = {}
    for row in found["rows"]:
        steps = found["steps"] if per == "step" else [None]
        bits, errors = (np.atleast_1d(row[key]).tolist() for key in ("bits", "error"))
        for step, width, error in zip(steps, bits, errors, strict=True):
            shown[row["site"], row["layer"], step] = (width, error)
    assert len(shown) == len(printed) == found["units"]
    for row in printed:
        width, error = shown[row["site"], row["layer"], row.get("step")]
        assert width == row["bits"]
        assert error == pytest.approx(row["allocated_error"], rel=1e-12)
    mean = np.mean([row["allocated_error"] for row in printed])
    assert found["error"] == pytest.approx(mean, rel=1e-12)
    assert found["bits"] == pytest.approx(np.mean([row["bits"] for row in printed]))


def test_uniform_widths_are_means_of_what_each_costs(asked: Service, taq: Runner) -> None:
    found = width_plan(asked, store=RUN, average=5.0, **WIDTHS)
    printed = rows_of(tables(taq, found["cli"]), "site", "layer", "choice")
    for width, error in zip(found["choices"], found["uniform"], strict=True):
        each = [row["choice_error"] for row in printed if row["choice"] == width]
        assert error == pytest.approx(np.mean(each), rel=1e-12)
    assert found["uniform"][0] > found["error"] > found["uniform"][-1]


def test_no_other_allocation_of_a_site_is_better(asked: Service) -> None:
    found = width_plan(asked, store=RUN, average=5.5, site=("mlp.fc2",), **WIDTHS)
    costs = np.array([row["choice_error"] for row in found["rows"]])
    widths = found["choices"]
    least = min(
        costs[np.arange(len(costs)), list(chosen)].mean()
        for chosen in product(range(3), repeat=len(costs))
        if np.mean([widths[c] for c in chosen]) <= 5.5
    )
    assert found["error"] == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("per", ["layer", "step"])
def test_the_curve_goes_through_the_budgets(asked: Service, per: str) -> None:
    told = {**WIDTHS, "per": per}
    curve = width_plan(asked, store=RUN, **told)["curve"]
    assert (np.diff(curve["error"]) <= 1e-15).all()
    for place in (0, 7, 12, -1):
        average = curve["average"][place]
        one = width_plan(asked, store=RUN, average=average, **told)
        assert one["error"] == pytest.approx(curve["error"][place], rel=1e-12)


def test_a_budget_below_all_widths_is_refused(asked: Service) -> None:
    with pytest.raises(TaqError, match="less than the smallest choice"):
        width_plan(asked, store=RUN, average=3.0, **WIDTHS)
    with pytest.raises(MissingError, match="no store"):
        width_plan(asked, store="walk.zarr", **WIDTHS)
    with pytest.raises(MisuseError, match="did you mean mlp"):
        width_plan(asked, store=RUN, site=("mlp.fc3",), **WIDTHS)


# -- groups of steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [None, "static", (2,), (2, 6), (2, 4, 6)])
@pytest.mark.parametrize("layer", [None, "mm1.txt"])
def test_groups_cost_what_the_command_prints(
    asked: Service, taq: Runner, cuts: Any, layer: str | None
) -> None:
    found = group_plan(
        asked, store=RUN, bits=4, symmetric=True, cuts=cuts, site="mlp.fc2", layer=layer
    )
    made = tables(taq, found["cli"])
    whole = rows_of(made, "site")[0]
    assert found["error"] == pytest.approx(whole["given_error"], rel=1e-12)
    curve = [row["optimal_error"] for row in rows_of(made, "site", "groups")]
    assert found["curve"] == pytest.approx(curve, rel=1e-12)
    groups = [row["group"] for row in rows_of(made, "site", "step")]
    begins = [found["steps"][i] for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
    assert found["cuts"] == begins
    assert sum(part["error"] for part in found["parts"]) == pytest.approx(found["error"])
    if cuts is not None:
        assert found["cuts"] == ([] if cuts == "static" else list(cuts))


def test_the_best_groups_are_the_best_of_all(asked: Service) -> None:
    told: dict[str, Any] = {"store": RUN, "bits": 4, "symmetric": True, "site": "attn.qkv"}
    steps = group_plan(asked, **told)["steps"]
    for count in range(1, len(steps) + 1):
        every = [
            group_plan(asked, **told, cuts=cut or "static")["error"]
            for cut in combinations(steps[1:], count - 1)
        ]
        best = group_plan(asked, **told, count=count)
        assert len(best["cuts"]) == count - 1
        assert best["error"] == pytest.approx(min(every), rel=1e-12)
        assert best["best"] == {"cuts": best["cuts"], "error": pytest.approx(best["error"])}


def test_the_config_has_the_groups(asked: Service, taq: Runner, tmp_path: Path) -> None:
    found = group_plan(asked, store=RUN, bits=4, symmetric=True, cuts=(4,), site="mlp.fc2")
    words = shlex.split(found["config"]["cli"])
    target = tmp_path / "config.json"
    words[words.index("-o") + 1] = str(target)
    made = taq(*words[1:])
    assert made.code == 0, made.err
    steps = json.loads(target.read_text())["per_timestep"]
    scales = [steps[str(step)]["mm1.img.mlp.fc2"]["scale"] for step in found["steps"]]
    assert all(steps[str(step)]["mm1.img.mlp.fc2"]["bits"] == 4 for step in found["steps"])
    # Steps 0 and 2 are one group, 4 and 6 the other.
    assert scales[0] == scales[1] != scales[2] == scales[3]


def test_groups_are_refused_in_one_line(asked: Service) -> None:
    told: dict[str, Any] = {"store": RUN, "bits": 4, "symmetric": True}
    with pytest.raises(MissingError, match="no group of steps can begin at 3"):
        group_plan(asked, **told, cuts=(3,))
    with pytest.raises(TaqError, match="4 steps make 1 to 4 groups"):
        group_plan(asked, **told, count=9)
    with pytest.raises(TaqError):
        group_plan(asked, **told, site="mlp.fc2", layer="mm77.img")
    assert next(one for one in OPTIONS if one.name == "count").unless == "cuts"


# -- what was measured -----------------------------------------------------------------------------


def test_what_is_stored_is_told(asked: Service) -> None:
    found = stored(asked, store=RUN)
    assert [(one["unit"], one["format"]) for one in found["sensitivities"]] == [
        ("linear", "rtn-w4")
    ]
    assert found["variants"] == []
    assert stored(asked, store="other.zarr")["sensitivities"] == []


def test_a_frontier_is_that_of_the_command(asked: Service, taq: Runner) -> None:
    found = frontier_plan(asked, store=RUN, average=8.0)
    made = tables(taq, found["cli"])
    budgets = rows_of(made, "budget")
    assert [row["predicted_error"] for row in budgets] == pytest.approx(
        [row["predicted_error"] for row in found["budgets"]], rel=1e-12
    )
    targets = {row["target"]: row["allocated"] for row in rows_of(made, "target")}
    assert {row["target"]: row["format"] for row in found["allocation"]} == targets
    assert "--paste allocation" in found["config"]["cli"]
    with pytest.raises(MissingError, match="no sensitivities of linears"):
        frontier_plan(asked, store="other.zarr")
    with pytest.raises(MisuseError, match="less than the smallest formats"):
        frontier_plan(asked, store=RUN, average=1.0)


def test_a_policy_is_that_of_the_command(asked: Service, taq: Runner) -> None:
    found = policy_plan(asked, store=RUN, protect=2)
    made = tables(taq, found["cli"])
    for row in rows_of(made, "first", "last"):
        shown = found["values"][row["first"]][row["last"]]
        if row["predicted_cost"] is None:
            assert np.isnan(shown)
        else:
            assert shown == pytest.approx(row["predicted_cost"], rel=1e-12)
    assert found["what"] == "cost"
    assert sum(found["chosen"].values()) == 2
