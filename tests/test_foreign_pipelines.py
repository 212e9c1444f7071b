"""A folder with a package `pipelines` of its own never stands in for ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.rooms import ROOT
from taqstore.testing import RunShape, make_latents

SHAPE = RunShape(images=2, steps=2)
PYTHON = [sys.executable]
INGEST = ["ingest", "run", "store.zarr", "--only", "latents"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a user works: a run of the old scripts, and packages that must not be imported."""
    make_latents(tmp_path / "run", shape=SHAPE)
    for name in ("pipelines", "pipelines/sources", "schemas"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text(f"raise RuntimeError('{name} of the user')\n")
    (tmp_path / "pipelines" / "ingest.py").write_text("raise RuntimeError('of the user')\n")
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command there, with that folder before everything else that Python searches."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((".", str(ROOT)))}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_the_users_package_would_be_found(folder: Path) -> None:
    done = run(folder, *PYTHON, "-c", "import pipelines")
    assert "pipelines of the user" in done.stderr


def test_python_m_ingests(folder: Path) -> None:
    done = run(folder, *PYTHON, "-m", "taqstore", *INGEST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["latents", "2"]


def test_the_console_script_ingests(folder: Path) -> None:
    script = Path(sys.executable).with_name("taqstore")
    if not script.exists():
        pytest.skip("taqstore is not installed beside this Python")
    done = run(folder, str(script), *INGEST)
    assert done.returncode == 0, done.stderr
    assert (folder / "store.zarr" / "latents").is_dir()


def test_the_library_finds_its_own(folder: Path) -> None:
    code = (
        "import taqstore\nfrom taqstore.pipelines import ingest\n"
        "print(taqstore.pipelines.ingest.__file__)"
    )
    done = run(folder, *PYTHON, "-c", code)
    assert done.returncode == 0, done.stderr
    found = Path(done.stdout.strip())
    assert found == ROOT / "pipelines" / "ingest.py"
