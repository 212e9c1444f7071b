"""Who imports whom, read from the source: modules, and the folders (rooms) that hold them.

`pipelines/` is imported as `taqstore.pipelines` and named so here. Imports inside functions and
under TYPE_CHECKING count: whoever reads the file must know the other one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {"taqstore": ROOT / "taqstore", "taqstore.pipelines": ROOT / "pipelines"}


@dataclass(frozen=True)
class Module:
    """One file of the product.

    Parameters
    ----------
    name
        Its dotted name; that of the package for an `__init__.py`.
    path
        Where it lies.
    """

    name: str
    path: Path

    @property
    def is_face(self) -> bool:
        """Whether it is a package's `__init__.py`."""
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """Dotted name of its folder."""
        return self.name if self.is_face else self.name.rpartition(".")[0]

    def nodes(self) -> list[ast.AST]:
        """Every node of its syntax tree."""
        return _nodes(self.path)


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def modules() -> dict[str, Module]:
    """Every module of taqstore and of the pipelines by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts).removesuffix(".__init__")
            if package == "taqstore" and name == "taqstore.pipelines":
                continue  # only gives the other folder its name
            found[name] = Module(name, path)
    return found


def imports(module: Module) -> Iterator[tuple[str, str | None]]:
    """What a file imports: (module, name or None) for every import anywhere in it."""
    for node in module.nodes():
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                package = module.room.split(".")
                base = ".".join(package[: len(package) - node.level + 1])
                source = f"{base}.{source}" if source else base
            yield from ((source, alias.name) for alias in node.names)


def _is_lazy(module: Module) -> bool:
    called = (n.func for n in module.nodes() if isinstance(n, ast.Call))
    return module.is_face and any(getattr(f, "id", "") == "lazy_face" for f in called)


def room_imports() -> dict[str, dict[str, set[str]]]:
    """Room -> room it imports -> files that do so.

    A lazy face names what lies below it without importing it, and `__main__` only starts the
    command line: neither counts.
    """
    known = modules()
    found: dict[str, dict[str, set[str]]] = {m.room: {} for m in known.values()}
    for module in known.values():
        if _is_lazy(module) or module.path.name == "__main__.py":
            continue
        for source, name in imports(module):
            target = known.get(f"{source}.{name}") or known.get(source)
            if target is not None and target.room != module.room:
                users = found[module.room].setdefault(target.room, set())
                users.add(str(module.path.relative_to(ROOT)))
    return found
