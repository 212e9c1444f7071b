"""The figures of a section, as the table of figures has them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import xarray as xr

from taqstore.errors import MissingError
from taqstore.plot.draw import pages
from taqstore.plot.figures import FIGURES, FigureKind, InReport
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.svg import inline_svg
from taqstore.plot.parts.views import file_name
from taqstore.query.sites import Groups
from taqstore.report.findings import CURVES, LAYER_GROUPS, STEP_BITS, Findings, Plan
from taqstore.report.page import Picture, Section

_COLUMN_INCHES = 7.0
"""Wider figures take the whole width of the page: their text is too small in half of it."""


def draw(groups: Groups, section: Section, plan: Plan, findings: Findings) -> tuple[Picture, ...]:
    """Draw the figures of one section; a kind that the groups cannot show is left out.

    Parameters
    ----------
    groups
        The groups of one source.
    findings
        What is known of them already, and not asked again.
    """
    drawn: list[Picture] = []
    for word, row in FIGURES.items():
        place = row.report
        if place is None or place.section != section.key:
            continue
        caption = place.caption.format(focus=section.focus, low=plan.bits[-1])
        for number, page in enumerate(_pages(word, row, place, groups, section, plan, findings)):
            svg = inline_svg(page.figure, f"{section.key}{len(drawn)}")
            wide = page.figure.get_figwidth() > _COLUMN_INCHES
            # The pages of one kind share a caption.
            drawn.append(Picture(svg, "" if number else caption, wide, word))
    return tuple(drawn)


def _pages(
    word: str,
    row: FigureKind,
    place: InReport,
    groups: Groups,
    section: Section,
    plan: Plan,
    findings: Findings,
) -> Iterator[Page]:
    if place.shows != "all" and not section.focus:
        return
    chosen: dict[str, Any] = {}
    if place.shows == "site":
        chosen = {"group": f"{plan.source}/{section.focus}"}
    elif place.shows == "linear":
        chosen = {"layers": (section.focus,)}
    stem = place.stem or (file_name(section.focus) if place.shows == "linear" else "")
    try:
        made = pages(
            word,
            groups,
            answers=_answers(word, plan, findings),
            **chosen,
            **_options(row, section, plan),
        )
        yield from (page for page in made if stem in page.stem)
    except MissingError:
        # The section itself says what the source cannot tell.
        return


def _options(row: FigureKind, section: Section, plan: Plan) -> dict[str, Any]:
    """Those options of a figure that the plan settles."""
    bits = plan.group_bits if section.key == "groups" else plan.bits[-1]
    settled = {"bits": bits, "average": plan.budget, "choices": plan.bits}
    if row.made == "store":
        return {}
    return {name: settled[name] for name in row.options if name in settled}


def _answers(word: str, plan: Plan, findings: Findings) -> dict[str, xr.Dataset] | None:
    """Results that a figure is drawn from, if they were worked out for the text already."""
    shares = ("negative_fraction", "negative_fraction_all", "counted")
    drawn_from: dict[str, tuple[Hashable, tuple[str, ...]]] = {
        "range": ("diagnostics", ("step_range",)),
        "negative": ("diagnostics", shares),
        "sqnr": (("error", plan.bits[-1], "absmax", None), ("sqnr", "error")),
        "groups": (LAYER_GROUPS, CURVES),
        "bits": (STEP_BITS, ("bits", "choice_error")),
    }
    if FIGURES[word].made == "store":
        return dict(findings.results[word]) if word in findings.results else None
    if word not in drawn_from:
        return None
    name, variables = drawn_from[word]
    found = findings.results.get(name, {})
    # Only these: of others some may differ by projection, and would tell q, k and v apart.
    known = {path: [v for v in variables if v in data] for path, data in found.items()}
    return {path: found[path][some] for path, some in known.items() if some}
