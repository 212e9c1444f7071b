"""What the written pages point at is there: files, names, commands with their options."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import pytest

from support.docs_tables import command_of, root_context
from support.pages import PAGES, fenced, links, read_page
from support.rooms import ROOT

# Paths of files and folders, as prose names them: `taqstore/store/reader.py`.
_PATH = re.compile(r"`((?:taqstore|pipelines|tests|schemas|benchmarks|docs)/[\w/.-]*(?:\.\w+|/))`")
_READING = ("--local-ckpt", "--allocation", "--config", "--against", "--packed")


def imported_names(page: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a page's Python; name is empty for a module."""
    for block in fenced(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                yield from ((node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)


def command_lines(page: str) -> Iterator[list[str]]:
    """Words after `taqstore` of every command line shown in a page."""
    for block in fenced(page):
        block = block.replace("\\\n", " ")
        for line in re.findall(r"^(?:\$ )?taqstore (.*)$", block, re.M):
            yield shlex.split(line.partition(" ...")[0], comments=True)


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert [str(target) for target in links(page) if not target.exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_prose_names_are_there(page: str) -> None:
    named = set(_PATH.findall(read_page(page)))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("page", PAGES)
def test_names_imported_in_examples_are_there(page: str) -> None:
    for module, name in imported_names(page):
        assert find_spec(module) is not None, module
        assert not name or hasattr(import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_shown_are_commands(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in command_lines(page):
        if words[0].isupper():  # `taqstore COMMAND --help`
            continue
        for before, word in pairwise(words):  # a file that an option reads
            if word.endswith(".txt") or before in _READING:
                Path(word).touch()
        command, taken = command_of(words[0]), 1
        if isinstance(command, click.Group):
            command, taken = command_of(*words[:2]), 2
        try:
            command.make_context(words[0], words[taken:], parent=root_context())
        except click.ClickException as error:
            pytest.fail(f"taqstore {shlex.join(words)}: {error.format_message()}")


def test_commands_and_examples_are_found() -> None:
    assert len([words for page in PAGES for words in command_lines(page)]) > 20
    assert len([name for page in PAGES for name in imported_names(page)]) > 10


def test_the_readme_is_short() -> None:
    assert len(read_page("README.md").splitlines()) < 120
