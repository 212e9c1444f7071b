"""One store of the reference model for all tests of sensitivities: three steps, two images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from taqstore.pipelines.models.load import LoadedModel, load_pipeline

from support.judged_store import make_judged_store


@pytest.fixture(scope="session")
def judged_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents, activations and a weight set; not to be written to."""
    return make_judged_store(tmp_path_factory.mktemp("judged") / "run.zarr")


@pytest.fixture
def store(judged_store: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(judged_store, tmp_path / "run.zarr"))


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    """The reference model."""
    return load_pipeline("reference")
