"""Package faces: light to import, complete, and seen by type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOMS = ("analysis", "export", "kinds", "quantization", "query", "run", "statistics", "upkeep")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_faces_import_nothing_heavy() -> None:
    rooms = ", ".join(f"taqstore.{room}" for room in ROOMS)
    heavy = "{'numpy', 'xarray', 'dask', 'pandas', 'zarr', 'click'}"
    assert run(f"import sys, {rooms}; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize(
    "first", ["taqstore.analysis.scales", "taqstore.query.analyze", "taqstore.analysis.table"]
)
def test_a_name_means_the_function_whatever_was_imported_before(first: str) -> None:
    code = (
        f"import {first}, taqstore.analysis as a, taqstore.query as q; "
        "print(callable(a.scales), callable(q.analyze), a.scales.__module__)"
    )
    assert run(code) == "True True taqstore.analysis.scales"


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_there_and_listed(room: str) -> None:
    face = import_module(f"taqstore.{room}")
    names = set(face.__all__)
    assert names
    assert {name for name in dir(face) if not name.startswith("__")} == names
    for name in names:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = face.nothing


@pytest.mark.parametrize("room", ROOMS)
def test_type_checkers_see_the_same_names(room: str) -> None:
    face = import_module(f"taqstore.{room}")
    body = ast.parse(Path(str(face.__file__)).read_text(encoding="utf-8")).body
    (typed,) = (node for node in body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in typed.body
            if isinstance(node, ast.ImportFrom) for alias in node.names}  # fmt: skip
    for name, module in seen.items():
        assert getattr(face, str(name)) is getattr(import_module(str(module)), str(name))
    plain = {"ANALYSES", "RULES"} if room == "analysis" else set()
    assert set(seen) | plain == set(face.__all__)
