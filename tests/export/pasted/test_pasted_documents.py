"""Pasted documents: read again by what they are for, and equal to what they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.cli_runner import Runner
from support.effects_store import sensitivity
from taqstore import open_store
from taqstore.analysis import ANALYSES
from taqstore.errors import MisuseError
from taqstore.export.pasted.table import pasted
from taqstore.files.schema import validate
from taqstore.kinds.formats.allocations import read_allocation
from taqstore.kinds.weight_files import read_quant_config
from taqstore.names import SITES, parse_layer
from taqstore.query import activation_start, analyze
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
LINEARS = ["mm0.img.attn.q_proj", "mm0.img.mlp.fc1", "mm0.img.attn.o_proj"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pasted") / "s.zarr"
    make_store(path, shape=SHAPE)
    return path


def with_effects(
    store: Path, unit: str, targets: list[str], *formats: str
) -> dict[str, xr.Dataset]:
    """Groups of the store, and sensitivities in these formats of inputs."""
    opened = open_store(store)
    found = {path: opened[path] for path in opened}
    for place, name in enumerate(formats):
        found[f"sensitivity/{unit}/{name}"] = sensitivity(
            targets, seed=place, amount=4, inputs=True, size=0.4 / 4**place
        )
    return found


@pytest.mark.parametrize("word", ANALYSES["frontier"].pastes)
@pytest.mark.parametrize("options", [{}, {"budgets": [9.0]}])
def test_no_text_of_a_frontier_without_an_average(word: str, options: dict[str, Any]) -> None:
    groups = {"sensitivity/linear/mlx-w4-g64": sensitivity(LINEARS, seed=3)}
    results = analyze("frontier", groups, **options)
    with pytest.raises(MisuseError, match="give it with --average BITS"):
        pasted("frontier", word, groups, results)


def test_an_allocation_is_read_as_it_was_chosen(tmp_path: Path) -> None:
    groups = {"sensitivity/linear/mlx-w4-g64": sensitivity(LINEARS, seed=3)}
    results = analyze("frontier", groups, average=9.0)
    file = tmp_path / "a.json"
    file.write_text(pasted("frontier", "allocation", groups, results), "utf-8")
    result = results["frontier"]
    chosen = dict(zip(result["target"].values, result["allocated"].values, strict=True))
    assert read_allocation(file) == {parse_layer(str(n)): f for n, f in chosen.items()}
    assert {*chosen.values()} == {"mlx-w4-g64", "float"}
    document = json.loads(file.read_text("utf-8"))
    assert document["average_bits"] == float(result["average_bits"].sel(budget=9.0))
    assert document["predicted_error"] == float(result["predicted_error"].sel(budget=9.0))
    assert document["cost"] == "sensitivity"


@pytest.mark.parametrize("format", ["a4-static", "a4-step", "a6-static-mse"])
def test_a_config_by_step_has_other_bits_where_steps_are_protected(
    store: Path, tmp_path: Path, format: str
) -> None:
    steps = open_store(store)["activations/mlp.fc1"]["step"].values.tolist()
    groups = with_effects(store, "step", [str(s) for s in range(len(steps))], format)
    results = analyze("policy", groups, protect=1)
    first, last = (int(results["policy"].attrs[f"chosen_{end}"]) for end in ("first", "last"))
    file = tmp_path / "c.json"
    file.write_text(pasted("policy", "quant-config", groups, results), "utf-8")
    found = read_quant_config(file)
    assert {name.site for name in found} == {*SITES}
    for name, quantizer in found.items():
        protected = [i < first or i >= len(steps) - last for i in range(len(steps))]
        assert quantizer.bits.tolist() == [16 if p else int(format[1]) for p in protected]
        started = activation_start(
            groups[f"activations/{name.site}"],
            bits=int(format[1]),
            groups=None if "step" in format else 1,
            clip="mse" if "mse" in format else "absmax",
        ).sel(layer=name.layer)
        own = np.broadcast_to(started["step_size"].values.astype(np.float32), (len(steps),))
        kept = [not p for p in protected]
        np.testing.assert_array_equal(quantizer.step[kept], own[kept])
        # The same bound, finer.
        wide = own.astype(np.float64) * (2 ** (int(format[1]) - 1) - 1) / 32767
        np.testing.assert_allclose(quantizer.step[protected], wide[protected], rtol=1e-6)


def test_a_policy_is_what_runtimes_read(store: Path) -> None:
    steps = open_store(store)["activations/mlp.fc1"].sizes["step"]
    groups = with_effects(store, "step", [str(s) for s in range(steps)], "a4-static", "a8-static")
    results = analyze("policy", groups, format="a4-static", protect=2)
    document = json.loads(pasted("policy", "policy", groups, results))
    validate("diffusion-step-policy", document)
    policy = document["quantization_config"]["runtime"]["diffusion_step_policy"]
    assert policy["first_steps"]["count"] + policy["last_steps"]["count"] == 2
    assert policy["first_steps"]["count"] == results["policy"].attrs["chosen_first"]
    fine = analyze("policy", groups, format="a4-static", protect=2, protect_bits=8)
    with pytest.raises(MisuseError, match="16 bits alone"):
        pasted("policy", "policy", groups, fine)
    config = json.loads(pasted("policy", "quant-config", groups, fine))
    widths = {e["bits"] for step in config["per_timestep"].values() for e in step.values()}
    assert widths == ({4, 8} if steps > 2 else {8})


def test_a_config_of_allocated_inputs_leaves_out_what_stays(store: Path, tmp_path: Path) -> None:
    groups = with_effects(store, "linear", LINEARS, "a4-static", "a8-static")
    results = analyze("frontier", groups, average=9.0)
    result = results["frontier"]
    chosen = dict(zip(result["target"].values, result["allocated"].values, strict=True))
    file = tmp_path / "c.json"
    file.write_text(pasted("frontier", "quant-config", groups, results), "utf-8")
    found = {name.full: set(q.bits.tolist()) for name, q in read_quant_config(file).items()}
    assert found == {n: {int(f[1])} for n, f in chosen.items() if f != "float"}
    with pytest.raises(MisuseError, match="format of inputs"):
        pasted("frontier", "allocation", groups, results)
    weights = {"sensitivity/linear/mlx-w4-g64": sensitivity(LINEARS, seed=3)}
    with pytest.raises(MisuseError, match="format of weights"):
        pasted("frontier", "quant-config", weights, analyze("frontier", weights, average=9.0))


def test_the_command_prints_writes_and_refuses(taq: Runner, store: Path, tmp_path: Path) -> None:
    """Of statistics, which every store has; the first text is what a JSON file gets."""
    ask = ("analyze", "policy", store, "--protect", 1)
    printed = taq(*ask, "--paste", "policy")
    file = tmp_path / "policy.json"
    assert taq(*ask, "-o", file).code == 0
    assert file.read_text("utf-8") == printed.out
    assert "static expected error" in taq(*ask, "--csv").out
    for words, said in (
        (("--paste", "policy", "--csv"), "a text of its own"),
        (("-o", tmp_path / "x.py"), "needs --paste"),
        (("--paste", "policy", "-o", tmp_path / "x.csv"), "is written as FILE.json"),
        (("--paste", "mlx"), "'mlx' is not known; there is policy, quant-config"),
    ):
        refused = taq(*ask, *words)
        assert refused.code == 2
        assert said in refused.err
