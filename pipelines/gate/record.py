"""What a gate found as a document that can be kept, and compared with: `gate-record.schema.json`.

Floats are exact; NaN is null, infinities are the strings ``inf`` and ``-inf``, as in other JSON of
taqstore.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.files.schema import validate
from taqstore.metadata.provenance import library_versions
from taqstore.store.reader import Store
from taqstore.trajectory.bootstrap import DRAWS, LEVEL, Interval, bootstrap

from ..judge.judged import Judged
from ..models.backend import LIBRARIES
from .verdict import Bounds, Verdict

FORMAT, SCHEMA = "taqstore_gate_v1", "gate-record"
# Of each image: what of `Figures` there is by step, and what once.
BY_STEP = ("cosine", "error", "output_cosine", "output_error")
ONCE = ("psnr", "picture_psnr")


def describe(
    beside: Judged, store: Store, bounds: Bounds, *, files: Sequence[Path]
) -> dict[str, Any]:
    """What a record says before anything ran.

    Parameters
    ----------
    store
        As it was when the gate began.
    files
        What was read besides: prompts, configs.
    """
    sigmas, timesteps = beside.schedule.arrays()
    return {
        "format": FORMAT,
        "model": beside.run,
        "store": {
            "name": store.location.name,
            "uuid": store.root.uuid,
            "digest": store.digest,
        },
        "inputs": [_file(path) for path in files],
        "versions": library_versions(("taqstore", "numpy", *LIBRARIES)),
        "platform": platform.platform(),
        "schedule": {"sigmas": floats(sigmas), "timesteps": floats(timesteps)},
        "interval": {"level": LEVEL, "draws": DRAWS, "seed": 0},
        "bounds": asdict(bounds),
        "images": [
            {"image": image, "prompt": prompt, "seed": seed, "cfg_weight": beside.asked.cfg_weight}
            for image, prompt, seed in zip(beside.images, beside.prompts, beside.seeds, strict=True)
        ],
    }


def make_record(
    about: Mapping[str, Any], verdicts: Sequence[Verdict], beside: Judged
) -> dict[str, Any]:
    """The document of a gate, `about` being what `describe` gave."""
    document = {**about, "variants": [_variant(verdict, beside) for verdict in verdicts]}
    validate(SCHEMA, document)
    return document


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _variant(verdict: Verdict, beside: Judged) -> dict[str, Any]:
    worst, figures = verdict.worst, verdict.figures
    return {
        "name": verdict.name,
        "digest": verdict.digest,
        "trajectories": verdict.path,
        "passes": verdict.passes,
        "failures": verdict.failures,
        "bifurcated": verdict.bifurcated,
        "worst": {
            "prompt": beside.prompts[worst.place],
            "seed": beside.seeds[worst.place],
            "image": beside.images[worst.place],
            "step": worst.step,
            "cosine": number(worst.cosine),
        },
        "means": {name: _interval(found) for name, found in verdict.intervals.items()},
        "steps": {
            "latents": figures.steps.tolist(),
            **{name: _interval(bootstrap(getattr(figures, name))) for name in BY_STEP},
        },
        "images": [
            {
                **{name: floats(getattr(figures, name)[place]) for name in BY_STEP},
                **{name: number(float(getattr(figures, name)[place])) for name in ONCE},
                "bifurcation": int(step),
            }
            for place, step in enumerate(verdict.bifurcation)
        ],
    }


def _interval(found: Interval) -> dict[str, Any]:
    return {name: floats(end) for name, end in found._asdict().items()}


def floats(values: Any) -> Any:
    """Numbers of an array as JSON has them, nested as its axes are."""
    found = np.asarray(values).tolist()
    return [floats(one) for one in found] if isinstance(found, list) else number(found)


def number(value: float) -> float | str | None:
    """One number: NaN is null, an infinity a string."""
    if np.isfinite(value):
        return value
    return None if np.isnan(value) else "inf" if value > 0 else "-inf"


def as_float(value: float | str | None) -> float:
    """What `number` gave, a float again."""
    return float("nan") if value is None else float(value)
