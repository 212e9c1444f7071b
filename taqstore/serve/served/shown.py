"""The command line and the Python that give the same numbers as an answer."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pprint import pformat
from typing import Any

from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.errors import printable

Shown = dict[str, str]
"""``cli`` and ``python`` of an answer."""


def command_line(
    words: str | Sequence[str],
    addresses: str | Sequence[str],
    *,
    rows: Iterable[Option] = (),
    values: Mapping[str, Any] | None = None,
    after: Sequence[str] = (),
) -> str:
    """A line of `taqstore` that a shell takes as it is.

    Parameters
    ----------
    words
        Of the command, such as ``"analyze error"``.
    addresses
        Of stores, as they were given.
    rows, values
        Options, and those of them that were given, by name; None is not given.
    after
        Further words, such as the group of a query; options come behind them.

    >>> command_line("analyze error", "my run.zarr", rows=ANALYSES["error"].options,
    ...              values={"bits": 4, "symmetric": False})
    "taqstore analyze error 'my run.zarr' --bits 4 --affine"
    """
    head = words.split() if isinstance(words, str) else list(words)
    stores = [addresses] if isinstance(addresses, str) else list(addresses)
    said = values or {}
    options = [part for row in rows if row.name in said for part in _typed(row, said[row.name])]
    parts = ["taqstore", *head, *stores, *after, *options]
    return printable(shlex.join(parts), longest=10_000)


def _typed(row: Option, value: Any) -> list[str]:
    if not row.is_given(value):
        return []
    if row.type is bool:
        return list(row.spellings[:1] if value else row.spellings[1:])
    every = value if row.many else [value]
    return [part for one in every for part in _pair(row.spelling, one)]


def _pair(word: str, value: Any) -> list[str]:
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    # Behind a dash, a value is told from an option by the equals sign alone.
    return [f"{word}={text}"] if text.startswith("-") else [word, text]


def python_call(
    function: str,
    arguments: Sequence[str],
    values: Mapping[str, Any] | None = None,
    *,
    result: str = "",
) -> str:
    """A call as it is typed: arguments are code already, values are written out.

    >>> python_call("taqstore.query.diff", ["a", "b"], {"group": None, "source": "activations"})
    "taqstore.query.diff(a, b, source='activations')"
    """
    named = [f"{k}={_code(v)}" for k, v in (values or {}).items() if v not in (None, (), {})]
    call = f"{function}({', '.join([*arguments, *named])})"
    return f"{result} = {call}" if result else call


def opened(address: str, name: str = "store") -> str:
    """The line that opens a store."""
    return f"{name} = taqstore.open_store({address!r})"


def analysis_shown(
    name: str,
    address: str,
    *,
    other: str | None = None,
    chosen: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Shown:
    """``cli`` and ``python`` of an analysis.

    Parameters
    ----------
    name
        Word of `ANALYSES`.
    address, other
        Of the store, and of the second one where it takes two.
    chosen
        Values of `SELECTION`: ``source``, ``site`` (several), ``layer``, ``step``, ``batch``.
    options
        Those given of the analysis, by name, before any is bundled; `weights` is a set's name.
    """
    row, said, part = ANALYSES[name], dict(options or {}), dict(chosen or {})
    stores = [address] if other is None else [address, other]
    line = command_line(
        f"analyze {name}", stores, rows=(*CHOOSING, *row.options), values={**_chosen(part), **said}
    )
    return {"cli": line, "python": "\n".join(_analysis_code(name, stores, part, said))}


def _chosen(part: Mapping[str, Any]) -> dict[str, Any]:
    return {f"chosen_{word}": value for word, value in part.items()}


def _analysis_code(
    name: str, stores: Sequence[str], part: Mapping[str, Any], said: Mapping[str, Any]
) -> list[str]:
    row = ANALYSES[name]
    lines = ["import taqstore", "", opened(stores[0])]
    values: dict[str, Any] = {"source": part.get("source"), "sites": part.get("site")}
    values["selection"] = {k: v for k in ("layer", "step", "batch") if (v := part.get(k))}
    if len(stores) > 1:
        lines.append(opened(stores[1], "other"))
        values["other"] = Code("other")
    for option in row.options:
        if option.name not in said or not option.is_given(said[option.name]):
            continue
        if option.type == "weights":
            lines.insert(1, "from taqstore.kinds.quantized_linears import weight_groups_of")
            values[option.name] = Code(f"weight_groups_of(store, {said[option.name]!r})")
        elif not option.bundle:
            values[option.name] = said[option.name]
    for key, place in row.bundles.items():
        inside = {o.name: said[o.name] for o in row.options if o.bundle == key and o.name in said}
        made = f"taqstore.analysis.{place.partition(':')[2]}"
        values |= {key: Code(python_call(made, [], inside))} if inside else {}
    call = python_call("taqstore.query.analyze", [repr(name), "store"], values, result="results")
    return [*lines, call, *([] if row.whole else ["tables = taqstore.query.site_tables(results)"])]


class Code(str):
    """Text that is code already."""


def _code(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    return pformat(list(value) if isinstance(value, tuple) else value, width=10_000, compact=True)


def _choosing(word: str, text: str, **particulars: Any) -> Option:
    # Analyses have options of the same names: `step` of outliers is --at-step.
    return Option(f"chosen_{word}", text, str, flag=word, **particulars)


CHOOSING = (
    _choosing("source", "Group prefix [default: first of those in the store]."),
    Option("chosen_site", "attn.qkv, mlp.fc2, … Repeatable.", "word", (), many=True, flag="site"),
    _choosing("layer", "Glob over layers, or any spelling of one."),
    _choosing("step", "Step index, or A:B:S."),
    _choosing("batch", "Observed batches to use: A:B:S."),
)
"""`SELECTION` as options, by the names ``chosen_source`` and so on."""
