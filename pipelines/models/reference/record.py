"""What is known of the trained weights, as `record.json` keeps it beside them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .accuracy import Evaluation
from .card import render
from .train import WEIGHTS, Run

RECORD = "record.json"
CARD = "README.md"
_POINT = 100
_LIBRARIES = ("mlx", "diffusionkit", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Point:
    """One point of the loss curve: the mean over the steps since the last point."""

    step: int
    loss: float


def loss_curve(losses: Sequence[float]) -> list[Point]:
    """Means over every 100 steps."""
    starts = range(0, len(losses), _POINT)
    parts = [losses[start : start + _POINT] for start in starts]
    return [
        Point(start + len(part), round(sum(part) / len(part), 4))
        for start, part in zip(starts, parts, strict=True)
    ]


def publish(run: Run, folder: Path, evaluation: Evaluation, *, into: Path) -> None:
    """Put trained weights, their record and their card into a folder.

    Parameters
    ----------
    run
        A finished run, whose weights are in `folder`.
    into
        Where `reference.safetensors`, `record.json` and `README.md` go.
    """
    record = make_record(run, folder / WEIGHTS, evaluation)
    shutil.copyfile(folder / WEIGHTS, into / WEIGHTS)
    (into / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (into / CARD).write_text(render(record), encoding="utf-8")


def make_record(run: Run, weights: Path, evaluation: Evaluation) -> dict[str, Any]:
    """The record of a run: recipe, loss curve, how long, with what, and the evaluation."""
    return {
        "recipe": asdict(run.recipe),
        "minutes": round(run.seconds / 60, 1),
        "curve": [asdict(point) for point in loss_curve(run.losses)],
        "evaluation": asdict(evaluation),
        "weights": {
            "file": WEIGHTS,
            "bytes": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "libraries": {name: version(name) for name in _LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }
