"""JSON documents of a run folder: read whole, checked field by field; names of its files."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem, what_it_is
from taqstore.layout.coordinate_files import MOST_STRING

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
_SAMPLE = re.compile(r"(\d{4,9})_(\d{3,9})\.npz")
INT64 = range(-(1 << 63), 1 << 63)


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises
    ------
    SourceError
        The file is missing, not JSON, or not an object.
    """
    kind = what_it_is(path)
    try:
        raw = path.read_bytes()
        document = json.loads(
            raw.decode(json.detect_encoding(raw)),
            parse_constant=_no_constant,
            object_pairs_hook=_each_once,
        )
    except OSError as error:
        found = kind or error.strerror or str(error)
        raise SourceError(problem("cannot be read", where=str(path), found=found)) from error
    except (ValueError, RecursionError) as error:
        if kind and kind != "JSON":
            what, remedy = "not JSON", "give the file itself"
            raise SourceError(problem(what, where=str(path), found=kind, remedy=remedy)) from None
        remedy = "the writer may have been stopped: write it again, or restore it"
        raise SourceError(
            problem("not valid JSON", where=str(path), found=str(error), remedy=remedy)
        ) from None
    if not isinstance(document, dict):
        raise SourceError(problem("not a JSON object", where=str(path)))
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def checked_text(text: str, *, where: str) -> str:
    """A text that a store keeps as it is.

    Raises
    ------
    SourceError
        It holds half a surrogate pair, which no encoding has, or a zero character, which arrays of
        text lose at an end; or it is longer than a store keeps.
    """
    if "\0" in text:
        what, remedy = "a zero character in a text", "write the prompt again"
        raise SourceError(problem(what, where=where, remedy=remedy))
    if len(text) > MOST_STRING:
        what = f"a text of {len(text)} characters, where a store keeps {MOST_STRING}"
        raise SourceError(problem(what, where=where, remedy="shorten the prompt"))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = repr(text[error.start : error.end])
        what, remedy = "half a character", "write the prompt again"
        raise SourceError(problem(what, where=where, found=found, remedy=remedy)) from error
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which JSON does not have")


def field(document: Mapping[str, Any], key: str, kind: type[T], *, where: str) -> T:
    """Value of a required key; SourceError if it is absent or of another type.

    An integer is taken where a float is asked for, and 3.0 for the integer 3; a bool is no number,
    and NaN is no value.
    """
    value = document.get(key)
    if kind is int and type(value) is float and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if good and isinstance(value, float):
        good = isfinite(value)
    if good and isinstance(value, int):
        good = value in INT64
    if not good:
        what = f"no key {key!r} with a value of type {kind.__name__}"
        found = repr(document[key])[:80] if key in document else ""
        raise SourceError(problem(what, where=where, found=found))
    return value  # type: ignore[return-value]


def basename(path: Any) -> Any:
    """Last part of a foreign path, of either kind of separator; anything else unchanged."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] if isinstance(path, str) else path


def without(document: Mapping[str, Any], *keys: str, paths: Iterable[str] = ()) -> dict[str, Any]:
    """The document without some keys and with foreign paths reduced to their last part."""
    reduced = {k: v for k, v in document.items() if k not in keys}
    return {**reduced, **{k: basename(reduced[k]) for k in paths if k in reduced}}


def sample_files(folder: Path) -> tuple[dict[tuple[int, int], int], int]:
    """Sizes of `IIII_SSS.npz` files by (image, step), and how many other files lie there."""
    sizes: dict[tuple[int, int], int] = {}
    others = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = _SAMPLE.fullmatch(entry.name)
                key = (int(match[1]), int(match[2])) if match else (0, 0)
                if match and sample_name(*key) == entry.name:
                    sizes[key] = entry.stat().st_size
                else:
                    others += 1
    except OSError as error:
        found = error.strerror or str(error)
        raise SourceError(problem("cannot be read", where=str(folder), found=found)) from error
    return dict(sorted(sizes.items())), others


def sample_name(image: int, step: int) -> str:
    """File name of one image at one step."""
    return f"{image:04d}_{step:03d}.npz"


def majority(votes: Iterable[H]) -> H:
    """The commonest value, the earlier one of a tie: one bad file must not condemn the others."""
    return Counter(votes).most_common(1)[0][0]


def strings(values: Iterable[str]) -> np.ndarray:
    """Strings as an object array, which keeps them exactly."""
    items = list(values)
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def floats(values: Iterable[float]) -> np.ndarray:
    """float32 where that holds every value exactly, else float64."""
    wide = np.array(list(values), dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide
