"""Endpoints take the options of their commands: no fewer, no others, of the same ranges."""

from __future__ import annotations

from typing import Any

import click
import pytest

from support.store_commands import every_command
from taqstore.analysis import ANALYSES
from taqstore.analysis.shared.option import Option
from taqstore.errors import MisuseError
from taqstore.export.formats import FORMATS
from taqstore.plot.figures import FIGURES
from taqstore.serve.api.parameters import read
from taqstore.serve.api.table import LIBRARY

OF_OUTPUT = {
    *("csv", "json", "limit", "output", "force", "wide", "scheduler", "fail"),
    "explorer",
    *("quiet", "verbose", "help", "storage-option", "with", "renumber", "multitier"),
}
"""How a command prints, writes and runs, and what reads several stores as one; links that a
stranger could make lead elsewhere."""
ENDPOINTS = {endpoint.path: endpoint for endpoint in LIBRARY}
STORE = "/stores/{store}"
COMMANDS = {
    **{f"{STORE}/analyze/{word}": f"analyze {word}" for word in ANALYSES},
    **{f"{STORE}/export/{word}": f"export {word}" for word, row in FORMATS.items()
       if not row.layout},
    f"{STORE}/query/{{group:path}}": "query",
    f"{STORE}/diff/{{other}}": "diff",
    f"{STORE}/report": "report",
}  # fmt: skip
ALSO = {"query": {"variable"}, "diff": {"group", "variable"}}
"""Options of endpoints that are arguments of commands."""


def spelled(parameter: click.Parameter) -> str:
    return next(word[2:] for word in parameter.opts if word.startswith("--"))


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    """By the word in a URL; of two spellings, the first."""
    found = {spelled(one): one for one in command.params if isinstance(one, click.Option)}
    return {word: one for word, one in found.items() if word not in OF_OUTPUT}


@pytest.mark.parametrize("path", COMMANDS)
def test_an_endpoint_takes_what_its_command_takes(path: str) -> None:
    name = COMMANDS[path]
    taken = options_of(every_command()[name])
    other = name.partition(" ")[2] + "-multitier"
    offered = {option.parameter: option for option in ENDPOINTS[path].options}
    only_here = {"other", "suffix"} & set(offered)
    # Two schemas share a command; here each is an endpoint.
    of_both = {o.parameter for o in FORMATS[other].options} if other in FORMATS else set()
    assert set(offered) - only_here == (set(taken) - of_both | set(offered) & of_both) | ALSO.get(
        name, set()
    )
    for word, one in taken.items():
        if word in offered:
            assert one.multiple == offered[word].many, word
            assert ends(one) == ends_of(offered[word]), word


@pytest.mark.parametrize("word", FIGURES)
def test_a_figure_takes_what_the_command_lets_it_take(word: str) -> None:
    taken = options_of(every_command()["plot"])
    (path,) = [path for path in ENDPOINTS if path.startswith(f"{STORE}/plot/{word}")
               and path.removeprefix(f"{STORE}/plot/{word}") in ("", ".{format}")]  # fmt: skip
    offered = {option.parameter for option in ENDPOINTS[path].options} - {"page"}
    own = {name.replace("_", "-") for name in FIGURES[word].options} & {*taken, "other"}
    where = set() if FIGURES[word].made == "store" else {"layer", "group"}
    assert offered == own | where


def ends(parameter: click.Parameter) -> tuple[Any, Any]:
    kind = parameter.type
    return (kind.min, kind.max) if isinstance(kind, click.IntRange | click.FloatRange) else (
        None, None)  # fmt: skip


def ends_of(option: Option) -> tuple[Any, Any]:
    return (None, None) if option.type == "integers" else (option.least, option.most)


BITS = Option("bits", "", int, 8, least=2, most=16)
SHARE = Option("share", "", float, most=1)
CHOICES = Option("choices", "", int, (4, 8), least=2, many=True, flag="choice")
SIGN = Option("symmetric", "", bool, True, flag="symmetric/affine")
SIZE = Option("group_size", "", int, least=1)
CUTS = Option("cuts", "", "integers", choices=("static",))
ROWS = (BITS, SHARE, CHOICES, SIGN, SIZE, CUTS)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ([("bits", "4")], {"bits": 4}),
        ([("choice", "3"), ("choice", "5")], {"choices": (3, 5)}),
        ([("choices", "3")], {"choices": (3,)}),
        ([("affine", "true")], {"symmetric": False}),
        ([("symmetric", "No")], {"symmetric": False}),
        ([("group-size", "7"), ("share", "1e-3")], {"group_size": 7, "share": 0.001}),
        ([("group_size", "7")], {"group_size": 7}),
        ([("cuts", "2,4")], {"cuts": (2, 4)}),
        ([("cuts", "static")], {"cuts": "static"}),
        ([("token", "secret")], {}),
    ],
)
def test_texts_are_read(given: list[tuple[str, str]], values: dict[str, Any]) -> None:
    assert read(ROWS, given, who="it") == values


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("bit", "4")], "it takes no 'bit'; did you mean bits?"),
        ([("bits", "four")], "bits must be an integer (found 'four')"),
        ([("bits", "4"), ("bits", "5")], "bits is given 2 times; give it once"),
        ([("bits", "99")], "bits must be 2 to 16 (found 99)"),
        ([("bits", "9" * 5000)], "a parameter of 5000 characters is too long"),
        ([("share", "nan")], "share must be finite (found nan)"),
        ([("affine", "maybe")], "symmetric must be true or false (found 'maybe')"),
        ([("choice", "1")], "choice must be at least 2 (found 1)"),
        ([("cuts", "2,x")], "cuts must be a list of integers like 2,0,1 or static"),
        ([("group-size", "0")], "group-size must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    given: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(MisuseError) as caught:
        read(ROWS, given, who="it")
    assert str(caught.value).startswith(message)
