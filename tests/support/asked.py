"""The service asked in this process, over stores that have what every analysis needs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from support.sensitivity_store import write_sensitivities
from support.weight_store import write_weights
from taqstore.serve.app import application
from taqstore.serve.served.service import Service
from taqstore.testing import RunShape, make_second_moments, make_store

HERE = "http://127.0.0.1"
# Blocks and channels of `write_weights`, but those of mlp.fc2.
SHAPE = RunShape(
    images=4, steps=8, blocks=2, hidden=6, image_tokens=24, text_tokens=5, stats_stride=2
)


def asking(*addresses: Path | str) -> TestClient:
    """A client of a service over stores."""
    return TestClient(application(Service([str(one) for one in addresses])), base_url=HERE)


def words_of(line: str) -> list[str]:
    """What a shown line hands to the command."""
    program, *words = shlex.split(line)
    assert program == "taqstore"
    return words


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stores that every analysis can be asked of; nobody writes to them."""
    folder = tmp_path_factory.mktemp("two runs")  # a shell has to be told of the space
    made = folder / "run.zarr", folder / "other.zarr"
    for seed, path in enumerate(made):
        make_store(path, shape=SHAPE, seed=seed)
        make_second_moments(path, shape=SHAPE, seed=seed)
    write_weights(made[0])
    for unit in ("linear", "step"):
        write_sensitivities(made[0], unit=unit, formats=("rtn-w4",) * (unit == "linear") or
                            ("a4-static",), images=(0, 1))  # fmt: skip
    return made


@pytest.fixture(scope="session")
def client(two_runs: tuple[Path, Path]) -> TestClient:
    """A client of a service over both."""
    return asking(*two_runs)
