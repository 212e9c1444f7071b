"""The site holds every page, every command with its options, and every public name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from support.docs_tables import command_of, every_command, root_context
from support.pages import PAGES, read_page
from support.rooms import ROOT
from taqstore.cli import COMMANDS

HOME = "docs/index.rst"
CARD = "pipelines/models/reference/README.md"
MADE = tuple(f"docs/reference/{name}" for name in ("commands/index", "api/index", "notebook"))


@pytest.fixture
def made_pages(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import made_pages

    return made_pages


@pytest.fixture
def help_pages(made_pages: Any) -> Any:
    pytest.importorskip("sphinx")
    import help_pages

    return help_pages


def toctree(text: str) -> list[str]:
    """Pages in the toctrees of a page; some stand there under another title."""
    blocks = re.findall(r"^\.\. toctree::\n((?:   .*\n|\n)+)", text, re.M)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    entries = [line for line in lines if line and not line.startswith(":")]
    return [entry.rpartition("<")[2].rstrip(">").lstrip("/") for entry in entries]


def test_the_toctree_holds_every_page_once() -> None:
    listed = toctree(read_page(HOME))
    pages = [page.removesuffix(".md") for page in (*PAGES, CARD)]
    assert sorted(listed) == sorted([*pages, *MADE])


def test_what_home_points_at_is_in_the_toctree() -> None:
    text = read_page(HOME)
    pointed = [name.rpartition("<")[2].rstrip(">") for name in re.findall(r":doc:`([^`]+)`", text)]
    assert pointed
    assert {name.lstrip("/") for name in pointed} <= set(toctree(text))


def test_every_command_has_a_page(made_pages: Any) -> None:
    pages = dict(made_pages.command_pages())
    assert toctree(pages.pop("commands/index.rst")) == list(COMMANDS)
    assert list(pages) == [f"commands/{name}.rst" for name in COMMANDS]
    for name, text in pages.items():
        (where,) = re.findall(r"^\.\. click:: (\S+):command$", text, re.M)
        assert where == COMMANDS[name.removeprefix("commands/").removesuffix(".rst")][0]


def test_every_public_name_has_a_place(made_pages: Any) -> None:
    pages, names = dict(made_pages.module_pages()), made_pages.public_names()
    assert toctree(pages.pop("api/index.rst")) == list(names)
    entry = re.compile(r"^\.\. (?:autoclass|autofunction|py:data):: (\S+)$", re.M)
    for module, listed in names.items():
        shown = entry.findall(pages[f"api/{module}.rst"])
        assert sorted(shown) == sorted(f"{module}.{name}" for name in listed)


def test_the_pages_are_written_anew(made_pages: Any, tmp_path: Path) -> None:
    stale = tmp_path / made_pages.PLACE / "commands" / "gone.rst"
    stale.parent.mkdir(parents=True)
    stale.touch()
    made_pages.write_pages(tmp_path)
    assert not stale.exists()
    assert len(list(tmp_path.rglob("*.rst"))) > len(COMMANDS)


def test_the_notebook_is_words_and_code(made_pages: Any) -> None:
    text = "# ---\n# x: 1\n# ---\n\n# %% [markdown]\n# # A\n#\n# b\n\n# %%\nc = 1  # d\n"
    name, made = made_pages.notebook_page(text)
    assert (name, made) == ("notebook.myst", "# A\n\nb\n\n\n```python\nc = 1  # d\n```\n")


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_option_is_shown_as_help_shows_it(help_pages: Any, words: tuple[str, ...]) -> None:
    """Ranges and defaults included, which sphinx-click leaves out."""
    command, lines = command_of(*words), list[str]()
    context = click.Context(command, info_name=words[-1], parent=root_context())
    help_pages.options(None, context, lines)
    shown = re.sub(r"\s", "", "".join(lines).replace("\\", ""))
    helped = re.sub(r"\s", "", command.get_help(context)).replace("\\", "")
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    assert len([line for line in lines if line.startswith(".. option::")]) == len(options)
    for option in options:
        record = option.get_help_record(context)
        assert record is not None
        flags, said = (re.sub(r"\s", "", text).replace("\\", "") for text in record)
        assert f"..option::{flags}{said}" in shown
        assert f"{flags}{said}" in helped


def test_help_becomes_prose_and_code(help_pages: Any) -> None:
    lines = ["Of mm0.* and a_b.", "", "| Examples:", "|   taqstore info run.zarr"]
    help_pages.described(None, None, lines)
    expected = [r"Of mm0.\* and a\_b.", "", "Examples:", "", ".. code-block:: text", ""]
    assert lines == [*expected, "     taqstore info run.zarr", ""]


def test_a_property_is_no_type(help_pages: Any) -> None:
    lines = ["Identity: what it is."]
    help_pages.docstring(None, "property", "", None, None, lines)
    assert lines == ["..", "", "Identity: what it is."]


def test_examples_are_no_names_of_errors(help_pages: Any) -> None:
    lines = ["Raises", "------", "TaqError", "", ">>> f(1)", "2"]
    help_pages.docstring(None, "function", "", None, None, lines)
    assert lines == ["Raises", "------", "TaqError", "", "Examples", "--------", ">>> f(1)", "2"]
    again = list(lines)
    help_pages.docstring(None, "function", "", None, None, again)
    assert again == lines


def test_signatures_are_short(help_pages: Any) -> None:
    given = "(a: TypeAliasForwardRef('numpy.typing.ArrayLike') = None, b: int = <factory>)"
    array = "~numpy.ndarray[tuple[~typing.Any, ...], ~numpy.dtype[~numpy.int64]]"
    found = help_pages.plain_signature(None, "function", "f", None, None, given, array)
    shown = "(a: numpy.typing.ArrayLike = None, b: int = ...)"
    assert found == (shown, "~numpy.typing.NDArray[~numpy.int64]")
    assert help_pages.plain_signature(None, "class", "C", None, None, None, None) == (None, None)
