"""Every command that opens a store, with what it needs to start, taken from the command table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path

import click

from taqstore.cli import COMMANDS

_STORES = {"store", "first", "second", "stores"}
_ANSWERS = ("output", "out", "target")
ENDLESS = ("serve",)
"""Commands that go on until they are stopped."""


def every_command() -> dict[str, click.Command]:
    """Commands by the words that call them."""
    found: dict[str, click.Command] = {}
    for name, (module, _) in COMMANDS.items():
        command: click.Command = import_module(module).command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for word in command.list_commands(context):
                below = command.get_command(context, word)
                assert below is not None
                found[f"{name} {word}"] = below
        else:
            found[name] = command
    return {n: c for n, c in found.items() if {p.name for p in c.params} & _STORES}


def distinct_commands() -> dict[str, click.Command]:
    """Every command once, and one in two places: `plan` hands out the commands themselves."""
    commands = every_command()
    last = [name for name in commands if name.startswith("plan ")][-1]
    return {n: one for n, one in commands.items() if n == last or not n.startswith("plan ")}


def calls(
    store: Path | str, work: Path, *, group: str = "latents", endless: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """What to type, for every command and every format or kind it has; name and arguments.

    Parameters
    ----------
    work
        A folder for outputs.
    group
        For commands that want one.
    endless
        With those that do not end by themselves, for who lets none of them begin.
    """
    prompts = work / "prompts.txt"
    prompts.write_text("a cat\n", encoding="utf-8")
    source = work / "source.json"
    source.write_text("{}", encoding="utf-8")
    given = {
        **dict.fromkeys(_STORES, str(store)),
        "group": group,
        "other": str(store),
        "model": "reference",
        "prompts": str(prompts),
        "images": "1",
        "source": str(source),
    }
    for number, (name, command) in enumerate(every_command().items()):
        if name in ENDLESS and not endless:
            continue
        for chosen in _choices(command):
            words = [name, *chosen.values()]
            target = str(work / f"{number}-{'-'.join(words)}".replace(" ", "-"))
            arguments = _arguments(command, {**given, **chosen}, target)
            yield " ".join(words), [*name.split(), *arguments]


def _choices(command: click.Command) -> Iterator[dict[str, str]]:
    """Every combination of what arguments with a list of words may be."""
    listed = [p for p in _needed(command) if isinstance(p.type, click.Choice)]
    words: Sequence[Sequence[str]] = [list(map(str, p.type.choices)) for p in listed]
    for chosen in product(*words):
        yield dict(zip((str(p.name) for p in listed), chosen, strict=True))


def _needed(command: click.Command) -> list[click.Parameter]:
    """What has to be typed; a store too where a command can do something without one."""
    return [
        p
        for p in command.params
        if p.required or (p.name == "store" and isinstance(p, click.Argument))
    ]


def _arguments(command: click.Command, given: Mapping[str, str], target: str) -> list[str]:
    found = []
    for parameter in _needed(command):
        name = str(parameter.name)
        value = target if name in _ANSWERS else given[name]
        if name == "stores":  # two at least
            found.append(value)
        option = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
        found += [*option, value]
    return found
