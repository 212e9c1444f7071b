"""The endpoints as a page: HTML without scripts, each with its options and an address to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from taqstore.analysis.shared.option import Option
from taqstore.serve.api.openapi import address, described, section
from taqstore.serve.api.table import ENDPOINTS
from taqstore.serve.http.endpoint import Endpoint
from taqstore.serve.http.formats import FORMS
from taqstore.version import __version__

STYLE = Path(__file__).with_name("docs.css")
_TITLES = {
    "about": "About the service",
    "stores": "Stores",
    "analyze": "Analyses",
    "export": "Exports",
    "plot": "Figures",
}


def page(stores: Sequence[str]) -> str:
    """The page, with links that work for the first store."""
    found = sorted(ENDPOINTS, key=section)
    sections = [(key, list(rows)) for key, rows in groupby(found, section)]
    named = [(_TITLES.get(key, key.capitalize()), key, rows) for key, rows in sections]
    links = "".join(f'<li><a href="#{escape(key)}">{escape(title)}</a>' for title, key, _ in named)
    body = "".join(
        f'<section id="{escape(key)}"><h2>{escape(title)}</h2>'
        f"{''.join(_endpoint(row, stores) for row in rows)}</section>"
        for title, key, rows in named
    )
    return _PAGE.format(version=escape(__version__), links=links, body=body, forms=_forms())


def _forms() -> str:
    return ", ".join(f"<code>.{form.word}</code>" for form in FORMS)


def _endpoint(endpoint: Endpoint, stores: Sequence[str]) -> str:
    path = f"/api{address(endpoint)}"
    rows = "".join(map(_option, endpoint.options))
    head = "<tr><th scope=col>option<th scope=col>values<th scope=col>meaning"
    table = f'<div class="wide"><table><thead>{head}<tbody>{rows}</table></div>' if rows else ""
    return (
        f"<details><summary><code>{escape(path)}</code><span>{escape(endpoint.doc)}</span>"
        f"</summary>{''.join(_tried(path, stores))}{table}</details>"
    )


def _tried(path: str, stores: Sequence[str]) -> Iterator[str]:
    """A link to the endpoint, where all in braces can be filled in."""
    names = {"store": stores[0], "other": stores[-1]} if stores else {}
    filled = path.replace("{format}", "svg")
    for name, store in names.items():
        filled = filled.replace(f"{{{name}}}", quote(store, safe=""))
    if "{" not in filled:
        yield f'<p>Try <a href="{escape(filled)}">{escape(filled)}</a></p>'


def _option(option: Option) -> str:
    default = "" if option.default in (None, (), False) else f" [{option.default}]"
    return (
        f"<tr><th scope=row><code>{escape(option.parameter)}</code>"
        f"<td>{escape(_values(option))}{escape(default)}<td>{escape(described(option))}"
    )


def _values(option: Option) -> str:
    kinds = {int: "integer", float: "number", bool: "true or false", "integers": "2,0,1"}
    word = ", ".join(option.words) or option.range or kinds.get(option.type, "text")
    return f"{word}; repeatable" if option.many else word


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>taqstore over HTTP</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/api/docs.css">
<header>
<h1>taqstore {version} over HTTP</h1>
<p>Read-only. Options are those of the command line, by the same names; a flag is
<code>true</code> or <code>false</code>. Tables come as {forms}, by a suffix of the address or by
<code>Accept</code>. Every answer says the command and the Python that give the same numbers. What
cannot be answered is one line, <code>{{"error": …}}</code>, with a status. For programs:
<a href="/api/openapi.json">OpenAPI</a>; chunks are below <code>/zarr/STORE</code>.</p>
<p>Not offered: options that name a file of the server (weights of a model, a checkpoint), formats
that complete a checkpoint (mlx, comfy-w4a8), NetCDF.</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>{body}</main>
</html>
"""
