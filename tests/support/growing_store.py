"""A store whose batches are written some at a time."""

from __future__ import annotations

from pathlib import Path

from taqstore.statistics.histogram import Layout
from taqstore.store.writer import create_store
from taqstore.testing import RunShape, raw_activations
from taqstore.testing.store import activations_templates, write_batch

LAYOUT = Layout("float16", 4)


def write_images(path: Path, shape: RunShape, images: range) -> None:
    """Add the batches of some images, as one process that goes on where others stopped."""
    with create_store(path) as store:
        writers = [store.group(one) for one in activations_templates(shape, layout=LAYOUT)]
        for image in images:
            batch = [raw_activations(shape, seed=0, image=image, step=s) for s in shape.stats_steps]
            for writer in writers:
                write_batch(writer, image, batch, LAYOUT)
