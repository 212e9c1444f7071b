"""What is made and not written: a page a command, a page a public module, the notebook.

Their lists are the table of commands and the table of public names in `docs/architecture.md`. They
are written below `PLACE`, which git ignores, before Sphinx looks for pages.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import GenericAlias
from typing import Any

from support.pages import read_page, read_table, ticked
from taqstore.cli import COMMANDS

PLACE = "docs/reference"
NOTEBOOK = "docs/notebook.py"
LONGEST = 100  # characters of a constant that is shown as it is
# Types in signatures that no page of ours documents: other libraries' and rooms' that may move.
ELSEWHERE = [
    ("py:class", r"(numpy|np|npt|xarray|xr|pandas|pd|zarr|collections|os|pathlib)\..+"),
    ("py:class", r"taqstore\..+\..+"),
    # Names of types that are imported for the type checker alone, or are other names of types.
    ("py:class", "Array|Figure|Floats|Groups|Number|Order|Path|PathLike|Results|Summary"),
    ("py:class", "Address|Command|Duplicates|Each|Openable|Shuffle|StorageOptions"),
    ("py:exc", "MisuseError|DocumentError"),  # both are TaqErrors
]
# Shown by their names: what they stand for takes ten lines.
ALIASES = {
    f"{package}{name}": f"numpy.typing.{name}"
    for package in ("", "npt.")
    for name in ("ArrayLike", "DTypeLike")
}


def write_pages(root: Path) -> None:
    """Write all of them anew."""
    shutil.rmtree(root / PLACE, ignore_errors=True)
    for name, text in (*command_pages(), *module_pages(), notebook_page(read_page(NOTEBOOK))):
        path = root / PLACE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def command_pages() -> Iterator[tuple[str, str]]:
    """Every command with its subcommands, and a list of them."""
    words = "Every command with every option, in the words of ``taqstore COMMAND --help``."
    yield "commands/index.rst", _contents("Every command", words, COMMANDS)
    for name, (module, _) in COMMANDS.items():
        where = f".. click:: {module}:command"
        yield f"commands/{name}.rst", f"{where}\n   :prog: taqstore {name}\n   :nested: full\n"


def module_pages() -> Iterator[tuple[str, str]]:
    """Every public module with its public names, and a list of them."""
    words = "The public names: a change of them is said in the changelog. Others may move."
    yield "api/index.rst", _contents("Every public name", words, public_names())
    for module, names in public_names().items():
        held = import_module(module)
        head = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :no-members:\n"
        yield f"api/{module}.rst", "\n".join((head, *(_entry(held, name) for name in names)))


def notebook_page(text: str) -> tuple[str, str]:
    """The notebook, jupytext's percent format, as Markdown: cells of words, cells of code."""
    _, *cells = re.split(r"^# %%", text, flags=re.M)
    return "notebook.myst", "\n".join(map(_cell, cells))


def _cell(text: str) -> str:
    kind, _, body = text.partition("\n")
    if "[markdown]" in kind:
        return re.sub(r"^# ?", "", body, flags=re.M)
    return f"```python\n{body.strip()}\n```\n"


@cache
def public_names() -> dict[str, list[str]]:
    """Public module -> its public names, as the page on the code lists them."""
    rows = read_table("docs/architecture.md", "public names")
    return {ticked(cell)[0]: ticked(names.partition("; rooms ")[0]) for cell, names in rows}


def _contents(title: str, words: str, pages: Mapping[str, object]) -> str:
    listed = "".join(f"   {page}\n" for page in pages)
    return f"{title}\n{'=' * len(title)}\n\n{words}\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}"


def _entry(held: Any, name: str) -> str:
    value, full = getattr(held, name), f"{held.__name__}.{name}"
    # What two modules offer is looked up in the one that has it.
    home = getattr(value, "__module__", held.__name__)
    once = "" if home == held.__name__ or home not in public_names() else "   :no-index:\n"
    if isinstance(value, GenericAlias):  # another name of a type
        return f".. py:data:: {full}\n   :value: {value!r}\n"
    if inspect.isclass(value):
        return f".. autoclass:: {full}\n   :members:\n{once}"
    if callable(value):
        return f".. autofunction:: {full}\n{once}"
    return f".. py:data:: {full}\n{_constant(value)}"


def _constant(value: object) -> str:
    """A short value as it is; of a table what its rows are called, with their words."""
    if len(repr(value)) <= LONGEST or not isinstance(value, Mapping):
        return f"   :value: {value!r}\n"
    rows = "".join(f"   ``{key}``\n      {_words(row)}\n\n" for key, row in value.items())
    return f"\n{rows}"


def _words(row: Any) -> str:
    found = getattr(row, "doc", None) or getattr(row, "description", row)
    return escaped(", ".join(found) if isinstance(found, tuple) else str(found))


def escaped(text: str) -> str:
    """Plain text for reStructuredText; names between single backticks stay names."""
    for mark in "\\*|_":
        text = text.replace(mark, f"\\{mark}")
    return text
