"""What a user gets is written by `whole_file` and `whole_folder`, and by nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the two functions hand out, and what is written inside it, is called that.
FRESH = "fresh"
ALLOWED = {
    "taqstore/files/staged.py": "the two functions themselves",
    "taqstore/plot/parts/written.py": "a drawing into what it is given, a fresh file or memory",
    "taqstore/arrays/staged.py": "copies of what was read, in a folder of temporary files",
    "taqstore/place/local_backend.py": "files of a store, which has its own commit rule",
    "taqstore/place/disk.py": "a note beside a store that says who holds its lock",
    "taqstore/upkeep/obstacles.py": "what is no file of a store, moved out of it",
    "taqstore/store/writer.py": "groups of a store, set aside under its own rule",
    "taqstore/serve/http/formats.py": "tables in memory, an answer over HTTP",
    "taqstore/serve/api/pictures.py": "drawings in memory, an answer over HTTP",
    "taqstore/serve/api/downloads.py": "a zip in a temporary folder, removed once it was sent",
    "taqstore/testing": "inputs of tests and benchmarks, made in a folder of theirs",
    "pipelines/machine/place.py": "files of a trial, in a folder that is removed",
    "pipelines/demo.py": "a folder of the demo's own, marked as such",
    "pipelines/models/reference": "makes the weights that the package ships; no command runs it",
}
METHODS = {"write_text", "write_bytes", "to_netcdf", "to_zarr", "to_parquet", "to_csv", "savefig"}
FUNCTIONS = {"savez", "savez_compressed", "save_safetensors", "write_safetensors", "copyfile",
             "copytree", "move"}  # fmt: skip
RENAMES = {"replace", "rename"}
_MODE = re.compile("[rbt]*[wax+][wax+rbt]*")


def writers(code: str) -> Iterator[int]:
    """Lines that write, or rename, something that is not called `fresh`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and _writes(node) and FRESH not in _names(node):
            yield node.lineno


def _writes(call: ast.Call) -> bool:
    function = call.func
    name = getattr(function, "attr", getattr(function, "id", ""))
    if name in METHODS | FUNCTIONS:
        return True
    if name == "open":
        modes = [a.value for a in _values(call) if isinstance(a, ast.Constant)]
        return any(isinstance(m, str) and _MODE.fullmatch(m) for m in modes)
    if name in RENAMES and isinstance(function, ast.Attribute):
        of_a_path = len(call.args) == 1 and not call.keywords and not _is_mapping(call.args[0])
        return of_a_path or (isinstance(function.value, ast.Name) and function.value.id == "os")
    return name == "save" and isinstance(function, ast.Attribute) and len(call.args) == 1


def _values(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]


def _is_mapping(node: ast.expr) -> bool:
    return isinstance(node, ast.Dict | ast.DictComp)


def _names(call: ast.Call) -> set[str]:
    return {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}


def product() -> Iterator[Path]:
    for folder in ("taqstore", "pipelines"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def allowed(place: str) -> bool:
    return any(place == known or place.startswith(f"{known}/") for known in ALLOWED)


def test_nothing_else_writes() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in product()
        if not allowed(path.relative_to(ROOT).as_posix())
        for line in writers(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("place", ALLOWED)
def test_what_is_allowed_is_needed(place: str) -> None:
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    assert any(True for path in files for _ in writers(path.read_text("utf-8")))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.write_text('x')", True),
        ("open(path, 'w')", True),
        ("path.open(mode='ab')", True),
        ("partial.replace(path)", True),
        ("os.replace(a, b)", True),
        ("image.save(path)", True),
        ("np.savez(path, a=a)", True),
        ("fresh.write_text('x')", False),
        ("name.replace('.', '_')", False),
        ("dataset.rename({'a': 'b'})", False),
        ("path.open('rb')", False),
        ("with_whole.open('r')", False),
    ],
)
def test_writers_are_recognised(code: str, found: bool) -> None:
    assert bool(list(writers(code))) is found
