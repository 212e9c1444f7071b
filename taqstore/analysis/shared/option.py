"""An option of an analysis, declared once: its name, kind, range, default and help.

`taqstore analyze`, `taqstore export` and the documentation are made from these, and what they say
is checked in the command line and in the library alike (`settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import wraps
from operator import attrgetter
from typing import Any, Literal, ParamSpec, TypeVar

from taqstore.asked import meant, number, range_text, whole_number, word_of
from taqstore.errors import MisuseError, problem
from taqstore.faces import named

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class When:
    """What another option must be: one of these words, which may be listed by a function."""

    option: str
    words: Collection[Any] | Callable[[], Collection[Any]]

    @property
    def known(self) -> tuple[Any, ...]:
        """The words."""
        return tuple(self.words() if callable(self.words) else self.words)


@dataclass(frozen=True)
class Option:
    """One option.

    Parameters
    ----------
    name
        Parameter of the function, or of the bundle.
    help
        One line, put after the words of the option that it goes with.
    type
        `float`, `int`, `str`, or `bool` for a flag; `integers`: several with commas between, or a
        word of `choices`; `word`: any text, such as the name of something in the store; `weights`:
        a file of weights, or by default those of the store; `base`: a checkpoint, or by default
        that of the store's model.
    default
        None where the function finds one itself. The function of an option that goes with another
        has None, and is called with this where it applies.
    choices
        Words it may be, or what lists them.
    aliases
        Words of earlier versions, not shown: which of `choices` each means.
    least, most
        Range of a number, ends included.
    above, below
        Leave `least`, or `most`, itself out.
    many
        Given several times, a tuple.
    when
        What another option must be; refused otherwise.
    unless
        Name of an option that excludes this one.
    needed
        Whether it must be given where `when` holds.
    flag
        Word on the command line without dashes, where it is not the name; ``on/off`` for two.
    bundle
        Parameter of the function that holds it, see `table.Analysis`.
    """

    name: str
    help: str
    type: type | Literal["integers", "word", "weights", "base"] = float
    default: Any = None
    choices: Collection[str] | Callable[[], Collection[str]] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    least: float | None = None
    most: float | None = None
    above: bool = False
    below: bool = False
    many: bool = False
    when: When | None = None
    unless: str = ""
    needed: bool = False
    flag: str = ""
    bundle: str = ""

    @property
    def flags(self) -> str:
        """As on the command line: ``--group-size``, ``--symmetric/--affine``."""
        return "/".join(self.spellings)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The same apart: one, or those of on and off."""
        words = (self.flag or self.name.replace("_", "-")).split("/")
        return tuple(f"--{word}" for word in words)

    @property
    def spelling(self) -> str:
        """The first of them: what messages of the command line call it."""
        return self.spellings[0]

    @property
    def parameter(self) -> str:
        """The same without dashes before it, as in a URL: ``group-size``, ``symmetric``."""
        return self.spelling.removeprefix("--")

    @property
    def words(self) -> tuple[str, ...]:
        """The words it may be; empty where it is no word."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    @property
    def text(self) -> str:
        """The help."""
        if self.when is None or self.type is bool:
            return self.help
        known = " or ".join(map(str, self.when.known))
        return f"With --{self.when.option} {known}{': ' * bool(self.help)}{self.help}"

    @property
    def range(self) -> str:
        """The range of a number in words."""
        return range_text(self.least, self.most, above=self.above, below=self.below)

    @property
    def whole_ends(self) -> tuple[int | None, int | None]:
        """The range of an integer."""
        least, most = (None if end is None else int(end) for end in (self.least, self.most))
        return least, most

    def but(self, **changes: Any) -> Option:
        """The same option with other particulars."""
        return replace(self, **changes)

    def is_given(self, value: Any) -> bool:
        """Whether a value says something: a flag that is as without it says nothing."""
        if self.many and isinstance(value, Sized):
            return len(value) > 0
        return value is not None and not (self.type is bool and value == self.default)

    def check(self, value: Any, *, what: str = "") -> None:
        """Refuse a value that is of another kind, out of the range, or none of the words.

        Raises
        ------
        MisuseError
            It is.
        """
        called = what or self.name
        if isinstance(value, str) and self.words:
            word_of(value, self.words, called)
        elif self.many or self.type == "integers":
            several = isinstance(value, Iterable) and isinstance(value, Sized)
            if isinstance(value, str) or not several:
                kind = "words" if self.type == "word" else "numbers"
                raise MisuseError(problem(f"{called} must be several {kind}", found=repr(value)))
            for one in value:
                self._check_one(one, called)
        elif self.type is bool:
            if value not in (True, False):
                raise MisuseError(problem(f"{called} must be True or False", found=repr(value)))
        elif self.type is str:
            if self.words or not isinstance(value, str):
                word_of(value, self.words, called)
        else:
            self._check_one(value, called)

    def _check_one(self, value: Any, what: str) -> None:
        if self.type == "word" and not isinstance(value, str):
            raise MisuseError(problem(f"{what} must be a word", found=repr(value)))
        if self.type in (int, "integers"):
            least, most = self.whole_ends
            whole_number(value, what, least=least, most=most)
        elif self.type is float:
            number(
                value, what, **{k: getattr(self, k) for k in ("least", "most", "above", "below")}
            )


def settle(
    options: Iterable[Option],
    given: Mapping[str, Any],
    *,
    who: str,
    spell: Callable[[Option], str] = attrgetter("name"),
) -> dict[str, Any]:
    """Check what was given and add the defaults of options that go with another one.

    Parameters
    ----------
    options
        Those there are.
    given
        Values by name; None is not given.
    who
        What takes the options, for messages.
    spell
        What messages call an option.

    Raises
    ------
    MisuseError
        An option that there is not, a value it cannot have, or options that do not go together.
    """
    rows = {option.name: option for option in options}
    spelled = {name: spell(row) for name, row in rows.items()}
    unknown = [name for name in given if name not in rows]
    if unknown:
        remedy = meant(unknown[0], spelled.values())
        raise MisuseError(problem(f"{who} takes no {unknown[0]}", remedy=remedy))
    given = {name: rows[name].aliases.get(str(v), v) for name, v in given.items()}
    said = {name: value for name, value in given.items() if rows[name].is_given(value)}
    for name, value in said.items():
        rows[name].check(value, what=spelled[name])
        if rows[name].unless in said:
            raise MisuseError(
                f"{spelled[name]} and {spelled[rows[name].unless]} exclude each other"
            )
    settled = {name: value for name, value in given.items() if value is not None}
    for row in rows.values():
        if row.when is not None and row.when.option in rows:
            settled |= _conditional(row, row.when, rows[row.when.option], said, spelled)
    return settled


def _conditional(
    row: Option, when: When, other: Option, said: Mapping[str, Any], spelled: Mapping[str, str]
) -> dict[str, Any]:
    """The default of an option that goes with another one, where it applies."""
    named = said.get(other.name, other.default)
    if named in when.known:
        if row.needed and row.name not in said:
            raise MisuseError(f"{spelled[other.name]} {named} needs {spelled[row.name]}")
        is_open = row.name not in said and row.unless not in said
        return {row.name: row.default} if is_open and row.default is not None else {}
    if row.name not in said:
        return {}
    if other.type is bool:
        is_flag = spelled[other.name].startswith("--")
        found = other.spellings[not named] if is_flag else f"{spelled[other.name]}={named}"
        raise MisuseError(f"{spelled[row.name]} does not go with {found}")
    words = " or ".join(map(str, when.known)) or "nothing"
    raise MisuseError(
        f"{spelled[row.name]} goes with {spelled[other.name]} {words}, not with {named}"
    )


def bundled(
    options: Iterable[Option], bundles: Mapping[str, str], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Options as the parameters of the function: those of a bundle in one object.

    Parameters
    ----------
    bundles
        Parameter -> ``module:class``, made of the options that name it as their `bundle`. Where
        none of them is given there is no such parameter.
    values
        As of `settle`.

    Raises
    ------
    MisuseError
        The class refuses them.
    """
    rows = {option.name: option for option in options}
    plain = {name: value for name, value in values.items() if not rows[name].bundle}
    held: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if rows[name].bundle:
            held.setdefault(rows[name].bundle, {})[name] = value
    return {**plain, **{key: named(bundles[key])(**inside) for key, inside in held.items()}}


def asked(
    options: Callable[[], Iterable[Option]], who: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator: the function is called with what `settle` makes of its options.

    `options` is called when the function is, so that a table that names the function may list them.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def checked(*args: _P.args, **given: _P.kwargs) -> _R:
            rows = [option for option in options() if not option.bundle]
            names = {option.name for option in rows}
            said = {name: value for name, value in given.items() if name in names}
            others = {name: value for name, value in given.items() if name not in names}
            settled: Any = {**others, **settle(rows, said, who=who)}
            return function(*args, **settled)

        return checked

    return decorate
