"""What a page is made of: numbers, tables, pictures and verdicts, still without any markup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MOST = 0.5
"""Share of layers from which a question is answered with a plain yes."""

YES, IN_PART, NO, UNKNOWN = "yes", "in part", "no", "not known"


@dataclass(frozen=True)
class Threshold:
    """From which value on a layer counts, and why from there.

    Parameters
    ----------
    value
        In the unit of the quantity.
    text
        The threshold as a reader sees it: ``at least 25 %``.
    reason
        One sentence.
    """

    value: float
    text: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Answer to a question: one of `YES`, `IN_PART`, `NO`, `UNKNOWN`, and how many layers agree."""

    word: str
    count: int = 0
    known: int = 0

    @property
    def kind(self) -> str:
        """The word as a CSS class."""
        return self.word.replace(" ", "-")


@dataclass(frozen=True)
class Number:
    """One number of a section, already written out with its unit."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption; the first `labels` columns are text, the others numbers."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1


@dataclass(frozen=True)
class Picture:
    """An SVG drawing, a caption or none, whether it takes the whole width, its figure's word."""

    svg: str
    caption: str
    wide: bool = False
    word: str = ""


@dataclass(frozen=True)
class Section:
    """One question with its answer.

    Parameters
    ----------
    key
        Name of the section in the page's links.
    title
        The question.
    summary
        The answer in one sentence.
    verdict, rule
        The answer by a threshold, and that threshold with its reason; None where the section
        recommends instead of judging.
    command
        What prints the numbers of the section.
    focus
        Site or linear that is shown on its own; empty if there is none.
    notes
        What the reader must know, or cannot be told.
    """

    key: str
    title: str
    summary: str
    verdict: Verdict | None = None
    rule: str = ""
    numbers: tuple[Number, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    command: str = ""
    focus: str = ""
    notes: tuple[str, ...] = ()


def missing_note(reason: str) -> str:
    """Why something is not told, as a note."""
    return f"Not from this source: {reason}."


def unanswered(key: str, title: str, reason: str) -> Section:
    """A section whose question the source cannot answer."""
    return Section(key, title, "This store cannot tell.", notes=(missing_note(reason),))


def judge(values: pd.Series[float], threshold: Threshold) -> Verdict:
    """Answer by the share of layers whose value reaches the threshold; NaN is not counted."""
    known = values.dropna()
    count = int((known >= threshold.value).sum())
    if known.empty:
        return Verdict(UNKNOWN)
    word = YES if count >= MOST * len(known) else IN_PART if count else NO
    return Verdict(word, count, len(known))


def number(value: float, unit: str = "", digits: int = 3) -> str:
    """A number for people: `digits` significant ones, a dash where it is not known.

    >>> number(0.012345), number(-1234.5), number(float("nan"))
    ('0.0123', '−1230', '–')
    """
    if not np.isfinite(value):
        return "–"
    # Through a float of few digits, so that large numbers stay without an exponent.
    text = f"{float(f'{value:.{digits}g}'):g}" if abs(value) < 1e6 else f"{value:.{digits}g}"
    joined = f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text
    return joined.replace("-", "−")


def percent(share: float, digits: int = 3) -> str:
    """A share as per cent."""
    return number(100.0 * share, "%", digits)


def decibel(relative_error: float) -> str:
    """A mean relative error as SQNR in dB, one decimal."""
    if not np.isfinite(relative_error):
        return "–"
    if relative_error <= 0:
        return "exact"
    # Adding zero makes a rounded -0.0 plain.
    return f"{round(-10.0 * np.log10(relative_error), 1) + 0.0:.1f} dB".replace("-", "−")
