"""How help texts and docstrings become pages.

sphinx-click takes help for reStructuredText and leaves ranges out. Here an option says what click
prints of it, and lines that stand as they are (after a ``\\b``) are code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import click
from made_pages import escaped
from sphinx.application import Sphinx

_OBJECT = re.compile(r"(= ?)<[^<>]+>")
_ALIAS = re.compile(r"TypeAliasForwardRef\('([^']+)'\)")
_KEPT = "| "  # what sphinx-click puts before lines after a \b


def described(_: Sphinx, __: click.Context, lines: list[str]) -> None:
    """Escape prose, and make code of lines that stand as they are."""
    runs = groupby(lines, lambda line: line.startswith(_KEPT))
    lines[:] = [line for kept, run in runs for line in (_code(run) if kept else _prose(run))]


def options(_: Sphinx, ctx: click.Context, lines: list[str]) -> None:
    """Say of every option what click prints, with ranges and defaults."""
    lines[:] = [line for parameter in ctx.command.params for line in _option(parameter, ctx)]


def no_arguments(_: Sphinx, __: click.Context, lines: list[str]) -> None:
    """Leave out the list of arguments: it says no more than the usage does."""
    lines.clear()


def _prose(run: Iterable[str]) -> Iterator[str]:
    yield from map(escaped, run)


def _code(run: Iterable[str]) -> Iterator[str]:
    lines = [line.removeprefix(_KEPT) for line in run]
    if lines[0].endswith(":"):  # `Examples:`
        yield from (lines.pop(0), "")
    yield from (".. code-block:: text", "", *(f"   {line}" for line in lines), "")


def _option(parameter: click.Parameter, ctx: click.Context) -> Iterator[str]:
    record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
    if record is not None:
        yield from (f".. option:: {record[0]}", "", f"    {escaped(record[1])}", "")


def property_words(
    _: Sphinx, what: str, __: str, ___: object, ____: object, lines: list[str]
) -> None:
    """Keep napoleon from taking what stands before a colon for the type of a property."""
    if what in ("property", "attribute"):
        lines[:0] = ["..", ""]  # a comment


def plain_signature(*given: Any) -> tuple[str, str] | None:
    """Write defaults that have no words as `...`, and aliases by their names."""
    *_, arguments, returned = given
    if arguments is None:
        return None
    arguments = _OBJECT.sub(r"\1...", _ALIAS.sub(r"\1", arguments))
    return arguments, returned


def setup(app: Sphinx) -> None:
    """Listen to sphinx-click, and to autodoc before napoleon does."""
    app.connect("autodoc-process-docstring", property_words, priority=400)
    app.connect("autodoc-process-signature", plain_signature)
    for event, listener in (
        ("sphinx-click-process-description", described),
        ("sphinx-click-process-epilog", described),
        ("sphinx-click-process-options", options),
        ("sphinx-click-process-arguments", no_arguments),
    ):
        app.connect(event, listener)
