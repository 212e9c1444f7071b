"""The folders that pages and examples of help texts run in, each made once a session.

Workers of pytest-xdist share them: the first that asks makes one under a lock, all copy it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.collect.second_moments import SecondMoments
from taqstore.pipelines.demo import TOURS
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.gptq.gptq import gptq
from taqstore.pipelines.models.reference import digit_prompts

from taqstore.testing import make_phase1

IMAGES, STEPS = 4, 4
STORE = "store.zarr"


def _empty(folder: Path) -> None:
    """Nothing."""
    folder.mkdir()


def _ingest(folder: Path) -> None:
    """`run/` of the old scripts, and a Phase 1 file in it."""
    folder.mkdir()
    TOURS["ingest"].prepare(folder)
    make_phase1(folder / "run" / "DiT_cali_data.npz")


def _prompts(folder: Path) -> None:
    """`prompts.txt`."""
    folder.mkdir()
    text = "\n".join(digit_prompts(IMAGES, seed=0)) + "\n"
    (folder / "prompts.txt").write_text(text, encoding="utf-8")


def _latents(folder: Path) -> None:
    """The same, and `store.zarr` with latents."""
    _prompts(folder)
    request = Request("reference", folder / "prompts.txt", IMAGES, steps=STEPS)
    generate(folder / STORE, request)


def _statistics(folder: Path) -> None:
    """The same with blocks, activations of all sites and their second moments."""
    _latents(folder)
    cache(folder / STORE, stride=2)
    moments = SecondMoments(None)
    collect(folder / STORE, stride=1, per_channel=["mlp.fc2"], second_moments=moments)


def _live(folder: Path) -> None:
    """The same with the weight set `gptq`."""
    _statistics(folder)
    gptq(folder / STORE)


FOLDERS = {
    "empty": _empty, "ingest": _ingest, "prompts": _prompts,
    "latents": _latents, "statistics": _statistics, "live": _live,
}  # fmt: skip
"""What `runs on: FOLDER` may name."""


class Folders:
    """Hands out copies of the folders.

    Parameters
    ----------
    shared
        Where they are made, the same for all workers.
    """

    def __init__(self, shared: Path) -> None:
        self._shared = shared

    def copy(self, name: str, to: Path) -> Path:
        """A folder of one's own at `to`."""
        made = self._shared / name
        with FileLock(f"{made}.lock"):
            if not made.exists():
                fresh = made.with_suffix(f".{os.getpid()}")
                FOLDERS[name](fresh)
                fresh.rename(made)
        shutil.copytree(made, to)
        return to


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Copies of the folders that pages run in."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own
    (shared / "executed").mkdir(exist_ok=True)
    return Folders(shared / "executed")
