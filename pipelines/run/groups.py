"""Groups of a run, opened by one rule: made alike or refused, overwritten only when asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from taqstore.errors import LayoutError, StoreError, problem
from taqstore.layout.template import Template
from taqstore.run.mode import Mode
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import StoreWriter

# Group attribute with what made a group; another configuration may not add to it.
RUN = "run"


def open_groups(
    writer: StoreWriter,
    templates: Sequence[Template],
    mode: Mode,
    *,
    replaced: Collection[str] | None = None,
) -> dict[str, GroupWriter]:
    """Open or create the groups, by path.

    Parameters
    ----------
    replaced
        Groups to replace; None: all with `Mode.force`, else none.

    Raises
    ------
    LayoutError
        A group was made by another configuration; the differing fields are named.
    StoreError
        A group holds complete items, and neither resume nor force was asked for.
    """
    fresh = {t.path for t in templates if mode.force} if replaced is None else replaced
    for template in templates:
        if template.path not in fresh:
            _check_run(writer, template)
    groups = {t.path: writer.group(t, replace=t.path in fresh) for t in templates}
    if not mode.resume:
        for path, group in groups.items():
            _refuse_overwriting(path, group)
    return groups


def _check_run(writer: StoreWriter, template: Template) -> None:
    node: Any = writer.node(template.path)
    if RUN not in template.attrs or node is None or "taqstore" not in node.attrs:
        return
    stored, asked = node.attrs.get(RUN, {}), template.attrs[RUN]
    differing = [
        f"{name} (store {stored.get(name)!r}, asked {asked.get(name)!r})"
        for name in dict.fromkeys([*asked, *stored])
        if stored.get(name) != asked.get(name)
    ]
    if differing:
        raise LayoutError(
            problem(
                f"this group was made with other settings: {'; '.join(differing)}",
                where=f"{writer.location} {template.path}",
                remedy="use another store, or --force to replace the group",
            )
        )


def _refuse_overwriting(path: str, group: GroupWriter) -> None:
    done = group.written()
    if done.any():
        raise StoreError(
            problem(
                f"{path} already holds {int(done.sum())} of the {done.size} items",
                where=str(group.location),
                remedy="--resume skips them, --force replaces the group",
            )
        )
