"""Small runs whose stores merge: latents, one site's activations, residual streams with gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from support.builders import latents_template
from taqstore.layout.template import Array, Template
from taqstore.metadata.provenance import make_record
from taqstore.statistics.histogram import Layout
from taqstore.store.writer import create_store
from taqstore.testing import RunShape, raw_activations
from taqstore.testing.store import activations_templates, write_batch

SHAPE = RunShape(images=5, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
SITE = "activations/mlp.fc1"
GROUPS = (SITE, "blocks/img", "latents")
LAYOUT = Layout("float16", 2)
RUN = {"model": "small", "use_t5": True, "seed": 3}


def blocks_template(ids: list[int]) -> Template:
    """Residual streams with an item per (image, step) and outputs that few blocks keep."""
    sizes = {"image": len(ids), "step": 2, "boundary": 3, "row": 2, "token": 3, "channel": 4}
    dims = tuple(sizes)
    return Template(
        path="blocks/img",
        kind="blocks",
        sizes=sizes,
        arrays=(
            Array("x", dims, "float16", split="boundary"),
            Array("output", dims, "float16", split="boundary"),
            Array("output_kept", dims[:3], "bool"),
        ),
        coords={
            "image": (("image",), np.array(ids, np.int64)),
            "step": (("step",), np.array([0, 4])),
            "timestep": (("step",), np.float16([1000.0, 250.5])),
            "boundary": (("boundary",), np.arange(3)),
        },
        item_dims=("image", "step"),
        shard={"boundary": 1},
        attrs={"singleton_axis": 2},
    )


def write_latents(store: Any, ids: list[int], run: dict[str, Any]) -> None:
    template = replace(latents_template(ids), attrs={"run": run})
    group = store.group(template)
    for position, image in enumerate(ids):
        rng = np.random.default_rng([1, image])
        x = rng.normal(size=template.shape(template.array("x"))[1:]).astype(np.float32)
        group.put("x", (position, 0, 0, 0, 0), x[None])
        group.commit([(position,)])


def write_activations(store: Any, ids: list[int], run: dict[str, Any]) -> None:
    for template in activations_templates(replace(SHAPE, images=len(ids)), layout=LAYOUT):
        if template.path != SITE:
            continue
        labels = np.array(ids)
        coords = {
            **template.coords,
            "batch": (("batch",), labels),
            "image": (("batch", "slot"), labels[:, None]),
        }
        group = store.group(replace(template, coords=coords, attrs={"run": run}))
        for position, image in enumerate(ids):
            batch = [raw_activations(SHAPE, image=image, step=s) for s in SHAPE.stats_steps]
            write_batch(group, position, batch, LAYOUT)


def write_blocks(store: Any, ids: list[int]) -> None:
    template = blocks_template(ids)
    group = store.group(template)
    for position, image in enumerate(ids):
        for step in range(2):
            if (image, step) == (3, 1):
                continue  # never computed: an image may lack a step
            rng = np.random.default_rng([2, image, step])
            kept = np.array([False, image == 1, False])
            for boundary in range(3):
                start = (position, step, boundary, 0, 0, 0)
                for name in ("x", *(["output"] if kept[boundary] else [])):
                    values = rng.normal(size=(1, 1, 1, 2, 3, 4)).astype(np.float16)
                    group.put(name, start, values)
                group.put("output_kept", start[:3], kept[None, None, boundary : boundary + 1])
            group.commit([(position, step)])


def make(
    path: Path, ids: list[int], *, run: dict[str, Any] | None = None, blocks: bool = True
) -> Path:
    with create_store(path) as store:
        write_latents(store, ids, run or RUN)
        write_activations(store, ids, run or RUN)
        if blocks:
            write_blocks(store, ids)
        made = make_record(
            "collect", parameters={"images": ids}, inputs=[], groups=["latents"], counts={}
        )
        store.record(made)
    return path
