"""MLX multiplies with OpenBLAS where there is one, and says so where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support.live_capture import needs_models
from support.rooms import ROOT

pytestmark = [
    needs_models,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX brings a fast one"),
]
needs_wheel = pytest.mark.skipif(
    find_spec("scipy_openblas32") is None, reason="scipy-openblas32 is not installed"
)
# Odd sizes; a float32 sum of 37 products is off by a few units in the last place.
ASK = """
import json, sys
import numpy as np
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.machine.blas import used_blas
mx = backend().mx
rng = np.random.default_rng(3)
a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((41, 37), (37, 29)))
found = np.asarray(mx.array(a) @ mx.array(b))
error = float(np.abs(found - a.astype(float) @ b.astype(float)).max())
maps = open("/proc/self/maps").read()
print(json.dumps({"name": used_blas().name, "remedy": used_blas().remedy, "error": error,
                  "memory": "memfd:openblas" in maps}))
"""


def ask(script: str = ASK, **environment: str) -> tuple[dict[str, Any], str]:
    """What a process of its own says of its BLAS, and its stderr."""
    known = {k: v for k, v in os.environ.items() if k not in ("TAQSTORE_BLAS", "LD_PRELOAD")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=known | {"PYTHONPATH": str(ROOT)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@needs_wheel
def test_the_wheel_takes_the_place_of_what_mlx_brings() -> None:
    found, said = ask()
    assert found["name"].startswith("OpenBLAS 0.3.")
    assert found["name"].endswith("of scipy-openblas32")
    assert (found["remedy"], found["memory"], said) == ("", True, "")
    assert found["error"] < 1e-5


def test_mlx_alone_can_be_asked_for_without_a_word() -> None:
    found, said = ask(TAQSTORE_BLAS="mlx")
    assert found["name"] == "the reference BLAS that it brings"
    assert "taqstore[models]" in found["remedy"]
    assert (found["memory"], said) == (False, "")
    assert found["error"] < 1e-5


def test_without_openblas_one_line_says_what_to_install() -> None:
    """Once, whatever is asked of the model. A machine may have the system's, and then is silent."""
    found, said = ask(TAQSTORE_BLAS="system")
    if not found["remedy"]:
        assert (found["name"].endswith("of the system"), said) == (True, "")
        return
    (line,) = said.splitlines()
    assert "OpenBLAS" in line
    assert "pip install 'taqstore[models]'" in line


@needs_wheel
@pytest.mark.parametrize("broken", ["missing", "failing"])
def test_a_broken_patchelf_leaves_the_model_running(tmp_path: Path, broken: str) -> None:
    """The next way is tried; an answer comes in any case."""
    if broken == "failing":
        program = tmp_path / "patchelf"
        program.write_text("#!/bin/sh\nexit 3\n")
        program.chmod(0o755)
    hide = f"import sysconfig\nsysconfig.get_path = lambda *_: {str(tmp_path)!r}\n"
    found, _ = ask(hide + ASK, PATH=str(tmp_path))
    assert "scipy-openblas32" not in found["name"]
    assert found["error"] < 1e-5


def test_an_unknown_choice_is_refused() -> None:
    script = "from taqstore.pipelines.machine.blas import load_blas\nload_blas()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TAQSTORE_BLAS": "whel"},
    )
    assert "MisuseError: TAQSTORE_BLAS 'whel' is not known; did you mean wheel?" in done.stderr


COUNT = """
from taqstore.pipelines.machine.blas import _threads, load_blas, share_products
import ctypes
load_blas()
get = ctypes.CDLL(None).scipy_openblas_get_num_threads
_, every = _threads()
found = []
for size in (1 << 20, 1 << 26):
    share_products(size)
    found.append(get())
print(every, *found)
"""


@needs_wheel
@pytest.mark.parametrize("told", [None, "2"])
def test_small_products_are_made_by_one_thread_unless_it_is_told(told: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment |= {} if told is None else {"OPENBLAS_NUM_THREADS": told}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment, cwd=ROOT, check=True, capture_output=True
    )
    every, small, large = map(int, done.stdout.split())
    assert (small, large) == (every if told else 1, every)
