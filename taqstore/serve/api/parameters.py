"""What a URL asks for: its parameters read as options, by the names of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from operator import attrgetter
from typing import Any

from taqstore.analysis.shared.option import Option, settle
from taqstore.asked import meant
from taqstore.errors import MisuseError, problem
from taqstore.query.texts import read_texts
from taqstore.serve.http.endpoint import Endpoint

LONGEST = 1000
"""Characters of a parameter."""
_TOKEN = "token"  # of the service itself: see app


def read(
    options: Sequence[Option], given: Iterable[tuple[str, str]], *, who: str
) -> dict[str, Any]:
    """Values by name of options, checked and with their defaults, as `settle` leaves them.

    Parameters
    ----------
    given
        Parameters in order. One is called like the option on the command line, without dashes
        before it (``group-size``, ``choice``); ``_`` stands for ``-`` as well, and the option's
        name in Python is understood. A flag is ``true`` or ``false``. Repeatable options may be
        given several times, others once.
    who
        What takes them, for messages.

    Raises
    ------
    MisuseError
        A parameter that there is not, a value it cannot have, or options that do not go together.
    """
    known, texts = _names(options), dict[str, list[str]]()
    for word, text in given:
        if word == _TOKEN:
            continue
        _check_length(word, text)
        found = known.get(word.replace("_", "-"))
        if found is None:
            remedy = meant(word, [option.parameter for option in options]) or "it takes none"
            raise MisuseError(problem(f"{who} takes no {word!r}", remedy=remedy))
        option, is_off = found
        texts.setdefault(option.name, []).append(_turned(text) if is_off else text)
    rows = {option.name: option for option in options}
    values = {
        name: read_texts(rows[name], several, called=rows[name].parameter)
        for name, several in texts.items()
    }
    return settle(options, values, who=who, spell=attrgetter("parameter"))


def needed(endpoint: Endpoint) -> tuple[Option, ...]:
    """Options without which the function of an endpoint cannot be called."""
    parameters = signature(endpoint.load()).parameters
    bare = {name for name, one in parameters.items() if one.default is one.empty}
    return tuple(o for o in endpoint.options if o.name in bare and o.default is None)


def check_needed(endpoint: Endpoint, values: Mapping[str, Any]) -> None:
    """Refuse a question that lacks one of them, by a MisuseError."""
    for option in needed(endpoint):
        if option.name not in values:
            what = f"{endpoint.path} needs {option.parameter}"
            raise MisuseError(problem(what, remedy=option.help))


def _names(options: Sequence[Option]) -> Mapping[str, tuple[Option, bool]]:
    """Options by all names of their parameters, and whether the name is that of off."""
    names: dict[str, tuple[Option, bool]] = {}
    for option in options:
        names[option.name.replace("_", "-")] = option, False
        for off in option.spellings[1:]:
            names[off.removeprefix("--")] = option, True
    # Words of the command line come first: two options may have one name.
    return names | {option.parameter: (option, False) for option in options}


def _turned(text: str) -> str:
    return {"true": "false", "false": "true"}.get(text.casefold(), text)


def _check_length(word: str, text: str) -> None:
    longest = max(len(word), len(text))
    if longest > LONGEST:
        what = f"a parameter of {longest} characters is too long"
        raise MisuseError(problem(what, remedy=f"{LONGEST} is the most"))
