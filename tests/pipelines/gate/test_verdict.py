"""Verdicts of figures that are given: bounds, NaN, exact intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from taqstore.pipelines.gate.against import changes
from taqstore.pipelines.gate.record import as_float, floats
from taqstore.pipelines.gate.verdict import Bounds, Verdict
from taqstore.pipelines.judge.figures import Figures

from taqstore.errors import MisuseError

IMAGES, STEPS = 5, 4


def verdict(cosine: np.ndarray, **bounds: float) -> Verdict:
    rest = np.full((IMAGES, STEPS), 0.1)
    psnr = np.array([np.inf, 30, 31, 32, 33.0])
    figures = Figures(cosine, rest, rest, rest, psnr, np.full(IMAGES, np.nan))
    return Verdict("v", "", "trajectories/float", figures, Bounds(**bounds))  # type: ignore[arg-type]


def test_an_image_below_the_bound_at_one_step_is_bifurcated() -> None:
    cosine = np.full((IMAGES, STEPS), 0.99)
    assert verdict(cosine).passes
    cosine[3, 1:3] = 0.94, 0.9
    found = verdict(cosine)
    assert found.bifurcation.tolist() == [-1, -1, -1, 2, -1]
    assert (found.worst.place, found.worst.step, found.worst.cosine) == (3, 3, 0.9)
    assert found.failures == ["1 of 5 images bifurcate"]
    assert verdict(cosine, max_bifurcated=1).passes
    assert verdict(cosine, max_bifurcated=1, min_psnr=99).passes  # one image is the same: infinite
    low = verdict(np.full((IMAGES, STEPS), 0.9), max_bifurcated=9)
    assert low.failures == ["mean cosine 0.9 is below 0.95"]


def test_a_latent_that_is_no_number_fails_and_is_the_worst() -> None:
    cosine = np.full((IMAGES, STEPS), 0.99)
    cosine[1, 2:] = np.nan
    cosine[0, 0] = 0.1
    found = verdict(cosine, max_bifurcated=9, min_cosine=-1)
    assert not found.passes
    assert (found.worst.place, found.worst.step) == (1, 3)
    assert np.isnan(found.worst.cosine)
    assert np.isnan(found.intervals["cosine"].mean)
    assert found.intervals["latent_error"].mean == pytest.approx(0.1)


def test_numbers_of_a_record_come_back() -> None:
    values = np.array([[0.1, np.nan], [np.inf, -np.inf]])
    text = json.loads(json.dumps(floats(values)))
    assert text == [[0.1, None], ["inf", "-inf"]]
    back = np.array([[as_float(value) for value in row] for row in text])
    assert np.array_equal(back, values, equal_nan=True)


def test_variants_without_a_counterpart_are_misuse() -> None:
    def record(*names: str) -> dict:
        image = {"cosine": [0.9, 1.0], "error": [0.1, 0.2], "psnr": 30.0}
        variants = [{"name": name, "images": [image] * 3} for name in names]
        return {"model": {}, "schedule": {}, "images": [], "variants": variants}

    assert [c.before for c in changes(record("a", "b"), record("b", "c"))] == ["b"]
    assert [c.before for c in changes(record("a"), record("c"))] == ["c"]
    with pytest.raises(MisuseError, match="none of these variants"):
        changes(record("a", "b"), record("c"))
