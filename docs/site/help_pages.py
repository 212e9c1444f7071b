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
_ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[([^\[\]]*)\]\]"
)
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


def docstring(_: Sphinx, what: str, __: str, ___: object, ____: object, lines: list[str]) -> None:
    """Keep napoleon from taking words before a colon for a type, and examples for names."""
    if what in ("property", "attribute"):
        lines[:0] = ["..", ""]  # a comment
    first = next((at for at, line in enumerate(lines) if line.startswith(">>>")), None)
    if first is not None and "Examples" not in lines[:first]:
        lines[first:first] = ["Examples", "--------"]


def plain_signature(*given: Any) -> tuple[str | None, str | None]:
    """Write defaults that have no words as `...`, and arrays and aliases by their names."""
    *_, arguments, returned = given
    return _plain(arguments), _plain(returned)


def _plain(text: str | None) -> str | None:
    if text is None:
        return None
    named = _ARRAY.sub(r"~numpy.typing.NDArray[\1]", _ALIAS.sub(r"\1", text))
    return _OBJECT.sub(r"\1...", named)


def setup(app: Sphinx) -> None:
    """Listen to sphinx-click, and to autodoc before napoleon does."""
    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-process-signature", plain_signature)
    for event, listener in (
        ("sphinx-click-process-description", described),
        ("sphinx-click-process-epilog", described),
        ("sphinx-click-process-options", options),
        ("sphinx-click-process-arguments", no_arguments),
    ):
        app.connect(event, listener)
