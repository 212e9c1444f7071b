"""A user's `mypy --strict` sees the types of the public names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.rooms import ROOT

USER = """\
import taqstore
from taqstore.analysis import scales

store = taqstore.open_store("x")
reveal_type(store)
reveal_type(scales(store["activations/mlp.fc2"], bits=4))
reveal_type(taqstore.analysis.shifts)
taqstore.open_store("x", chunks="some")
"""


def test_a_users_strict_check_knows_the_types(tmp_path: Path) -> None:
    """Strict as the project's own check, whose cache it shares: seconds after `make types`."""
    script = tmp_path / "user.py"
    script.write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--show-error-codes", str(script)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": ""},
        capture_output=True,
        text=True,
    )
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == 3, done.stdout + done.stderr
    assert revealed[0] == "taqstore.store.reader.Store"
    assert revealed[1] == "xarray.core.dataset.Dataset"
    plain = revealed[2].replace("builtins.", "")  # older mypy says where float is from
    assert plain.startswith("def (dataset: xarray.core.dataset.Dataset, *, momentum: float")
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, errors  # the last line of the script is wrong
    assert "[arg-type]" in errors[0]


def test_types_are_shipped() -> None:
    assert (ROOT / "taqstore" / "py.typed").is_file()
