"""`--second-moment` of `taqstore collect`, and what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from taqstore.cli.common import say

FULL = "full"
_OWN = ("second_moment_groups", "second_moment_images", "second_moment_memory")


class Block(click.ParamType):  # type: ignore[type-arg]
    """Channels of a block: a number, or `full`, which becomes 0."""

    name = "block"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What stands for it in the help."""
        return "BLOCK"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The one word that it may be."""
        return [CompletionItem(FULL)] if FULL.startswith(incomplete) else []

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if value == FULL:
            return 0
        if str(value).isascii() and str(value).isdigit() and 0 < int(value) < 1 << 20:
            return int(value)
        self.fail(f"{value!r} is no number of channels; write it like 64, or {FULL}", param, ctx)


def second_moment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(
        (
            click.option(
                "--second-moment",
                type=Block(),
                help="Also keep sums of x x^T, of blocks of so many neighbouring channels or full.",
            ),
            click.option(
                "--second-moment-groups",
                type=click.IntRange(1),
                help="Equal groups of steps that have sums of their own [default: 4; full: 1].",
            ),
            click.option(
                "--second-moment-images",
                type=click.IntRange(1, 4096),
                help="Images summed before they are written [default: 8].",
            ),
            click.option(
                "--second-moment-memory",
                type=click.FloatRange(0.001),
                help="GB that sums may take; beyond, the model runs steps again [default: 4].",
            ),
        )
    ):
        command = option(command)
    return command


def asked_of(options: dict[str, Any], kind: Callable[..., Any]) -> Any:
    """Take the options out of these, as a `SecondMoments` of the pipeline; None: not asked for.

    Raises
    ------
    click.UsageError
        One is given that is of no use without `--second-moment`.
    """
    block = options.pop("second_moment")
    groups, images, memory = (options.pop(name) for name in _OWN)
    given = {"step_groups": groups, "images": images}
    given["memory"] = None if memory is None else int(memory * 1e9)
    chosen = {name: value for name, value in given.items() if value is not None}
    if block is None:
        if chosen:
            raise click.UsageError(f"{_flag(groups, images)} goes with --second-moment: give both")
        return None
    return kind(block or None, **chosen)


def _flag(groups: int | None, images: int | None) -> str:
    names = dict(zip(_OWN, (groups, images, ...), strict=True))
    return "--" + next(n for n, v in names.items() if v is not None).replace("_", "-")


def say_space(space: Any) -> None:
    """Say what second moments will take, before the start."""
    from taqstore.place.sizes import format_bytes

    free = "unknown" if space.free is None else format_bytes(space.free)
    say(
        f"second moments: will write {format_bytes(space.needed)} ({space.needed} bytes), free: "
        f"{free}; sums take {format_bytes(space.memory)} of memory"
    )
    if space.passes > 1:
        say(
            f"second moments: the sums do not fit at once, so every step is run {space.passes} "
            "times; --second-moment-memory allows more"
        )
