"""Options declared in the tables of analyses and exports, as options of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Any

import click

from taqstore.analysis.shared.option import Option, settle
from taqstore.cli import vocabulary
from taqstore.cli.completed import Named
from taqstore.cli.output import SetOrSource, Source
from taqstore.cli.words import Word
from taqstore.query.texts import read_text

# Commands have options of their own that may have the same names.
_OWN = "own_"

# Options whose words the store has, by name.
_NAMED = {"source": vocabulary.sources, "weights": vocabulary.weight_sets}


class Words(Word):
    """The words of an option, and silently those of earlier versions."""

    def __init__(self, option: Option) -> None:
        super().__init__(option.words)
        self._aliases = option.aliases

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word that is meant."""
        return super().convert(self._aliases.get(str(value), value), param, ctx)


def click_option(option: Option, *, explicit: bool = False) -> Callable[[Any], Any]:
    """The decorator of one option.

    Its value is None where it is not given and goes with another option: only then is it known
    whether it applies. With `explicit`, it is None wherever it is not given.
    """
    words = (option.flags, _OWN + option.name)
    if option.type is bool and "/" not in option.flags:
        return click.option(*words, is_flag=True, help=option.text)
    # The default of a flag that shows both ways is its own; of options that may not apply, a text.
    silent = explicit or option.when is not None
    text = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
    shown = text if silent else True
    return click.option(
        *words,
        type=_type(option),
        default=None if silent else option.default,
        show_default=shown if option.default not in (None, ()) else False,
        multiple=option.many,
        callback=partial(_integers, option) if option.type == "integers" else None,
        help=option.text,
    )


def given_of(option: Option, given: dict[str, Any]) -> Any:
    """What was given for an option; None where nothing was."""
    return given.get(_OWN + option.name)


def settled(options: Iterable[Option], given: dict[str, Any], *, who: str) -> dict[str, Any]:
    """Take the values of `click_option`s out of `given`, checked and with their defaults.

    Raises
    ------
    MisuseError
        A value that an option cannot have, or options that do not go together.
    """
    rows = list(options)
    values = {row.name: given.pop(_OWN + row.name) for row in rows}
    return settle(rows, values, who=who, spell=attrgetter("spelling"))


def _type(option: Option) -> Any:
    if option.type == "integers":
        return Named(lambda asked: option.words)
    if option.type == "word":
        return Named(vocabulary.measured_formats)
    if option.type == "weights":
        return SetOrSource()
    if option.type == "base":
        return Source()
    if option.words:
        return Words(option)
    if option.type is str and option.name in _NAMED:
        return Named(_NAMED[option.name])
    if option.least is None and option.most is None:
        return option.type
    ends = {"min_open": option.above, "max_open": option.below}
    if option.type is int:
        return click.IntRange(*option.whole_ends, **ends)
    return click.FloatRange(option.least, option.most, **ends)


def _integers(
    option: Option, context: click.Context, parameter: click.Parameter, text: str | None
) -> Any:
    """Read ``2,0,1``; words that the option knows stay as they are."""
    return None if text is None else read_text(option, text, called=option.spelling)
