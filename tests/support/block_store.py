"""A store of residual streams with awkward sizes and holes, and what naive indexing finds in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from taqstore.kinds.templates import blocks_template, pooled_conditioning_template
from taqstore.layout.template import Template
from taqstore.store.writer import create_store

IMAGES = (4, 1, 9)
STEPS = (0, 3, 5, 11)
SIGMAS = np.array([1.0, 0.81, 0.4, 0.125], np.float32)
TIMESTEPS = (SIGMAS * 1000).astype(np.float16)
SHAPES = {"img": (2, 6, 5), "txt": (2, 3, 5), "uni": (2, 9, 5), "img.quantized": (2, 6, 5)}
# mm1 is the last multimodal block: it puts out no text.
BOUNDARIES = {"img": (0, 1, 2), "txt": (0, 1), "uni": (0, 1), "img.quantized": (0, 1)}
# (image, step) that were not reached: what is missing in one stream is missing.
HOLES = {"img": {(9, 11)}, "txt": {(9, 11), (1, 5)}, "uni": set(), "img.quantized": {(4, 0)}}


def value(stream: str, image: int, step: int, boundary: int) -> np.ndarray:
    rng = np.random.default_rng([len(stream), image, step, boundary])
    return rng.normal(size=SHAPES[stream]).astype(np.float16)


def pooled(image: int) -> np.ndarray:
    return np.random.default_rng([5, image]).normal(size=(2, 7)).astype(np.float16)


def complete(*streams: str) -> list[tuple[int, int]]:
    """(image, step) complete in all streams, by image, then step."""
    holes = set().union(*(HOLES[stream] for stream in streams))
    return [(i, s) for i in sorted(IMAGES) for s in STEPS if (i, s) not in holes]


def stream_template(stream: str, images: tuple[int, ...]) -> Template:
    return blocks_template(
        stream, images=images, steps=STEPS, sigmas=SIGMAS, timesteps=TIMESTEPS,
        boundaries=BOUNDARIES[stream], shape=SHAPES[stream], attrs={"singleton_axis": 2},
    )  # fmt: skip


def write_blocks(path: Path) -> Path:
    """Streams list their images in different orders, as runs that grew do."""
    with create_store(path) as writer:
        for number, stream in enumerate(SHAPES):
            images = IMAGES[number % 3 :] + IMAGES[: number % 3]
            group = writer.group(stream_template(stream, images))
            for i, image in enumerate(images):
                for s, step in enumerate(STEPS):
                    if (image, step) in HOLES[stream]:
                        continue
                    values = [value(stream, image, step, b) for b in BOUNDARIES[stream]]
                    group.put("x", (i, s, 0, 0, 0, 0), np.stack(values)[None, None])
                    group.commit([(i, s)])
        template = pooled_conditioning_template(
            images=IMAGES, shape=(2, 7), dtype="float16", attrs={}
        )
        group = writer.group(template)
        for i, image in enumerate(IMAGES):
            group.put("pooled_conditioning", (i, 0, 0), pooled(image)[None])
            group.commit([(i,)])
    return path
