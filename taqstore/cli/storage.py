"""`--storage-option KEY=VALUE`: of every command that takes an address, declared once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from taqstore.errors import problem
from taqstore.place.remote.options import WORD, storage

ADDRESS = "is_address"
"""Attribute of the types of parameters that are addresses of stores or outputs."""


class _Pair(click.types.StringParamType):
    """`KEY=VALUE`, as a pair of texts. The value may be a secret: no message shows it."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, equals, text = str(value).partition("=")
        if not equals or not name.strip():
            what = "a storage option is a name and a value"
            self.fail(problem(what, remedy=f"write it like {WORD} region=eu-west-1"), param, ctx)
        return name.strip(), text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names of the commonest."""
        common = ("endpoint=", "region=", "profile=", "anon=true", "key=", "secret=", "token=")
        return [CompletionItem(w, type="open") for w in common if w.startswith(incomplete)]


def _hold(ctx: click.Context, param: click.Parameter, given: Sequence[tuple[str, str]]) -> None:
    names = [name for name, _ in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.BadParameter(problem(f"{twice} is given twice"), ctx, param)
    if given:
        ctx.with_resource(storage(dict(given)))


def check_remote_outputs(ctx: click.Context) -> None:
    """Refuse outputs in, over or around a store of a bucket before the work begins."""
    outputs = [v for v in ctx.params.values() if isinstance(v, os.PathLike) and "://" in str(v)]
    if outputs:
        from taqstore.files.targets import check_target

        for url in outputs:
            check_target(url)


def storage_options(params: Sequence[click.Parameter]) -> list[click.Option]:
    """The option, for a command one of whose parameters is an address; else nothing."""
    if not any(getattr(param.type, ADDRESS, False) for param in params):
        return []
    return [
        click.Option(
            [WORD],
            type=_Pair(),
            multiple=True,
            is_eager=True,  # addresses are looked at while they are parsed
            expose_value=False,
            callback=_hold,
            metavar="KEY=VALUE",
            help="How a bucket or server is reached: endpoint, region, profile, anon, ... "
            "Repeatable [default: the environment].",
        )
    ]
