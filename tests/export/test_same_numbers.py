"""Every clip rule of `analyze scales` reaches the documents, with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.cli_runner import Runner
from taqstore import Store, open_store
from taqstore.analysis import RULES, scales, schedule, tiers
from taqstore.errors import MissingError, MisuseError
from taqstore.export import export
from taqstore.export.documents.linears import linear_table
from taqstore.names import site_of
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(
    images=3,
    steps=9,
    stats_stride=2,
    blocks=2,
    hidden=6,
    ffn_ratio=2,
    image_tokens=11,
    text_tokens=5,
)
CUTS = (4, 6)
OPTIONS: dict[str, dict[str, Any]] = {
    "ema": {"momentum": 0.5, "order": (2, 0, 1)},
    "percentile": {"percentile": 97.5},
    "mean_percentile": {"percentile": 90.0},
    "mse": {"bits": 4},
    "l2.4": {"bits": 5},
}
CHOICES = [(name, OPTIONS.get(name, {})) for name in RULES]
GROUPED = [(name, CUTS) for name in RULES] + [("absmax", None), ("mse", "static"), ("ema", None)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("same") / "run.zarr", shape=SHAPE)


@pytest.fixture(scope="module")
def store(made: Path) -> Store:
    """Without dask: planning graphs of so few values takes many times as long as they do."""
    return open_store(made, chunks=None)


def written(store: Store, name: str, path: Path, **options: Any) -> Any:
    export(name, store, path, **options)
    return json.loads(path.read_text("utf-8"))


def by_linear(store: Store, function: Any, *names: str) -> xr.Dataset:
    """Results of an analysis of every site, named as documents name linears."""
    found = {
        site_of(path): function(store[path].compute(), site=site_of(path))
        for path in store
        if path.startswith("activations/")
    }
    steps = [name for name in names if "step" in next(iter(found.values()))[name].dims]
    layers = [name for name in names if name not in steps]
    return linear_table(found, by_step=steps, by_layer=layers)


def expected_alpha(store: Store, clip: str, **options: Any) -> xr.Dataset:
    def ask(dataset: xr.Dataset, site: str) -> xr.Dataset:
        found = scales(dataset, clip=clip, **options)
        if "step_group" in found.dims:
            group = np.searchsorted(found["first_step"], dataset["step"], side="right") - 1
            found = found.isel(step_group=xr.DataArray(group, dims="step"))
            found = found.assign_coords(step=dataset["step"])
        return found[["alpha"]]

    return by_linear(store, ask, "alpha")


def alphas(table: xr.Dataset) -> dict[str, list[float]]:
    columns = table["alpha"].transpose("linear", "step").values.tolist()
    return dict(zip(table["linear"].values.tolist(), columns, strict=True))


@pytest.mark.parametrize(("clip", "cuts"), GROUPED)
def test_clip_bounds_are_those_of_scales(
    store: Store, tmp_path: Path, clip: str, cuts: Any
) -> None:
    options = OPTIONS.get(clip, {})
    chosen = {**options, "cuts": cuts}
    expected = alphas(expected_alpha(store, clip, **chosen))
    assert len(expected) > 15
    config = written(store, "quant-config", tmp_path / "c.json", clip=clip, **chosen)
    for step, (_, entries) in enumerate(config["per_timestep"].items()):
        assert {n: e["scale"] for n, e in entries.items()} == {
            n: values[step] for n, values in expected.items()
        }
        assert {e["bits"] for e in entries.values()} == {options.get("bits", 8)}
    assert config["summary"]["scale_source"] == clip
    assert config["summary"]["activation_bits"] == options.get("bits", 8)
    table = written(store, "lut-schedule", tmp_path / "l.json", clip=clip, **chosen)
    held = {name.replace("_", "."): row["alphas"] for name, row in table["layers"].items()}
    assert held == {name.replace("_", "."): values for name, values in expected.items()}
    summary = written(store, "temporal-analysis", tmp_path / "t.json", clip=clip, **chosen)
    largest = {n: row["max_scale"] for n, row in summary["layer_scale_summary"].items()}
    assert largest == {name: max(values) for name, values in expected.items()}


@pytest.mark.parametrize("name", ["quant-config", "lut-schedule", "temporal-analysis"])
@pytest.mark.parametrize("clip", ["percentile", "mse"])
def test_blocks_of_dask_give_the_same_file(
    made: Path, store: Store, tmp_path: Path, name: str, clip: str
) -> None:
    chosen = {**OPTIONS[clip], "clip": clip, "cuts": CUTS}
    export(name, store, tmp_path / "a.json", **chosen)
    export(name, open_store(made), tmp_path / "b.json", **chosen)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(("clip", "options"), CHOICES, ids=list(RULES))
def test_tiers_are_those_of_the_analysis(
    store: Store, tmp_path: Path, clip: str, options: dict[str, Any]
) -> None:
    def ask(dataset: xr.Dataset, site: str) -> xr.Dataset:
        return tiers(dataset, clip=clip, site=site, **options)

    expected = by_linear(store, ask, "alpha", "bits", "variability_ratio")
    config = written(store, "quant-config-multitier", tmp_path / "c.json", clip=clip, **options)
    for step, entries in enumerate(config["per_timestep"].values()):
        for i, name in enumerate(expected["linear"].values.tolist()):
            assert entries[name]["scale"] == expected["alpha"].values[step, i]
            assert entries[name]["bits"] == expected["bits"].values[step, i]
    told = written(store, "temporal-analysis-multitier", tmp_path / "t.json", clip=clip, **options)[
        "layer_stats"
    ]
    ratios = {name: row["variability_ratio"] for name, row in told.items()}
    assert ratios == dict(
        zip(expected["linear"].values, expected["variability_ratio"].values, strict=True)
    )


@pytest.mark.parametrize(("clip", "options"), CHOICES, ids=list(RULES))
def test_polynomials_are_those_of_the_analysis(
    store: Store, tmp_path: Path, clip: str, options: dict[str, Any]
) -> None:
    def ask(dataset: xr.Dataset, site: str) -> xr.Dataset:
        return schedule(dataset, clip=clip, **options)

    expected = by_linear(store, ask, "degree", "r2")
    document = written(store, "poly-schedule", tmp_path / "p.json", clip=clip, **options)
    assert len(document["layers"]) == expected.sizes["linear"]
    for name, degree in zip(expected["linear"].values, expected["degree"].values, strict=True):
        row = document["layers"][str(name).replace(".", "_")]
        assert row["degree"] == degree == len(row["coeffs"]) - 1


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("clip", ["absmax", "ema", "hist_p999", "percentile", "mse"])
def test_static_ranges_are_those_of_scales(
    store: Store, tmp_path: Path, clip: str, symmetric: bool
) -> None:
    options = OPTIONS.get(clip, {})

    def ask(dataset: xr.Dataset, site: str) -> xr.Dataset:
        found = scales(dataset, clip=clip, cuts="static", symmetric=symmetric, **options)
        return found.isel(step_group=0)[["lower", "upper"]]

    expected = by_linear(store, ask, "lower", "upper")
    data = written(
        store, "onnx-calibration", tmp_path / "o.json", clip=clip, symmetric=symmetric, **options
    )["data"]
    for side, end in (("lowest", "lower"), ("highest", "upper")):
        values = expected[end].values.astype(np.float32).astype(float).tolist()
        found = [data[name][side]["data"] for name in expected["linear"].values.tolist()]
        assert found == values


@pytest.mark.parametrize("clip", [name for name, row in RULES.items() if row.needs == "extrema"])
def test_channel_bounds_are_those_of_scales(store: Store, tmp_path: Path, clip: str) -> None:
    options = OPTIONS.get(clip, {})
    export("act-scales", store, tmp_path / "a.npz", clip=clip, **options)
    found = np.load(tmp_path / "a.npz")
    whole = store["activations/mlp.fc1"].compute()
    expected = scales(whole, clip=clip, per="channel", cuts="static", **options)["alpha"]
    for i, layer in enumerate(whole["layer"].values.tolist()):
        np.testing.assert_array_equal(
            found[f"{layer}.mlp.fc1"], expected.isel(step_group=0, layer=i).astype(np.float32)
        )


def test_batches_are_chosen(store: Store, tmp_path: Path) -> None:
    some = {path: store[path].isel(batch=[0, 2]) for path in store if "activations" in path}
    for name in ("quant-config", "quant-config-multitier", "lut-schedule", "act-scales"):
        suffix = "npz" if name == "act-scales" else "json"
        chosen, direct, every = (tmp_path / f"{name}-{i}.{suffix}" for i in "abc")
        export(name, store, chosen, batch="0,2", clip="tensor_absmax")
        export(name, some, direct, clip="tensor_absmax")
        export(name, store, every, clip="tensor_absmax")
        assert chosen.read_bytes() == direct.read_bytes() != every.read_bytes()
    pooled = {"pooled/timestep_stats/mlp.fc1": store["activations/mlp.fc1"].mean("batch")}
    with pytest.raises(MissingError, match="batches are pooled here"):
        export("quant-config", pooled, tmp_path / "x.json", batch="0")


def test_a_rule_that_lacks_a_bound_of_a_linear_is_refused(store: Store, tmp_path: Path) -> None:
    holes = {path: store[path].compute() for path in store if "mlp.fc1" in path}
    (path,) = holes
    holes[path]["histogram"][{"layer": 1, "step": 2}] = 0
    with pytest.raises(MissingError, match=r"mlp.fc1 has no clip bound by mse at step 4"):
        export("quant-config", holes, tmp_path / "x.json", clip="mse")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("name", ["quant-config", "lut-schedule", "poly-schedule", "act-scales"])
@pytest.mark.parametrize("option", ["--affine", "--per", "--narrow-range", "--group-size"])
def test_what_a_format_cannot_hold_is_refused(
    taq: Runner, tmp_path: Path, name: str, option: str
) -> None:
    shown = taq("export", name, tmp_path / "s.zarr", "-o", tmp_path / "x", option)
    assert shown.code == 2
    assert f"{option} does not go with {name}" in shown.err
    word = option.strip("-").replace("-", "_")
    with pytest.raises(MisuseError, match=f"{name} takes no {word}"):
        export(name, {}, tmp_path / "x", **{word: True})
