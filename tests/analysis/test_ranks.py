"""Static scores ranked against sensitivities: every number from the store by other means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from support.cli_runner import Runner
from support.sensitivity_store import LINEARS, STEPS, write_sensitivities
from taqstore.errors import MissingError, MisuseError
from taqstore.names import parse_layer
from taqstore.query.analyze import analyze
from taqstore.store.reader import open_store
from taqstore.testing import RunShape, make_store

IMAGES = (0, 1, 2)
SHAPE = RunShape(images=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "s.zarr"
    return write_sensitivities(path, formats=["rtn-w2", "rtn-w4"], images=IMAGES)


def test_rho_is_scipys_of_what_the_store_holds(store: Path) -> None:
    opened = open_store(store)
    results = analyze("ranks", opened, values=True)
    assert list(results) == ["linear/rtn-w2", "linear/rtn-w4"]
    for name, found in results.items():
        effects, kept = opened[f"sensitivity/{name}"], opened[f"scores/{name}"]
        plain = {
            "weight_error": kept["weight_error"], "weight_sqnr": -kept["weight_sqnr"],
            "weights": kept["weights"], "weight_absmax": kept["weight_absmax"],
            "moment_error": kept["moment_error"], "imatrix_error": kept["imatrix_error"],
            "moment_relative": kept["moment_error"] / kept["output_power"],
            "imatrix_relative": kept["imatrix_error"] / kept["imatrix_power"],
            "weight_kurtosis": kept["weight_kurtosis"], "output_power": kept["output_power"],
            "weight_mean_error": kept["weight_error"] / kept["weights"],
            "weight_crest": kept["weight_absmax"] / (kept["weight_power"] / kept["weights"]) ** 0.5,
        }  # fmt: skip
        assert {*found["score"].values} == {*plain}
        for effect in ("latent_error", "worst_error"):
            measured = effects[effect].values
            for score, values in plain.items():
                one = found.sel(effect=effect, score=score)
                rho = spearmanr(values, measured.mean(axis=0)).statistic
                assert float(one["rho"]) == pytest.approx(rho, abs=1e-12)
                assert bool(one["trusted"]) == (rho >= 0.8)
                assert float(one["rho_lower"]) <= rho <= float(one["rho_upper"])
                assert int(one["ranked"]) == len(LINEARS)
                np.testing.assert_allclose(one["score_value"], values, rtol=1e-15)
            halves = measured[::2].mean(axis=0), measured[1::2].mean(axis=0)
            wanted = spearmanr(*halves).statistic
            assert float(found["reliability"].sel(effect=effect)) == pytest.approx(wanted)
        order = found["rho"].sel(effect="latent_error").values
        assert (np.diff(order) <= 0).all()
        assert [*found["score"].values[found["baseline"].values[0]]] == ["weights"]


def test_linears_of_a_site_among_themselves(store: Path) -> None:
    results = analyze("ranks", open_store(store), formats=["rtn-w4"], by_site=True, values=True)
    sites = {parse_layer(name).site for name in LINEARS} - {"embed.image", "final.linear"}
    assert {*results} == {"linear/rtn-w4", *(f"linear/rtn-w4/{site}" for site in sites)}
    whole, part = (results[f"linear/rtn-w4{end}"] for end in ("", "/mlp.fc1"))
    names = [name for name in LINEARS if name.endswith("mlp.fc1")]
    assert [*part["target"].values] == names
    ours = whole.sel(score="moment_error", effect="latent_error", target=names)
    rho = spearmanr(ours["score_value"], ours["effect_value"]).statistic
    assert float(part["rho"].sel(score="moment_error", effect="latent_error")) == pytest.approx(rho)


def test_without_scores_the_baseline_is_ranked(tmp_path: Path) -> None:
    path = write_sensitivities(tmp_path / "s.zarr", formats=["rtn-w4"], with_scores=False)
    [found] = analyze("ranks", open_store(path)).values()
    assert [*found["score"].values] == ["weights"]


@pytest.mark.parametrize("format", ["a4-static", "a8-step", "a4-static-mse", "a4-grouped"])
def test_inputs_are_scored_from_observations(tmp_path: Path, format: str) -> None:
    path = make_store(tmp_path / "s.zarr", shape=SHAPE)
    write_sensitivities(path, unit="site", formats=[format], images=IMAGES)
    write_sensitivities(path, formats=[format], images=IMAGES)
    opened = open_store(path)
    site, linear = (analyze("ranks", opened, unit=u, values=True)[f"{u}/{format}"]
                    for u in ("site", "linear"))  # fmt: skip
    absmax = [
        float(np.abs([opened[f"activations/{name}"][end] for end in ("tensor_min", "tensor_max")])
              .max()) for name in site["target"].values
    ]  # fmt: skip
    np.testing.assert_allclose(site["score_value"].sel(score="input_absmax"), absmax)
    priced = format != "a4-grouped"
    assert ("input_sqnr" in site["score"].values) == priced
    if not priced:
        return
    options = {"bits": int(format[1]), "clip": "mse" if "mse" in format else "absmax"}
    options |= {"cuts": "static"} if "static" in format else {}
    by_site = analyze("error", opened, sites=["mlp.fc2"], **options)["activations/mlp.fc2"]
    layer = "mm0.img"
    one = by_site.sel(layer=layer).compute()
    error, power = one["error"].values, one["error"].values * 10 ** (one["sqnr"].values / 10)
    got = linear["score_value"].sel(target=f"{layer}.mlp.fc2")
    wanted = 10 * np.log10(error.mean() / power.mean())
    np.testing.assert_allclose(got.sel(score="input_sqnr"), wanted, rtol=1e-9)
    channels = opened["activations/mlp.fc2"].sizes["channel"]
    np.testing.assert_allclose(got.sel(score="input_error"), error.mean() * channels, rtol=1e-9)


def test_steps_are_scored_from_observations(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", shape=RunShape(images=1, steps=STEPS, stats_stride=1))
    write_sensitivities(path, unit="step", formats=["a4-static"], images=IMAGES)
    opened = open_store(path)
    found = analyze("ranks", opened, values=True)["step/a4-static"]
    sigma = opened["activations/mlp.fc2"]["sigma"].values
    np.testing.assert_allclose(found["score_value"].sel(score="sigma"), sigma)
    assert {"input_error", "input_sqnr", "step_cost", "input_absmax"} <= {*found["score"].values}


def test_what_is_refused(store: Path, tmp_path: Path, taq: Runner) -> None:
    with pytest.raises(MissingError, match="no sensitivities in rtn-w3"):
        analyze("ranks", open_store(store), formats=["rtn-w3"])
    empty = make_store(tmp_path / "e.zarr", shape=RunShape(images=1))
    with pytest.raises(MissingError, match="taqstore sensitivity measures them"):
        analyze("ranks", open_store(empty))
    with pytest.raises(MisuseError, match="cannot choose by site"):
        analyze("ranks", open_store(store), sites=["mlp.fc2"])
    said = taq("analyze", "ranks", store, "--format", "rtn-w4", "--limit", 3)
    assert said.code == 0
    assert "linear/rtn-w4" in said.out or "latent_error" in said.out
