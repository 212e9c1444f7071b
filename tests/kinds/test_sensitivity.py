"""Groups of sensitivities and scores: what is taken, what is refused, what a reader is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.sensitivity_store import LINEARS, TARGETS, base, deltas, write_sensitivities
from taqstore.errors import MisuseError
from taqstore.kinds.sensitivity import (
    check_format,
    format_bits,
    path_of,
    quantizes_inputs,
    scores,
    sensitivities,
)
from taqstore.store.reader import open_store
from taqstore.upkeep.info import describe_store
from taqstore.upkeep.verify import verify_store

IMAGES = (0, 1, 2)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write_sensitivities(tmp_path / "s.zarr", images=IMAGES)
    write_sensitivities(path, unit="step", formats=["a4-static"], images=IMAGES)
    store = open_store(path)
    found = sensitivities(store)
    wanted = [("linear", f) for f in ("rtn-w2", "rtn-w4", "rtn-w8")] + [("step", "a4-static")]
    assert list(found) == wanted
    for (unit, format), dataset in found.items():
        delta = deltas(unit, format, IMAGES)
        np.testing.assert_array_equal(dataset["delta"], delta)
        assert [*dataset["target"].values] == [*TARGETS[unit]]
        norm = np.linalg.norm(base(IMAGES).reshape(3, -1).astype(float), axis=1)[:, None]
        change = np.linalg.norm(delta.reshape(3, len(TARGETS[unit]), -1).astype(float), axis=2)
        np.testing.assert_allclose(dataset["latent_error"], change / norm, rtol=1e-12)
    assert [*found["linear", "rtn-w4"]["weights"].values] == [*LINEARS.values()]
    assert not found["step", "a4-static"]["weights"].any()
    assert [*sensitivities(store, "step")] == [("step", "a4-static")]
    assert [*scores(store, "linear")] == wanted[:3]


def test_a_store_of_them_is_sound_and_described(tmp_path: Path) -> None:
    path = write_sensitivities(tmp_path / "s.zarr", formats=["rtn-w4"], images=IMAGES)
    assert not verify_store(path).damage
    kinds = {g["group"]: (g["kind"], g["written_percent"]) for g in
             describe_store(open_store(path))["groups"]}  # fmt: skip
    assert kinds["sensitivity/linear/rtn-w4"] == ("sensitivity", 100.0)
    assert kinds["scores/linear/rtn-w4"] == ("scores", 100.0)


def test_of_what_is_half_measured_the_most_whole_items_are_given(tmp_path: Path) -> None:
    known = [*LINEARS]
    path = tmp_path / "s.zarr"
    write_sensitivities(path, formats=["rtn-w4"], images=IMAGES, targets=known[1:])
    write_sensitivities(path, formats=["rtn-w4"], images=(0, 1, 2, 3), targets=known[:2])
    [found] = sensitivities(open_store(path)).values()
    assert [*found["image"].values] == [*IMAGES]
    assert [*found["target"].values] == known
    assert np.isfinite(found["delta"].values).all()
    write_sensitivities(path, formats=["rtn-w4"], images=(0, 1, 2, 3), targets=known[2:-1])
    [found] = sensitivities(open_store(path)).values()
    assert [*found["image"].values] == [0, 1, 2, 3]
    assert [*found["target"].values] == known[:-1]
    assert np.isfinite(found["delta"].values).all()


def test_nothing_whole_is_nothing_found(tmp_path: Path) -> None:
    path = write_sensitivities(tmp_path / "s.zarr", formats=["rtn-w4"], targets=[])
    assert sensitivities(open_store(path)) == {}
    assert scores(open_store(path)) == {}


@pytest.mark.parametrize("name", ["", "../x", "RTN", "4bit", "rtn/w4", "a" * 49, "mlx w4"])
def test_names_that_no_format_can_have(name: str) -> None:
    with pytest.raises(MisuseError, match="no name of a format"):
        check_format(name)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(MisuseError, match="unit 'layer' is not known"):
        path_of("sensitivity", "layer", "rtn-w4")
    with pytest.raises(MisuseError, match="did you mean linear"):
        sensitivities({}, "linears")


@pytest.mark.parametrize(
    ("name", "bits", "inputs"),
    [
        ("rtn-w3-g32", 3, False), ("mlx-w8-g64", 8, False), ("comfy", 4, False),
        ("comfy-gptq", 4, False), ("a4-static", 4, True), ("a16-step-mse-shift", 16, True),
        ("gptq", np.nan, False), ("a4", np.nan, False),
    ],
)  # fmt: skip
def test_what_a_name_says(name: str, bits: float, inputs: bool) -> None:
    np.testing.assert_equal(format_bits(name), float(bits))
    assert quantizes_inputs(name) == inputs
