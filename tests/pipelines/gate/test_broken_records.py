"""Records that were cut or changed by hand, and bounds that are none: refused before anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.gate.against import check_comparable, matched, read_record
from taqstore.pipelines.gate.verdict import Bounds

from taqstore.errors import MisuseError, SourceError

IMAGES, STEPS = 2, 3


def record() -> dict[str, Any]:
    figures = ("cosine", "error", "output_cosine", "output_error")
    rows = {name: [0.5] * STEPS for name in figures}
    one = {"mean": 0.5, "lower": 0.5, "upper": 0.5}
    all_steps = {name: [0.5] * STEPS for name in one}
    variant = {
        "name": "rtn", "digest": "0" * 64, "trajectories": "trajectories/" + "0" * 16,
        "passes": True, "failures": [], "bifurcated": 0,
        "worst": {"prompt": "p", "seed": 1, "image": 1, "step": 1, "cosine": 0.5},
        "means": {"cosine": one},
        "steps": {"latents": [1, 2, 3], **dict.fromkeys(figures, all_steps)},
        "images": [{**rows, "psnr": 30.0, "picture_psnr": None, "bifurcation": -1}] * IMAGES,
    }  # fmt: skip
    run = {"model": "m", "weights": "0" * 64, "dtype": "float32", "negative_prompt": ""}
    return {
        "format": "taqstore_gate_v1",
        "model": run,
        "store": {"name": "s.zarr", "uuid": "u", "digest": "d"},
        "inputs": [],
        "versions": {},
        "platform": "p",
        "schedule": {"sigmas": [1, 0.6, 0.3, 0], "timesteps": [1000, 600, 300, 0]},
        "interval": {"level": 0.95, "draws": 10, "seed": 0},
        "bounds": {"min_cosine": 0.95, "max_bifurcated": 0, "min_psnr": None},
        "images": [{"image": i, "prompt": "p", "seed": i, "cfg_weight": 3.0}
                   for i in range(IMAGES)],
        "variants": [variant],
    }  # fmt: skip


def test_a_whole_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(record()))
    assert read_record(tmp_path / "r.json") == record()


@pytest.mark.parametrize(
    "cut",
    [
        lambda variant: variant["images"].pop(),
        lambda variant: variant["images"].clear(),
        lambda variant: variant["images"][0]["cosine"].pop(),
        lambda variant: variant["images"][1]["error"].clear(),
        lambda variant: [image["cosine"].append(1) for image in variant["images"]],
    ],
)
def test_a_record_of_fewer_figures_is_refused(cut: Callable[[Any], Any], tmp_path: Path) -> None:
    broken = json.loads(json.dumps(record()))
    cut(broken["variants"][0])
    (tmp_path / "r.json").write_text(json.dumps(broken))
    with pytest.raises(SourceError, match=r"no whole record of a gate: variant 'rtn', 2 images"):
        read_record(tmp_path / "r.json")


@pytest.mark.parametrize("end", [0, 1, 100, -2])
def test_a_record_that_was_cut_is_none(end: int, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(record())[:end])
    with pytest.raises(SourceError, match="no record of a gate"):
        read_record(tmp_path / "r.json")


def test_what_differs_is_named_also_where_one_lacks_it() -> None:
    before = deepcopy(record())
    before["model"]["shift"] = 3.0
    for now, then in ((record(), before), (before, record())):
        with pytest.raises(MisuseError, match="they differ in shift"):
            check_comparable(now, then)


def test_names_are_looked_for_before_anything_runs() -> None:
    assert matched(["mlx"], record()) == {"mlx": "rtn"}
    assert matched(["rtn", "mlx"], record()) == {"rtn": "rtn"}
    with pytest.raises(MisuseError, match="none of these variants"):
        matched(["mlx", "clipped"], record())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bound", ["min_cosine", "min_psnr"])
def test_bounds_are_finite(bound: str, value: float) -> None:
    with pytest.raises(MisuseError, match=f"--{bound.replace('_', '-')} is no finite number"):
        Bounds(**{bound: value})  # type: ignore[arg-type]
