"""What a message offers keeps what is there, before it offers to delete it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import taqstore

ROOT = Path(taqstore.__file__).parents[1]
# With these, a remedy says how to keep what is there, or that there is nothing to be kept.
KEEPS = ("another store", "another path", "--resume keeps", "no copy")


def _texts(path: Path) -> Iterator[str]:
    """String constants of a module but docstrings; f-strings without what is filled in."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in documented:
            yield text


def test_force_is_never_the_only_remedy() -> None:
    found = [
        (path.name, text)
        for room in ("taqstore", "pipelines")
        for path in sorted((ROOT / room).rglob("*.py"))
        for text in _texts(path)
        if "--force" in text and " " in text.strip() and "\n" not in text
    ]
    told = [(name, text) for name, text in found if name not in ("output.py", "long_command.py")]
    assert len(told) >= 4
    bad = [(n, t) for n, t in told if not any(k in t for k in KEEPS)]
    assert bad == [("leftovers.py", " as it was before --force")]  # tells what something is
