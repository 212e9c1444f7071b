"""How a store shows itself: a few lines at a prompt, a table in a notebook.

Lines are made of the root document alone. The table opens every group's records, never its data;
after `SECONDS` it leaves the rest unopened, so that a cell about a store far away ends too.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from taqstore.errors import TaqError, printable
from taqstore.names import VARIABLES, WRITTEN, dimension_order, split_group
from taqstore.place.sizes import format_bytes
from taqstore.store.groups import dimension_names

if TYPE_CHECKING:
    from taqstore.store.reader import Store

SECONDS = 5.0
"""How long groups are opened for one table."""
_ROWS = 24
_NARROWEST = 40
# Colours of the page around it, light or dark: nothing here has a colour of its own.
_STYLE = """
.taqstore-store table {border-collapse: collapse; font-size: 0.9em;}
.taqstore-store th, .taqstore-store td
  {text-align: left; vertical-align: top; padding: 0.2em 0.8em 0.2em 0;
   border-bottom: 1px solid rgba(127, 127, 127, 0.35); background: none; color: inherit;}
.taqstore-store td.number, .taqstore-store th.number {text-align: right; white-space: nowrap;}
.taqstore-store summary {cursor: pointer; font-family: monospace;}
.taqstore-store ul {margin: 0.2em 0 0.4em; padding-left: 1.6em;}
.taqstore-store .wide {overflow-x: auto;}
"""


def lines_of(address: str, paths: Iterable[str], *, columns: int | None = None) -> str:
    """What `repr` of a store is: its address, and its groups with those of a source in one line.

    Parameters
    ----------
    columns
        Width that lines fit; by default that of the terminal.
    """
    width = columns or shutil.get_terminal_size().columns
    width, sources = max(width, _NARROWEST), dict[str, list[str]]()
    for path in paths:
        source, site = split_group(path)
        sources.setdefault(printable(source or site), []).extend([printable(site)] * bool(source))
    count = sum(max(1, len(sites)) for sites in sources.values())
    groups = f"{count} group{'s' * (count != 1)}" if count else "no groups"
    head = f"<taqstore.Store {_tail(printable(address), width - len(groups) - 19)}: {groups}>"
    rows = list(sources.items())
    indent = min(max((len(source) for source in sources), default=0), width // 2)
    told = [_row(source, sites, indent, width) for source, sites in rows[:_ROWS]]
    more = [f"  ... {len(rows) - _ROWS} more sources"] if len(rows) > _ROWS else []
    return "\n".join([head, *told, *more])


def _row(source: str, sites: list[str], indent: int, width: int) -> str:
    text = f"  {_tail(source, indent):{indent}}  "
    for place, site in enumerate(sites):
        left = len(sites) - place
        rest = f"... ({len(sites)})"
        room = width - len(text) - (len(rest) + 2 if left > 1 else 0)
        if len(site) > room:
            return (text + rest).rstrip()
        text += site + (", " if left > 1 else "")
    return text.rstrip()


def _tail(text: str, room: int) -> str:
    return text if len(text) <= room else f"...{text[len(text) - max(room - 3, 1) :]}"


def html_of(store: Store, *, seconds: float = SECONDS) -> str:
    """A table of the groups of a store: dims, share written, bytes, and variables to unfold.

    Parameters
    ----------
    seconds
        After which no other group is opened.
    """
    end, rows, unopened = time.monotonic() + seconds, [], 0
    for path in store.paths:
        if time.monotonic() > end:
            unopened += 1
            rows.append(_html_row(path, "", "", "not opened"))
        else:
            rows.append(_opened_row(store, path))
    head = "".join(f"<th{_kind(name)}>{name}</th>" for name in ("group", "dims", *_NUMBERS))
    about = f"format {store.root.format}, digest {store.digest}, {len(store.paths)} groups"
    note = f"<p>{unopened} groups were not opened within {seconds:g} s.</p>" if unopened else ""
    return (
        f'<div class="taqstore-store"><style>{_STYLE}</style>'
        f"<p><b>taqstore.Store</b> {_safe(str(store.location))}<br>{_safe(about)}</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}</div>"
    )


_NUMBERS = ("written", "stored")


def _opened_row(store: Store, path: str) -> str:
    try:
        node, mask, sizes = store.documents(path), store.mask(path), store.stored_bytes(path)
    except TaqError as error:
        return _html_row(path, str(error), "damaged", "")
    arrays = dict(node.arrays())
    dims: dict[str, int] = {}
    for array in arrays.values():
        dims |= dict(zip(dimension_names(array), array.shape, strict=False))
    for axis, dim in enumerate(dimension_names(arrays[WRITTEN])):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        dims[dim] = int(mask.any(axis=others).sum())
    names = sorted(dims, key=dimension_order)
    known = "" if sizes is None else format_bytes(sum(sizes.values()))
    share = f"{100 * float(mask.mean()):.4g} %" if mask.size else "100 %"
    labels = {*dims, *str(node.attrs.get("coordinates", "")).split()}
    items = _variables(arrays, set(arrays) - labels if sizes is None else set(sizes))
    return _html_row(path, ", ".join(f"{dim} {dims[dim]}" for dim in names), share, known, items)


def _variables(arrays: dict[str, Any], names: set[str]) -> Iterator[str]:
    order = [name for name in VARIABLES if name in names]
    for name in [*order, *sorted(names - set(order))]:
        array = arrays[name]
        meaning = VARIABLES[name].description if name in VARIABLES else ""
        dims = ", ".join(dimension_names(array))
        text = f" ({_safe(dims)}) {_safe(str(array.dtype))}{': ' * bool(meaning)}{_safe(meaning)}"
        yield f"<li><code>{_safe(name)}</code>{text}</li>"


def _html_row(path: str, dims: str, written: str, stored: str, items: Iterable[str] = ()) -> str:
    inside = "".join(items)
    name = f"<code>{_safe(path)}</code>"
    if inside:
        name = f"<details><summary>{_safe(path)}</summary><ul>{inside}</ul></details>"
    numbers = "".join(f'<td class="number">{_safe(text)}</td>' for text in (written, stored))
    return f"<tr><td>{name}</td><td>{_safe(dims)}</td>{numbers}</tr>"


def _kind(column: str) -> str:
    return ' class="number"' if column in _NUMBERS else ""


def _safe(text: str) -> str:
    return escape(printable(text))
