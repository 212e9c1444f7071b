"""Groups of a run, opened by one rule: made alike or refused, overwritten only when asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, StoreError, problem
from taqstore.layout.template import Template
from taqstore.names import WRITTEN
from taqstore.run.mode import Mode
from taqstore.store.group_writer import GroupWriter
from taqstore.store.groups import KEEP_OR_REPLACE, MADE_BY, check_compatible
from taqstore.store.writer import StoreWriter

RUN = MADE_BY


def open_groups(
    writer: StoreWriter,
    templates: Sequence[Template],
    mode: Mode,
    *,
    replaced: Collection[str] | None = None,
    makes_way: bool | None = None,
) -> dict[str, GroupWriter]:
    """Open or create the groups, by path.

    A group that would be refused and holds no whole item, which nobody works on, makes way: a run
    that fails before its first item leaves nothing that refuses a corrected one. Not to a process
    that goes on with a run or has a part of it: what was planned for all of them stays.

    Parameters
    ----------
    replaced
        Groups to replace; None: all with `Mode.force`, else none.
    makes_way
        Whether such a group makes way; None: to a run that begins.

    Raises
    ------
    LayoutError
        A group was made by another configuration; the differing fields are named.
    StoreError
        A group holds complete items, and neither resume nor force was asked for.
    """
    fresh = {t.path for t in templates if mode.force} if replaced is None else replaced
    begins = not (mode.shared or mode.resume)
    if begins if makes_way is None else makes_way:
        _remove_unfilled(writer, [t for t in templates if t.path not in fresh])
    for template in templates:
        if template.path not in fresh:
            check_run(writer, template)
    # Those that are there come first: a run that is refused makes no groups.
    made = {t.path for t in templates if t.path in fresh or not _is_there(writer, t.path)}
    there = [template for template in templates if template.path not in made]
    groups = writer.groups(there) if mode.resume else _unfilled(writer, there)
    groups |= writer.groups([t for t in templates if t.path in made], replaced=fresh)
    if not mode.resume:
        for path in filter(made.__contains__, groups):
            _refuse_overwriting(path, groups[path])
    return {template.path: groups[template.path] for template in templates}


def _unfilled(writer: StoreWriter, templates: Sequence[Template]) -> dict[str, GroupWriter]:
    """Groups that are there, opened one after the other until one is found to hold an item."""
    groups = dict[str, GroupWriter]()
    for template in templates:
        groups[template.path] = writer.group(template)
        _refuse_overwriting(template.path, groups[template.path])
    return groups


def _is_there(writer: StoreWriter, path: str) -> bool:
    try:
        return writer.node(path) is not None
    except StoreError:
        return True  # damaged: refused where it is opened


def _remove_unfilled(writer: StoreWriter, templates: Sequence[Template]) -> None:
    unlike = [template.path for template in templates if _is_unlike(writer, template)]
    if unlike:
        writer.remove_unfilled(unlike, among=[template.path for template in templates])


def _is_unlike(writer: StoreWriter, template: Template) -> bool:
    """Whether a group is there that was made otherwise, whatever it holds."""
    try:
        node: Any = writer.node(template.path)
    except StoreError:
        return False  # damaged: refused where it is opened
    if node is None or "taqstore" not in node.attrs:
        return False
    try:
        check_compatible(node, template, np.zeros(node[WRITTEN].shape, bool))
    except LayoutError:
        return True
    return bool(_differing(node, template))


def _differing(node: Any, template: Template) -> list[str]:
    """Settings of the runs that made a group and would add to it, where they differ."""
    if RUN not in template.attrs:
        return []
    return _settings_that_differ(node.attrs.get(RUN, {}), template.attrs[RUN])


def _settings_that_differ(stored: Any, asked: Any) -> list[str]:
    found = []
    for name in dict.fromkeys([*asked, *stored]):
        before, now = stored.get(name), asked.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += [f"{name} {inner}" for inner in _settings_that_differ(before, now)]
        elif before != now:
            found.append(f"{name} (store {before!r}, asked {now!r})")
    return found


def check_run(writer: StoreWriter, template: Template) -> None:
    """Refuse a group that a run with other settings has made; each is named."""
    node: Any = writer.node(template.path)
    if node is None or "taqstore" not in node.attrs:
        return
    differing = _differing(node, template)
    if differing:
        raise LayoutError(
            problem(
                f"this group was made with other settings: {'; '.join(differing)}",
                where=f"{writer.location} {template.path}",
                remedy=KEEP_OR_REPLACE,
            )
        )


def _refuse_overwriting(path: str, group: GroupWriter) -> None:
    done = group.written()
    if done.any():
        raise StoreError(
            problem(
                f"{path} already holds {int(done.sum())} of the {done.size} items",
                where=str(group.location),
                remedy="--resume keeps them and goes on, --force deletes them and starts anew",
            )
        )
