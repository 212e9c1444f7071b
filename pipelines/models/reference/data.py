"""Handwritten digits of scikit-learn with prompts that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import TaqError, problem

from .encoder import words
from .latent import FACTOR, enlarge

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHRASES = ("a handwritten {}", "the handwritten digit {}", "the number {}")
STROKES = ("thin", "", "bold")
LEANS = ("leaning left", "", "leaning right")
_SPLIT_SEED = 1797
_HELD_OUT = 360

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Digits with what is known of each.

    Attributes
    ----------
    ink
        (N, 8, 8) float32 between 0 and 1.
    label
        (N,) 0 to 9.
    stroke, lean
        (N,) 0, 1, 2: index into `STROKES` and `LEANS`, relative to digits of the same label.
    """

    ink: Floats
    label: Ints
    stroke: Ints
    lean: Ints


def real_digits() -> tuple[Digits, Digits]:
    """The 1797 digits of scikit-learn: 1437 to learn from and 360 held out, always the same.

    Raises
    ------
    TaqError
        scikit-learn is not installed.
    """
    everything = _all_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything.label))
    return _take(everything, order[_HELD_OUT:]), _take(everything, order[:_HELD_OUT])


def describe(label: int, *, phrase: int = 0, stroke: int = 1, lean: int = 1) -> str:
    """Prompt for a digit.

    >>> describe(7, stroke=2, lean=0)
    'a handwritten seven, bold, leaning left'
    """
    parts = (PHRASES[phrase].format(NUMERALS[label]), STROKES[stroke], LEANS[lean])
    return ", ".join(part for part in parts if part)


def digit_prompts(count: int, *, seed: int = 0) -> list[str]:
    """Prompts for `count` digits, the ten in turn, wording and looks drawn at random."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(3, size=(count, 3)).tolist()
    return [
        describe(index % 10, phrase=phrase, stroke=stroke, lean=lean)
        for index, (phrase, stroke, lean) in enumerate(drawn)
    ]


def prompted_digit(prompt: str) -> int:
    """The digit that a prompt names.

    Raises
    ------
    TaqError
        It names none, or more than one.
    """
    spelled = set(words(prompt))
    found = [digit for digit, name in enumerate(NUMERALS) if name in spelled]
    if len(found) != 1:
        raise TaqError(problem("a prompt names one digit", found=repr(prompt)))
    return found[0]


def training_batch(
    digits: Digits, rng: np.random.Generator, *, size: int, dropped: float
) -> tuple[Floats, list[str]]:
    """Pictures, moved by up to a quarter of an original pixel, and their prompts.

    Parameters
    ----------
    dropped
        Share of prompts left empty, for classifier-free guidance.

    Returns
    -------
    (size, 32, 32) float32 and `size` prompts.
    """
    chosen = rng.integers(len(digits.label), size=size)
    pictures = enlarge(digits.ink[chosen])
    moved = [_moved(p, *rng.integers(-1, 2, size=2)) for p in pictures]
    return np.stack(moved), _prompts(digits, chosen, rng, dropped)


def _prompts(digits: Digits, chosen: Ints, rng: np.random.Generator, dropped: float) -> list[str]:
    """Prompts that name the looks of a digit half of the time."""
    phrases = rng.integers(len(PHRASES), size=chosen.size)
    named = rng.random((2, chosen.size)) < 0.5
    stroke = np.where(named[0], digits.stroke[chosen], 1)
    lean = np.where(named[1], digits.lean[chosen], 1)
    kept = rng.random(chosen.size) >= dropped
    return [
        describe(digits.label[i], phrase=p, stroke=s, lean=n) if keep else ""
        for i, p, s, n, keep in zip(chosen, phrases, stroke, lean, kept, strict=True)
    ]


def _moved(picture: Floats, down: int, right: int) -> Floats:
    padded = np.pad(picture, FACTOR, mode="edge")
    return np.roll(padded, (down, right), (0, 1))[FACTOR:-FACTOR, FACTOR:-FACTOR]


@cache
def _all_digits() -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        what = "the digits that the reference model learns from come with scikit-learn"
        raise TaqError(problem(what, remedy="pip install scikit-learn")) from error
    loaded = load_digits()
    ink = (loaded.images / 16).astype(np.float32)
    label = loaded.target.astype(np.int64)
    weight = ink.mean((1, 2))
    return Digits(ink, label, _thirds(weight, label), _thirds(slope(ink), label))


def slope(ink: Floats) -> Floats:
    """Columns to the right per row upwards of the ink's main direction, from second moments."""
    rows, columns = np.mgrid[:8, :8].astype(np.float32)
    share = ink / ink.sum((1, 2), keepdims=True)
    row = rows - (share * rows).sum((1, 2))[:, None, None]
    column = columns - (share * columns).sum((1, 2))[:, None, None]
    across = (share * row * column).sum((1, 2))
    return np.asarray(-across / (share * row * row).sum((1, 2)), np.float32)


def _thirds(values: Floats, label: Ints) -> Ints:
    """Lower, middle or upper third (0, 1, 2) among the digits of the same label."""
    thirds = np.empty(len(label), np.int64)
    for digit in range(10):
        same = label == digit
        limits = np.quantile(values[same], [1 / 3, 2 / 3])
        thirds[same] = np.searchsorted(limits, values[same])
    return thirds


def _take(digits: Digits, rows: Sequence[int] | Ints) -> Digits:
    return Digits(digits.ink[rows], digits.label[rows], digits.stroke[rows], digits.lean[rows])
