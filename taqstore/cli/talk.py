"""How much a command says on stderr, and how wide its tables are: options that are everywhere."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Any

import click

from taqstore.cli.storage import check_remote_outputs, storage_options
from taqstore.errors import FILE_SIZE, printable
from taqstore.terminal.width import show_everything

_LOG = logging.getLogger("taqstore")


@dataclass
class Talk:
    """What the running command was asked to say.

    Parameters
    ----------
    quiet
        No talk and no progress; errors and what was asked for remain.
    verbose
        What is opened, read and written besides, and tracebacks of errors of ours.
    started
        When it began, by the monotonic clock.
    """

    quiet: bool = False
    verbose: bool = False
    started: float = 0.0


TALK = Talk()
"""Of this process: threads of a command talk as loud as it does."""


def begin() -> None:
    """Forget what an earlier command of this process was asked."""
    TALK.quiet, TALK.verbose, TALK.started = False, False, monotonic()
    _LOG.setLevel(logging.NOTSET)
    show_everything(False)
    _HEARD.forget()
    if _HEARD not in _LOG.handlers:
        _LOG.addHandler(_HEARD)


def end() -> None:
    """Say under --verbose what was read, and that it is over."""
    if _HEARD.files:
        detail(f"read {_HEARD.files} files of stores, {_HEARD.bytes} bytes")
    detail("ended")


def detail(text: str) -> None:
    """Talk under --verbose: a line on stderr, after the seconds since the command began."""
    if TALK.verbose:
        click.echo(f"[{monotonic() - TALK.started:8.3f} s] {printable(text)}", err=True)


class _Heard(logging.Handler):
    """What the library logs: warnings are talk, the rest is detail; files of stores are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Count from nothing."""
        self.files, self.bytes = 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, or count it."""
        if record.levelno >= logging.WARNING:
            if not TALK.quiet:
                click.echo(printable(record.getMessage()), err=True)
        elif size := getattr(record, FILE_SIZE, None):
            self.files, self.bytes = self.files + 1, self.bytes + size
        else:
            detail(record.getMessage())
        if record.exc_info and TALK.verbose:
            click.echo(logging.Formatter().formatException(record.exc_info), err=True)


_HEARD = _Heard()


def _hush(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if given:
        TALK.quiet = True
        _refuse_both(ctx)


def _speak_up(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if not given or TALK.verbose:
        return
    TALK.verbose = True
    _refuse_both(ctx)
    _LOG.setLevel(logging.DEBUG)
    from taqstore.metadata.provenance import library_versions

    versions = ", ".join(f"{name} {found}" for name, found in library_versions().items())
    detail(f"{versions}, {sys.platform}")


def _refuse_both(ctx: click.Context) -> None:
    if TALK.quiet and TALK.verbose:
        raise click.UsageError("--quiet and --verbose exclude each other", ctx)


def _widen(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if given:
        show_everything(True)


def talk_options() -> list[click.Option]:
    """`--quiet` and `--verbose`, as every command has them, and taqstore before its command."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_hush,
            help="No talk and no progress on stderr; errors are still said.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_speak_up,
            help="Say what is opened, read and written, versions and seconds; tracebacks.",
        ),
    ]


TALK_OPTIONS = ("quiet", "verbose", "wide", "storage_option")
"""Options by their names in Python that are said once for all commands."""

wide_option = click.option(
    "--wide",
    is_flag=True,
    expose_value=False,
    callback=_widen,
    help="Print whole tables, however narrow the terminal.",
)


class Command(click.Command):
    """A command with the options that every command has."""

    def __init__(self, *args: Any, **particulars: Any) -> None:
        super().__init__(*args, **particulars)
        self.params = [*self.params, *storage_options(self.params), *talk_options()]

    def invoke(self, ctx: click.Context) -> Any:
        """Run, if outputs may lie where they are wanted."""
        check_remote_outputs(ctx)
        return super().invoke(ctx)
