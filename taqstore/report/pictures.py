"""Which figures stand in which section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from taqstore.errors import MissingError
from taqstore.plot.draw import pages
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.svg import inline_svg
from taqstore.plot.parts.views import file_name
from taqstore.report.findings import Groups, Plan
from taqstore.report.page import Picture, Section

_COLUMN_INCHES = 7.0
"""Wider figures take the whole width of the page: their text is too small in half of it."""


@dataclass(frozen=True)
class Choice:
    """A kind of figure for a section.

    Parameters
    ----------
    kind
        Kind of `taqstore plot`.
    caption
        What the reader is to see in it.
    options
        Arguments of `plot.store.pages`.
    stem
        Part of the names of the pages to take; empty for all.
    """

    kind: str
    caption: str
    options: dict[str, Any] = field(default_factory=dict)
    stem: str = ""


def _choices(section: Section, plan: Plan) -> Iterator[Choice]:
    """Figures of a section; `Section.focus` names the site or linear that some of them show."""
    low, focus = plan.bits[-1], section.focus
    group = {"group": f"{plan.source}/{focus}"}
    one = {"layers": (focus,)}
    if section.key == "asymmetry" and focus:
        yield Choice("negative", f"Values below zero, {focus}: the most lopsided site.", group)
    elif section.key == "drift" and focus:
        caption = f"Ranges over the steps, {focus}: the site that drifts most."
        yield Choice("range", caption, group, stem="_all")
    elif section.key == "outliers" and focus:
        stem = file_name(focus)
        yield Choice("channels", f"Channel ranges of {focus}.", one, stem)
        yield Choice("channelmap", f"The channels of {focus} over the steps.", one, stem)
    elif section.key == "worst" and focus:
        yield Choice("sqnr", f"SQNR at {low} bits, absmax per step.", {"bits": low})
        caption = f"Error of {focus} against the clip bound, and where rules put it."
        yield Choice("curve", caption, {"bits": low, **one}, file_name(focus))
    elif section.key == "groups":
        caption = "Error of groups of steps, and where single layers would cut."
        yield Choice("groups", caption, {"bits": plan.group_bits})
    elif section.key == "bits":
        options = {"average": plan.budget, "choices": plan.bits}
        yield Choice("bits", "Widths by layer and step, and error against the budget.", options)


def draw(groups: Groups, section: Section, plan: Plan) -> tuple[Picture, ...]:
    """Draw the figures of one section; a kind that the groups cannot show is left out.

    Parameters
    ----------
    groups
        The groups of one source.
    """
    drawn: list[Picture] = []
    for choice in _choices(section, plan):
        for number, page in enumerate(_pages(groups, choice)):
            svg = inline_svg(page.figure, f"{section.key}{len(drawn)}")
            wide = page.figure.get_figwidth() > _COLUMN_INCHES
            # The pages of one kind share a caption.
            drawn.append(Picture(svg, "" if number else choice.caption, wide))
    return tuple(drawn)


def _pages(groups: Groups, choice: Choice) -> Iterator[Page]:
    try:
        drawn = pages(choice.kind, groups, **choice.options)
        yield from (page for page in drawn if choice.stem in page.stem)
    except MissingError:
        # The section itself says what the source cannot tell.
        return
