"""Words of a list, and commands of a group: a mistyped one is refused by naming what was meant."""

from __future__ import annotations

from typing import Any

import click

from taqstore.asked import meant
from taqstore.errors import problem


class Word(click.Choice[str]):
    """A word of a list."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """Which there are, in one line."""
        return f"There is {', '.join(self.normalize_choice(one, ctx) for one in self.choices)}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word; one that is not of the list is refused by saying which was meant."""
        words = [self.normalize_choice(choice, ctx) for choice in self.choices]
        if str(value) not in words:
            remedy = meant(value, words)
            self.fail(problem(f"{str(value)!r} is not known", remedy=remedy), param, ctx)
        return super().convert(value, param, ctx)


class WordGroup(click.Group):
    """A group of commands that says of a mistyped one which was meant."""

    kind = "command"
    """What its commands are, for messages."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As any group; a word that is no command is a usage error that names one."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            if ctx.resilient_parsing:
                return None, None, args
            remedy = self.elsewhere(args[0]) or meant(args[0], known)
            ctx.fail(problem(f"{self.kind} {args[0]!r} is not known", remedy=remedy))
        return super().resolve_command(ctx, args)

    def elsewhere(self, word: str) -> str:
        """What to say of a word that is one of another group; empty where it is not."""
        return ""
