"""Options told as text, without a command line: ``NAME=VALUE`` of a comparison, or of a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taqstore.analysis.shared.option import Option, bundled, settle
from taqstore.analysis.table import ANALYSES
from taqstore.asked import meant
from taqstore.errors import MisuseError, problem

_TRUE, _FALSE = ("true", "yes", "on", "1", "t", "y"), ("false", "no", "off", "0", "f", "n")


def read_options(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Options of an analysis that are told as text, by name, read as its command reads them.

    Raises
    ------
    MisuseError
        The analysis has no such option, the text is no value of it, or options do not go together.
    """
    row = ANALYSES[name]
    known = {option.name: option for option in row.options if option.type != "weights"}
    found: dict[str, Any] = {}
    for word, text in given.items():
        if word not in known:
            raise MisuseError(problem(f"{name} has no {word!r}", remedy=meant(word, known)))
        found[word] = read_texts(known[word], [text], called=word)
    return bundled(row.options, row.bundles, settle(row.options, found, who=name))


def read_texts(option: Option, texts: Sequence[str], *, called: str) -> Any:
    """The value of an option that was given so often, as of `read_text`.

    Raises
    ------
    MisuseError
        It may be given once only; or as of `read_text`.
    """
    if option.many:
        return tuple(read_text(option, text, called=called) for text in texts)
    if len(texts) > 1:
        raise MisuseError(problem(f"{called} is given {len(texts)} times", remedy="give it once"))
    return read_text(option, texts[0], called=called)


def read_text(option: Option, text: str, *, called: str) -> Any:
    """One value of an option; its range and words are for `settle` to check.

    Parameters
    ----------
    called
        What messages call the option.

    Raises
    ------
    MisuseError
        The text is no value of the option's kind.
    """
    if option.type is bool:
        return _flag(text, called)
    if option.words and text in (*option.words, *option.aliases):
        return option.aliases.get(text, text)
    if option.type == "integers":
        known = "".join(f" or {word}" for word in option.words)
        return tuple(_number(int, part, text, f"a list of integers like 2,0,1{known}", called)
                     for part in text.split(","))  # fmt: skip
    if option.type in (int, float):
        kind = "an integer" if option.type is int else "a number"
        return _number(option.type, text, text, kind, called)
    return text


def _flag(text: str, called: str) -> bool:
    if text.casefold() in _TRUE:
        return True
    if text.casefold() in _FALSE:
        return False
    raise MisuseError(problem(f"{called} must be true or false", found=repr(text)))


def _number(kind: Any, part: str, text: str, expected: str, called: str) -> Any:
    try:
        return kind(part)
    except ValueError:
        raise MisuseError(problem(f"{called} must be {expected}", found=repr(text))) from None
