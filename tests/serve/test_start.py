"""The page is there at once: what takes long to import is fetched while it is looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.running import running
from taqstore.serve.http.later import Later
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
_HEAVY = ("numpy", "xarray", "pandas", "zarr", "dask", "matplotlib", "pyarrow")


def test_nothing_heavy_is_imported_before_it_answers(tmp_path: Path) -> None:
    store = make_store(tmp_path / "run.zarr", shape=SHAPE)
    code = f"""
import sys
import taqstore.cli.serve
from taqstore.serve.http import later, server
later.Later._make = lambda self, make: None
from taqstore.serve.app import application
from taqstore.serve.served.service import Service
application(Service([{str(store)!r}]))
print(*[name for name in {_HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_who_asks_before_it_is_made_waits_and_an_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "run.zarr", shape=SHAPE)
    with running(store) as served:
        assert served.get("/api/stores").status == 200

    def broken(self: Later, make: object) -> None:
        self._made.set_exception(ZeroDivisionError("a bug"))

    monkeypatch.setattr(Later, "_make", broken)
    with running(store) as served:
        answer = served.get("/api/stores")
        assert answer.status == 500
        assert served.get("/").status == 200
