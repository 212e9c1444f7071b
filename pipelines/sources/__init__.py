"""Layouts found on disk, turned into plans: what to create, what to write, what is wrong.

A source is a row of `table.SOURCES` and a module called like its word, with the functions ``find``
and ``plan``. Nothing is imported before it is used, so that the table is there for `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from .detect import Source, detect
    from .parts.plan import Inexact, Item, Options, Part, Plan, Problem, Put, Unit
    from .plans import plan, replan
    from .table import SOURCES

__all__ = [
    "SOURCES", "Inexact", "Item", "Options", "Part", "Plan", "Problem", "Put", "Source", "Unit",
    "detect", "plan", "replan",
]  # fmt: skip

_HOMES = {
    "detect": ("Source", "detect"),
    "parts.plan": ("Inexact", "Item", "Options", "Part", "Plan", "Problem", "Put", "Unit"),
    "plans": ("plan", "replan"),
    "table": ("SOURCES",),
}
lazy_face(
    __name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}
)
