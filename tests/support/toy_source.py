"""A source made up for tests: a JSON file of ranges, kept as statistics of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from taqstore.pipelines.sources.parts.plan import Options, Plan, PutWhole, Unit
from taqstore.pipelines.sources.parts.pooled import site_template

from taqstore.layout.template import Array

if TYPE_CHECKING:
    from taqstore.pipelines.sources.parts.place import Place

PREFIX, SITE = "pooled/toy", "mlp.fc2"
SIZES = {"step": 3, "layer": 2, "channel": 4}


def write_toy(path: Path) -> Path:
    values = np.arange(24.0).reshape(3, 2, 4)
    document = {"format": "toy", "min": (-values).tolist(), "max": (values + 1).tolist()}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def find(place: Place) -> Path | None:
    return place.path if place.format == "toy" else None


def plan(path: Path, options: Options) -> Plan:
    document = json.loads(path.read_text(encoding="utf-8"))
    values = {name: np.array(document[name], np.float32) for name in ("min", "max")}
    template = site_template(
        PREFIX,
        SITE,
        tuple(Array(name, ("step", "layer", "channel"), "<f4") for name in values),
        sizes=SIZES,
        coords={
            "step": (("step",), np.arange(3)),
            "sigma": (("step",), np.array([1, 0.5, 0.1], np.float32)),
            "layer": (("layer",), np.array(["mm0.img", "mm0.txt"], dtype=object)),
            "block": (("layer",), np.array(["mm0", "mm0"], dtype=object)),
            "stream": (("layer",), np.array(["img", "txt"], dtype=object)),
        },
        attrs={},
    )
    items = {template.path: tuple((step,) for step in range(3))}
    unit = Unit("toy", items, path.stat().st_size, (PutWhole(template.path, values),))
    return Plan("toy", (template,), (unit,), inputs=(path,))
