"""Fixtures of tests of views: a service over stores, asked in this process."""

from __future__ import annotations

import pytest

from support.asked import client, two_runs
from support.cli_runner import taq
from support.explored_stores import Explored
from taqstore.serve.served.service import Service

__all__ = ["asked", "client", "taq", "two_runs"]


@pytest.fixture(scope="session")
def asked(explored: Explored) -> Service:
    """The stores `run.zarr` and `other.zarr`."""
    return Service([str(explored.run), str(explored.other)])
