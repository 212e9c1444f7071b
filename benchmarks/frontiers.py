"""Allocations of `analyze frontier`, predicted and measured, beside one format for all linears.

By hand, not a row of the benchmarks: ``python -m benchmarks.frontiers STORE --budget 3.5 --budget
4.5 --json FILE``. STORE has sensitivities of linears, and is written to: the model as it is is
sampled for images that are judged. Those that sensitivities were measured on come first; errors of
the others, which nothing was chosen by, stand apart.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.judge.judged import Judged, judged, run_beside
from taqstore.pipelines.models.quantized.quantized_model import quantize

from taqstore.kinds.formats.allocations import FORMAT
from taqstore.query.analyze import analyze
from taqstore.store.reader import open_store

MIXED = Variant("mixed")


def errors(job: Judged, store: Any, linears: Mapping[str, str]) -> tuple[np.ndarray, int, int]:
    """Relative error of each image's final latent; weights and packed bytes that are rounded."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.json"
        file.write_text(json.dumps({"format": FORMAT, "linears": dict(linears)}), "utf-8")
        planner = Planner(job.model, store, Options(allocation=file))
        made = quantize(job.model, planner.plans(MIXED))
        count, size = planner.packed(MIXED)
    found = []
    for place in range(len(job.images)):
        plain = job.at(place).x[-1].astype(np.float64)
        other = run_beside(job, made, place).x[-1].astype(np.float64)
        found.append(np.linalg.norm(other - plain) / np.linalg.norm(plain))
    return np.array(found), count, size


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--budget", type=float, action="append", default=[])
    parser.add_argument("--format", action="append", default=[])
    parser.add_argument("--score", action="append", default=[], help="static, beside")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--measured", type=int, default=4, help="images of the sensitivities")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    store = open_store(asked.store)
    formats = asked.format or sorted(
        {path.rpartition("/")[2] for path in store if path.startswith("sensitivity/linear/mlx")}
    )
    rows: list[dict[str, Any]] = []
    with judged(asked.store, count=asked.images) as job:
        for basis, budget in [(b, x) for x in asked.budget for b in ("", *asked.score)]:
            options = {"score": basis} if basis else {}
            result = analyze("frontier", store, formats=formats, average=budget, budgets=[budget],
                             **options)["frontier"]  # fmt: skip
            row = result.sel(budget=budget)
            names = zip(result["target"].values, result["allocated"].values, strict=True)
            rows.append(_row(job, store, asked.measured, basis or "sensitivity", dict(names),
                             {k: float(row[k]) for k in _TOLD if k in row}))  # fmt: skip
        for name in formats:
            one = result.sel(format=name)
            told = dict(zip(_TOLD, (float(one[k]) for k in _UNIFORM), strict=True))
            linears = dict.fromkeys(map(str, result["target"].values), name)
            rows.append(_row(job, store, asked.measured, f"all {name}", linears, told))
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), "utf-8")


_TOLD = ("average_bits", "predicted_error", "first_order_error")
_UNIFORM = ("uniform_bits", "uniform_error", "uniform_first_order")


def _row(
    job: Judged,
    store: Any,
    measured: int,
    basis: str,
    linears: Mapping[Any, Any],
    told: Mapping[str, float],
) -> dict[str, Any]:
    found, count, size = errors(job, store, {str(n): str(f) for n, f in linears.items()})
    row = {
        "basis": basis, **told, "same_images": rms(found[:measured]),
        "held_out": rms(found[measured:]), "held_out_mean": float(found[measured:].mean()),
        "each": found.tolist(), "weights": count, "packed_bytes": size,
        "linears": _counts(linears.values()),
    }  # fmt: skip
    shown = {k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items() if k != "each"}
    print(*(f"{k}={v}" for k, v in shown.items()), flush=True)
    return row


def _counts(formats: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in formats:
        found[str(name)] = found.get(str(name), 0) + 1
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
