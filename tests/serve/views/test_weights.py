"""Weight sets and gates: what is shown is what the store holds."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.cli_runner import Runner
from support.given_service import GivenService
from support.trajectory_groups import DRIFTS, trajectory_groups
from taqstore import open_store
from taqstore.errors import MissingError
from taqstore.kinds.quantized_linears import linear_names_of, quantized_linear
from taqstore.names import path_in_model
from taqstore.query.variants import GateFigures, compared_variants
from taqstore.query.weight_changes import weight_changes
from taqstore.serve.served.service import Service
from taqstore.serve.views.gates import gates
from taqstore.serve.views.weights import blocks, changes, linears, sets

RUN, SET = "run.zarr", "adaround"


def test_sets_and_linears_are_those_of_the_store(asked: Service) -> None:
    one = sets(asked, store=RUN)["sets"][0]
    found = linears(asked, store=RUN)
    assert one["set"] == found["set"]
    store = open_store(asked.address(RUN))
    names = linear_names_of(store, set=one["set"])
    assert [row["linear"] for row in found["rows"]] == [name.full for name in names]
    assert one["linears"] == len(names)
    for row, name in zip(found["rows"], names, strict=True):
        weight = quantized_linear(store, name, set=one["set"]).weight
        assert (row["outputs"], row["inputs"]) == weight.shape
    assert sets(asked, store="other.zarr")["sets"] == []
    with pytest.raises(MissingError, match="no quantized weights"):
        linears(asked, store="other.zarr")
    with pytest.raises(MissingError, match="no weight set 'nope'"):
        linears(asked, store=RUN, set="nope")


def test_errors_of_blocks_are_those_of_the_store(asked: Service) -> None:
    found = blocks(asked, store=RUN)
    data = open_store(asked.address(RUN))["reconstruction"].load()
    for row in found["rows"]:
        at = data.sel(block=row["block"], stream=row["stream"])
        assert row["power"] == float(at["output_power"]) > 0
        for method, error in row["error"].items():
            assert error == float(at["output_error"].sel(rounding_method=method))
    assert [one["block"] for one in found["losses"]] == data["block"].values.tolist()
    for one in found["losses"]:
        assert len(one["iteration"]) == len(one["loss"]) > 0


def test_commands_that_are_shown_run(asked: Service, taq: Runner) -> None:
    for view in (sets, linears, blocks, changes):
        told: dict[str, Any] = {"other": "nearest"} if view is changes else {}
        words = shlex.split(view(asked, store=RUN, **told)["cli"])  # type: ignore[operator]
        found = taq(*words[1:])
        assert found.code == 0, found.err


def planted(asked: Service) -> tuple[Any, dict[str, np.ndarray], dict[str, float]]:
    """A store, weights of a model made for it, and the share of its integers that are not nearest.

    Weights are made so that nearest integers are known: those of the set, some moved by one.
    """
    store = open_store(asked.address(RUN))
    rng = np.random.default_rng(9)
    base, shares = {}, {}
    for name in linear_names_of(store, set=SET):
        linear = quantized_linear(store, name, set=SET)
        low = -(2 ** (linear.bits - 1))
        moved = rng.random(linear.weight.shape) < 0.2
        nearest = np.where(
            moved, linear.weight + np.where(linear.weight > low, -1, 1), linear.weight
        )
        steps = np.repeat(linear.step, linear.weight.shape[1] // linear.step.shape[1], axis=1)
        offset = rng.uniform(-0.4, 0.4, nearest.shape)
        base[f"{path_in_model(name)}.weight"] = ((nearest + offset) * steps).astype(np.float32)
        shares[name.full] = float(moved.mean())
    return store, base, shares


def test_what_is_not_nearest_is_counted(asked: Service) -> None:
    store, base, shares = planted(asked)
    assert len(shares) > 5
    found = {one.name.full: one for one in weight_changes(store, set=SET, base=base)}
    assert {name: one.changed for name, one in found.items()} == pytest.approx(shares)
    assert {one.largest for one in found.values()} == {1}

    served = Service([asked.address(RUN)], base=lambda _: base)
    told = changes(served, store=RUN, set=SET, other="nearest")
    assert {row["linear"]: row["changed"] for row in told["rows"]} == pytest.approx(shares)
    weights = {row["linear"]: row["weights"] for row in told["rows"]}
    for block in told["blocks"]:
        mine = [row["linear"] for row in told["rows"] if row["block"] == block["block"]]
        total = sum(weights[name] for name in mine)
        share = sum(weights[name] * shares[name] for name in mine) / total
        assert (block["weights"], block["changed"]) == (total, pytest.approx(share))


def test_without_the_model_it_is_said(asked: Service) -> None:
    told = changes(asked, store=RUN, set=SET, other="nearest")
    assert "not known" in told["note"]
    assert all(np.isnan(row["changed"]) for row in told["rows"])
    assert all(0 <= row["at_ends"] <= 1 for row in told["rows"])
    same = changes(asked, store=RUN, set=SET, other=SET)
    assert {row["changed"] for row in same["rows"]} == {0.0}
    with pytest.raises(MissingError, match="no block 'mm9'"):
        changes(asked, store=RUN, other="nearest", block="mm9")
    with pytest.raises(MissingError, match="no weight set 'none'"):
        changes(asked, store=RUN, other="none")


def test_gates_are_judged_as_the_library_does() -> None:
    served = GivenService(trajectory_groups())
    for bound in (0.5, 0.95, 0.99999):
        found = gates(served, store=RUN, min_cosine=bound)["variants"]
        wanted = compared_variants(served.groups, min_cosine=bound)
        assert [one["variant"] for one in found] == [*DRIFTS]
        for one in found:
            data = wanted[one["variant"]]
            figures = GateFigures.of(data)
            assert one["passes"] == figures.passes
            assert one["cosine"]["mean"] == float(figures.cosine.mean)
            assert one["by_step"]["mean"] == data["mean"].values.tolist()
            assert [row["first_below"] for row in one["images"]] == data[
                "first_below"
            ].values.tolist()
    strict, loose = (
        gates(served, store=RUN, min_cosine=bound)["variants"] for bound in (0.99999, 0.1)
    )
    assert not any(one["passes"] for one in strict)
    assert all(one["passes"] for one in loose)


def test_an_image_at_a_time_is_as_all_at_once() -> None:
    """Cosines of each image from plain NumPy."""
    groups = trajectory_groups()
    paths = [path for path in groups if not path.endswith("float")]
    found = list(compared_variants(groups).values())
    exact: xr.Dataset = groups["trajectories/float"]
    for path, data in zip(paths, found, strict=True):
        a, b = (g["x"].values.astype(np.float64) for g in (exact, groups[path]))
        a, b = (v.reshape(*v.shape[:2], -1) for v in (a, b))
        wanted = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert data["cosine"].values == pytest.approx(wanted, rel=1e-12)
