"""Shared fixtures: where the reference data lies, when it is there; stores of tests in memory."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# A worker for each core: threads of OpenBLAS would only wait for each other. It looks once, when
# NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from support.cli_runner import taq  # noqa: F401 - a fixture for all
from support.openings import openings  # noqa: F401
from support.s3_server import bucket, closed_port, s3  # noqa: F401

# No test fetches a model; asking for one that is not there would wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tables are whole unless a test says how wide its terminal is.
os.environ.pop("COLUMNS", None)

# Workers of a cluster sample their own stacks a hundred times a second: nobody looks at that.
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")

# The same examples in every run; TAQSTORE_EXPLORE=1 looks for new ones.
settings.register_profile(
    "repeatable",
    derandomize=not os.environ.get("TAQSTORE_EXPLORE"),
    deadline=None,  # no test measures time: other workers have the cores too
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


MEMORY = Path("/dev/shm")
ROOM = 6 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Temporary folders in memory where there is room: every commit waits for a disk to flush.

    What a kill leaves is the same there; what a power cut leaves is tried by replaying writes.
    `--basetemp` or `PYTEST_DEBUG_TEMPROOT` names another place.
    """
    wanted = config.option.basetemp or os.environ.get("PYTEST_DEBUG_TEMPROOT")
    if wanted or not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        return
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def pytest_collection_finish() -> None:
    """Modules and thousands of tests stay: no search for garbage has to look through them.

    Searches are rarer than by default, where they take a twelfth of the time of small stores.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_report_header() -> str:
    """What the models of this run multiply with: it is most of how long they take."""
    from taqstore.pipelines.machine.blas import load_blas

    return f"MLX multiplies with {load_blas().name}"


@pytest.fixture(scope="module", autouse=True)
def same_environment() -> Iterator[None]:
    """What a module sets for processes that it starts is not set for the next: as clusters do."""
    before = dict(os.environ)
    yield
    os.environ.update(before)
    for added in set(os.environ) - set(before):
        del os.environ[added]


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with real outputs of the source scripts; the test skips where it is absent."""
    if not REFERENCE.is_dir():
        pytest.skip("no shared/reference beside the repository: conformance not checked")
    return REFERENCE


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a whole run that had to check conformance and did not.

    `TAQSTORE_REQUIRE_REFERENCE` is set by `.ci/run` where the reference data is present.
    """
    if not os.environ.get("TAQSTORE_REQUIRE_REFERENCE") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = reporter.stats.get("passed", []) if reporter else []
    ran = [report for report in passed if "reference" in report.keywords]
    if not ran and exitstatus == 0:
        reporter.write_line("ERROR: reference data is present, but no conformance test passed")
        session.exitstatus = 1
