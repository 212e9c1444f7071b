"""Stores that a server is tried on: all groups that a run may have, and names that mean harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from support.builders import write_latents
from support.report_page import HOSTILE, hostile_store
from support.sensitivity_store import write_sensitivities
from support.served import Served, serving
from support.weight_store import write_weights
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(
    images=4, steps=8, blocks=3, hidden=8, image_tokens=24, text_tokens=5, stats_stride=2
)


@dataclass(frozen=True)
class Explored:
    """Where the stores lie. They are shared: nobody writes to them."""

    folder: Path

    @property
    def run(self) -> Path:
        """Activations of three blocks, four steps and four batches, weights, sensitivities."""
        return self.folder / "run.zarr"

    @property
    def other(self) -> Path:
        """The same layers of another seed."""
        return self.folder / "other.zarr"

    @property
    def hostile(self) -> Path:
        """Prompts and attributes that are markup, in a folder whose name is."""
        return self.folder / "<img src=x onerror=alert(1)> & \u202eb.zarr"

    @property
    def all(self) -> tuple[Path, ...]:
        """Every store."""
        return (self.run, self.other, self.hostile)


def _make(folder: Path) -> None:
    made = Explored(folder)
    make_store(made.run, shape=SHAPE)
    write_latents(made.run, [0, 1, 2, 3])
    write_weights(made.run)
    write_sensitivities(made.run, unit="linear", formats=("rtn-w4",), images=(0, 1))
    make_store(made.other, shape=SHAPE, seed=1)
    hostile_store(made.hostile)


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    """The stores, made once for all workers of a session."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "explored"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            fresh = folder.with_suffix(f".{os.getpid()}")
            fresh.mkdir()
            _make(fresh)
            fresh.rename(folder)
    return Explored(folder)


@pytest.fixture(scope="session")
def service(explored: Explored) -> Iterator[Served]:
    """A server over all of them, for tests that leave it as it is."""
    with serving(*explored.all) as served:
        yield served


__all__ = ["HOSTILE", "SHAPE", "Explored", "explored", "service"]
