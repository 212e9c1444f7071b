"""`taqstore analyze NAME STORE`: a subcommand for every row of `analysis.ANALYSES`."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.analysis.options import Option
from taqstore.analysis.table import ANALYSES, Analysis
from taqstore.cli import MODEL_WEIGHTS
from taqstore.cli.analysis import SHARED, run
from taqstore.cli.common import say
from taqstore.cli.output import Source
from taqstore.faces import named


class _Analyses(click.Group):
    """Subcommands made when asked for, from what the table then holds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(ANALYSES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = ANALYSES.get(cmd_name)
        return None if row is None else _subcommand(cmd_name, row)


@click.group("analyze", cls=_Analyses)
def command() -> None:
    """Compute an analysis from STORE; nothing is run again.

    Works on observed and on pooled statistics, lazily. Print it, or write it with -o.
    """


# The shared options have a --step and a --layer of their own.
_OWN = "own_"


def _subcommand(name: str, row: Analysis) -> click.Command:
    made: Any = partial(_analyze, name, row)
    for decorate in reversed((*SHARED, *map(_option, row.options))):
        made = decorate(made)
    return click.command(name, help=row.doc)(made)


def _analyze(name: str, row: Analysis, **given: Any) -> None:
    options: dict[str, Any] = {}
    bundles: dict[str, dict[str, Any]] = {bundle: {} for bundle in row.bundles}
    for option in row.options:
        value = given.pop(_OWN + option.name)
        if option.type == "weights":
            value = _weights_of_file(value) if value else _weights_of_store(given["store"])
        if not option.bundle:
            options[option.name] = value
        elif value is not None:
            bundles[option.bundle][option.name] = value
    made = {bundle: named(row.bundles[bundle])(**held) for bundle, held in bundles.items()}
    run(name, given, {**options, **made})


def _option(option: Option) -> Any:
    """The decorator of one option."""
    words = (option.flags, _OWN + option.name)
    if option.type is bool and "/" not in option.flags:
        return click.option(*words, is_flag=True, help=option.text)
    return click.option(
        *words,
        type=_type(option),
        default=option.default,
        show_default=option.default not in (None, ()),
        multiple=option.many,
        callback=partial(_integers, option) if option.type == "integers" else None,
        help=option.text,
    )


def _type(option: Option) -> Any:
    if option.type == "integers":
        return str
    if option.type == "weights":
        return Source()
    if option.words:
        return click.Choice(option.words)
    if option.least is None and option.most is None:
        return option.type
    if option.type is int:
        return click.IntRange(_integer(option.least), _integer(option.most), max_open=option.below)
    return click.FloatRange(option.least, option.most, max_open=option.below)


def _integer(end: float | None) -> int | None:
    return None if end is None else int(end)


def _integers(
    option: Option, context: click.Context, parameter: click.Parameter, text: str | None
) -> Any:
    """Read ``2,0,1``; words that the option knows stay as they are."""
    if text is None or text in option.words:
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of integers like 2,0,1") from None


def _weights_of_file(path: str) -> Any:
    from taqstore.files.weight_absmax import weight_absmax

    found = weight_absmax(Path(path))
    for note in found.notes:
        say(f"note: {note}")
    return found.sites


def _weights_of_store(address: str) -> Any:
    from taqstore.names import WEIGHTS
    from taqstore.query.sites import site_groups
    from taqstore.store.reader import open_store

    opened = open_store(address)
    stored = site_groups(opened, WEIGHTS)
    if stored:
        return stored
    models = import_module(MODEL_WEIGHTS)
    model = models.named_model(opened)
    if model is None:
        return {}  # the analysis says what it lacks
    say(f"note: weights are those of {model}, the model that the store names")
    return models.model_weight_absmax(opened)
