"""Sensitivities are those of a run by hand, to the bit; their numbers those of plain formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.evaluate.linears_of_variant import Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.judge.judged import judged, run_beside
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.quantized.quantized_model import LinearPlan, quantize
from taqstore.pipelines.sensitivity.sensitivity import sensitivity

from support.judged_store import STEPS
from support.sensitive import by_mlx, latents_by_hand, matrix_of, rtn
from taqstore.kinds.quantized_linears import quantized_linear
from taqstore.kinds.sensitivity import sensitivities
from taqstore.names import SITES, parse_layer
from taqstore.store.reader import open_store

LINEARS = ("mm1.img.attn.k_proj", "mm0.txt.adaln.linear", "x_embedder.embed.image")


@pytest.fixture(scope="module")
def measured(judged_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil

    path = shutil.copytree(judged_store, tmp_path_factory.mktemp("measured") / "run.zarr")
    sensitivity(path, formats=["rtn-w3", "mlx-w4-g32", "whole"], seeds=2, targets=LINEARS)
    return Path(path)


@pytest.mark.parametrize("format", ["rtn-w3", "mlx-w4-g32", "whole"])
def test_linears_are_those_of_weights_put_in_by_hand(
    measured: Path, model: LoadedModel, format: str
) -> None:
    store = open_store(measured, chunks=None)
    found = sensitivities(store)["linear", format]
    assert sorted(found["target"].values) == sorted(LINEARS)
    rounded = {"rtn-w3": rtn(3), "mlx-w4-g32": by_mlx(4, 32)}
    for name in LINEARS:
        weight = matrix_of(model, name)
        if format in rounded:
            weight = rounded[format](weight)
        else:
            weight = quantized_linear(store, parse_layer(name), set=format).dequantized()
        for place in range(2):
            one = found.sel(target=name).isel(image=place)
            x = latents_by_hand(model, store["latents"], one, {name: weight})
            plain = latents_by_hand(model, store["latents"], one, {})
            np.testing.assert_array_equal(one["delta"], x[-1] - plain[-1])
            _check_numbers(one, x.astype(np.float64), plain.astype(np.float64))


def _check_numbers(one: object, x: np.ndarray, plain: np.ndarray) -> None:
    """The rest follows from both trajectories, step by step in a loop."""
    errors, cosines = [], []
    for a, b in zip(x[1:], plain[1:], strict=True):
        a, b = a.ravel(), b.ravel()
        errors.append(np.sqrt(((a - b) ** 2).sum() / (b**2).sum()))
        cosines.append((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    wanted = {
        "latent_norm": np.sqrt((plain[-1] ** 2).sum()), "latent_error": errors[-1],
        "worst_error": max(errors), "worst_step": 1 + int(np.argmax(errors)),
        "cosine": cosines[-1], "worst_cosine": min(cosines),
    }  # fmt: skip
    for name, value in wanted.items():
        np.testing.assert_allclose(one[name], value, rtol=1e-12, err_msg=name)  # type: ignore[index]


def test_a_site_of_inputs_is_the_variant_restricted_to_it(store: Path) -> None:
    sensitivity(store, unit="site", formats=["a4-static"], seeds=1, sites=["mlp.fc2"])
    found = sensitivities(open_store(store))["site", "a4-static"]
    assert [*found["target"].values] == ["mlp.fc2"]
    with judged(store, count=1) as one:
        planner = Planner(one.model, open_store(store))
        every = planner.plans(Variant.parse("float/a4-static"))
        plans = {name: plan for name, plan in every.items() if name.site == "mlp.fc2"}
        x = run_beside(one, quantize(one.model, plans), 0).x
        np.testing.assert_array_equal(found["delta"][0, 0], x[-1] - one.at(0).x[-1])
    channels = sum(one.shape[1] for name, one in planner.weights.readers.items() if name in plans)
    assert int(found["input_channels"][0]) == channels


def test_a_step_is_a_model_whose_inputs_are_quantized_at_that_step_alone(store: Path) -> None:
    sensitivity(store, unit="step", formats=["a4-static"], seeds=1)
    found = sensitivities(open_store(store))["step", "a4-static"]
    assert [*found["target"].values] == [str(step) for step in range(STEPS)]
    with judged(store, count=1) as one:
        planner = Planner(one.model, open_store(store))
        names = [name for name in planner.weights.readers if name.site in SITES]
        inputs = planner.inputs(Variant.parse("float/a4-static"), names)
        sigmas = np.array(one.schedule.sigmas)
        for step in range(STEPS):
            # Bits of each step by its own time group: 4 at this step, none at the others.
            bits = np.where(np.arange(STEPS) == step, 4, 0).astype(np.int8)
            plans = {
                name: LinearPlan(None, replace(
                    quantizer, bits=bits, step=np.repeat(quantizer.step, STEPS),
                    zero_point=np.zeros(STEPS, np.int32),
                    sigma_lower=np.append(sigmas[1:-1] + 1e-4, 0).astype(np.float32)))
                for name, quantizer in inputs.items()
            }  # fmt: skip
            x = run_beside(one, quantize(one.model, plans), 0).x
            np.testing.assert_array_equal(found["delta"][0, step], x[-1] - one.at(0).x[-1])
            np.testing.assert_array_equal(x[: step + 1], one.at(0).x[: step + 1])
