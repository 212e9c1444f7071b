"""`taqstore doctor` says what a machine has; what it says is compared with the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from taqstore.pipelines.doctor import model_checks
from taqstore.pipelines.machine.packages import package_checks, unmet
from taqstore.pipelines.machine.place import place_checks
from taqstore.pipelines.models.table import MODELS

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.rooms import ROOT

METADATA = """\
Metadata-Version: 2.4
Name: taqstore
Version: 9.9
Requires-Python: >=3.11
Requires-Dist: numpy>={numpy}
Requires-Dist: xarray
Provides-Extra: models
Requires-Dist: taqstore-of-another-world>=3; extra == "models"
"""


def checks_with(folder: Path, numpy: str) -> dict[str, dict[str, str]]:
    """What a process says whose installed taqstore asks for such a NumPy."""
    info = folder / "taqstore-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(numpy=numpy))
    script = (
        "import json\n"
        "from taqstore.pipelines.machine.packages import package_checks\n"
        "print(json.dumps({one.what: one.document for one in package_checks()}))\n"
    )
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def test_a_package_out_of_bounds_is_wrong_and_named(tmp_path: Path) -> None:
    import numpy as np

    found = checks_with(tmp_path, "99")["packages"]
    assert found["state"] == "wrong"
    assert found["found"] == f"out of bounds: numpy>=99 ({np.__version__})"
    assert "pip install" in found["remedy"]


def test_an_extra_that_is_not_installed_is_absent_and_not_wrong(tmp_path: Path) -> None:
    found = checks_with(tmp_path, "1")
    assert found["packages"]["state"] == "ok"
    assert found["extra models"]["state"] == "absent"
    assert "taqstore-of-another-world>=3 (not installed)" in found["extra models"]["found"]
    assert "'taqstore[models]'" in found["extra models"]["remedy"]
    assert found["extra files"]["state"] == "ok"  # it asks for nothing here


def test_bounds_are_those_of_the_installed_package() -> None:
    import numpy as np

    assert unmet([Requirement("numpy>=1"), Requirement("xarray")]) == []
    assert unmet([Requirement("numpy<1")]) == [f"numpy<1 ({np.__version__})"]
    assert {one.what for one in package_checks()} >= {"python", "taqstore"}


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "store.zarr").mkdir()
    found = {one.what: one for one in place_checks(tmp_path)}
    assert list(found) == ["disk", "flush", "locks"]
    assert found["locks"].state == "ok"
    assert [path.name for path in tmp_path.rglob("*")] == ["store.zarr"]


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that not even root may write in")
def test_a_place_that_cannot_be_written_says_so() -> None:
    found = {one.what: one for one in place_checks(Path("/proc"))}
    assert found["writing"].state == "absent"
    assert "/proc cannot be written" in found["writing"].found


@needs_models
def test_the_command_says_what_runs_models_and_what_does_not(taq: Runner, tmp_path: Path) -> None:
    done = taq("doctor", str(tmp_path), "--json")
    found = {one["what"]: one for one in json.loads(done.out)["checks"]}
    assert found["MLX"]["state"] == "ok"
    assert "a forward of reference takes " in found["speed"]["found"]
    assert found["model reference"]["found"] == "comes with taqstore"
    # No hub in tests: HF_HUB_OFFLINE is set.
    assert found["model sd3-medium"]["state"] == "absent"
    assert "--local-ckpt" in found["model sd3-medium"]["remedy"]
    assert done.code == int(any(one["state"] == "wrong" for one in found.values()))


@needs_models
def test_a_model_of_ones_own_has_its_weights_from_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row whose weights neither ship nor lie on the hub that DiffusionKit knows."""
    own = replace(MODELS["reference"], name="mine", hub="me/mine", checkpoint="")
    monkeypatch.setitem(MODELS, "mine", own)
    found = {one.what: one for one in model_checks()}["model mine"]
    assert (found.state, found.found) == ("ok", "weights are those of --local-ckpt FILE")


def test_misuse_is_told() -> None:
    words = [sys.executable, "-m", "taqstore", "doctor", "no-such-folder"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "no-such-folder" in done.stderr
