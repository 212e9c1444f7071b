"""What commands print and write: `--csv`, `--json`, `--limit`, `-o`, `--force`, each once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from taqstore.cli import vocabulary
from taqstore.cli.common import is_given, say
from taqstore.cli.completed import Named
from taqstore.cli.talk import wide_option
from taqstore.errors import printable, problem
from taqstore.files.targets import DATASETS, check_suffix
from taqstore.terminal.aligned import print_fitted

if TYPE_CHECKING:
    from taqstore.files.tables import Table

Option = Callable[[Any], Any]

csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV with exact floats.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
replace_option = click.option("--force", is_flag=True, help="Overwrite the output.")


def _for_one_option(path: Any, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Refuse a file that another option of the command was given already."""
    if ctx is None or param is None:
        return
    known: dict[str, str] = ctx.meta.setdefault("taqstore.files", {})
    name = param.opts[-1] if isinstance(param, click.Option) else str(param.human_readable_name)
    first = known.setdefault(os.path.realpath(path), name)
    if first != name:
        raise click.UsageError(f"{first} and {name} are the same file: {printable(str(path))}", ctx)


class Source(click.Path):
    """A file to read, which no other option reads or writes; with `folders`, it may be one."""

    def __init__(self, path_type: type[Path] | None = None, *, folders: bool = False) -> None:
        super().__init__(exists=True, dir_okay=folders, path_type=path_type)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path, if there is such a file and it serves for nothing else."""
        from taqstore.metadata.near import near_path

        text = str(value)
        if not os.path.lexists(text) and (remedy := near_path(text, stores=False)):
            self.fail(problem("no such file", where=text, remedy=remedy), param, ctx)
        found = super().convert(value, param, ctx)
        _for_one_option(found, param, ctx)
        return found


class SetOrSource(Source):
    """A weight set of the store, as a str; or a file to read, as a Path: its name has a dot."""

    def __init__(self) -> None:
        super().__init__(Path)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The name of a set as it is; else as of `Source`."""
        from taqstore.kinds.weight_sets import is_set_name

        return str(value) if is_set_name(str(value)) else super().convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Sets of the store; where none begins so, files."""
        sets = Named(vocabulary.weight_sets).shell_complete(ctx, param, incomplete)
        return sets or super().shell_complete(ctx, param, incomplete)


class Target(click.Path):
    """A path or URL to write to; stores and what lies in or around one are refused at once.

    So is a file that another option reads.
    """

    is_address = True

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path, if an output may lie there; else a TaqError."""
        from taqstore.files.remote import RemotePath, output_path
        from taqstore.files.targets import check_target

        # A server is asked when the command runs: words are parsed to be completed as well.
        target = output_path(value)
        if isinstance(target, RemotePath):
            found: str | bytes | os.PathLike[str] = target
        else:
            found = super().convert(os.fspath(check_target(target)), param, ctx)
        _for_one_option(found, param, ctx)
        return found


def output_option(
    *, help: str, required: bool = False, only: Literal["file", "folder"] | None = None
) -> Option:
    """`-o`, of a command that writes a file, a folder, or (None) either."""
    kind = Target(file_okay=only != "folder", dir_okay=only != "file", path_type=Path)
    return click.option("-o", "--output", required=required, type=kind, help=help)


@dataclass(frozen=True)
class Output:
    """How the answer of a command was asked for.

    Parameters
    ----------
    as_csv, as_json
        Print that instead of aligned text.
    limit
        Rows of a printed table; 0: all.
    path
        File to write instead of printing.
    force
        Replace what stands there.
    """

    as_csv: bool
    as_json: bool
    limit: int
    path: Path | None
    force: bool

    def give_text(self, text: str) -> None:
        """Print a text as it is, or write it and say so."""
        from taqstore.files.staged import whole_file

        if self.path is None:
            click.echo(text, nl=False)
            return
        with replacing(self.path, force=self.force), whole_file(
            self.path, force=self.force
        ) as fresh:  # fmt: skip
            fresh.write_text(text, encoding="utf-8")
        say(f"wrote {self.path}")

    def give(self, tables: Callable[[], Sequence[Table]], write: Callable[..., object]) -> None:
        """Print the tables, or call `write(path, force=...)` and say what was written."""
        if self.path is None:
            print_tables(tables(), as_csv=self.as_csv, as_json=self.as_json, limit=self.limit)
            return
        with replacing(self.path, force=self.force):
            write(self.path, force=self.force)
        say(f"wrote {self.path}")


def check_force(force: bool, output: Path | None) -> None:
    """Refuse a --force that has nothing to replace."""
    if force and output is None:
        raise click.UsageError("--force goes with -o")


def table_output(
    *,
    suffixes: tuple[str, ...] = DATASETS,
    limit: int = 40,
    only: Literal["file"] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--csv`, `--json`, `--limit`, `-o` and `--force`, as its `output`.

    Parameters
    ----------
    suffixes
        What `-o` may end with.
    limit
        Rows that are printed unless told otherwise.
    only
        Whether `-o` may not be a folder.
    """
    options = (
        csv_option,
        json_option,
        click.option(
            "--limit",
            type=click.IntRange(0),
            default=limit,
            show_default=True,
            help="Rows of a printed table; 0: all.",
        ),
        output_option(help=f"FILE with the suffix {' or '.join(suffixes)}.", only=only),
        replace_option,
        wide_option,
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(
            *,
            as_csv: bool,
            as_json: bool,
            limit: int,
            output: Path | None,
            force: bool,
            **given: Any,
        ) -> None:
            if as_csv + as_json + (output is not None) > 1:
                raise click.UsageError("--csv, --json and -o exclude each other")
            if (as_csv or as_json or output) and is_given("limit"):
                raise click.UsageError(
                    "--limit is for printed tables: --csv, --json and -o are whole"
                )
            check_force(force, output)
            if output is not None:
                check_suffix(output, suffixes)
                _check_output(output, force=force)
            function(output=Output(as_csv, as_json, limit, output, force), **given)

        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _check_output(output: Path, *, force: bool) -> None:
    """Refuse what stands there before it is worked out what to write; datasets may be folders."""
    from taqstore.files.datasets import FOLDER
    from taqstore.files.staged import check_file

    if output.suffix != FOLDER:
        check_file(output, force=force)


@contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[None]:
    """Say what an output that is written inside has replaced, once it has."""
    standing = _described(path) if force else None
    yield
    if standing:
        say(f"replaced {path}: {standing}")


def _described(path: Path) -> str | None:
    from taqstore.files.remote import RemotePath, described
    from taqstore.place.sizes import format_bytes

    if isinstance(path, RemotePath):
        sizes = described(path)
        kind = f"{len(sizes)} files" if len(sizes) > 1 else "a file"
        return f"{kind} of {format_bytes(sum(sizes))}" if sizes else None
    if path.is_symlink():
        return f"a link to {os.readlink(path)}"
    if path.is_file():
        return f"a file of {format_bytes(path.stat().st_size)}"
    if path.is_dir():
        return f"a folder of {sum(len(names) for _, _, names in os.walk(path))} files"
    return None


def print_tables(tables: Sequence[Table], *, as_csv: bool, as_json: bool, limit: int = 0) -> None:
    """Print tables: aligned, or exactly as CSV or as one JSON document."""
    from taqstore.files.tables import print_table, write_csv, write_json

    if as_json:
        write_json(tables, sys.stdout)
        return
    if as_csv and len(tables) > 1:
        say(f"note: {len(tables)} tables of different dimensions, parted by empty lines")
    for number, table in enumerate(tables):
        click.echo("" if number == 0 else "\n", nl=False)
        if as_csv:
            write_csv(table, sys.stdout)
        else:
            print_table(table, limit)


def print_json(document: Any) -> None:
    """One JSON document on stdout, floats in their shortest exact form."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_rows(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Sequence[str] = ()
) -> None:
    """Rows of text under a header, aligned: words left, numbers right.

    On a terminal, what it has room for, as `print_fitted` says; columns named in `spare` are left
    out first.
    """
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    shown = ([printable(cell) for cell in row] for row in rows)
    columns = [list(column) for column in zip(header, *shown, strict=True)]
    print_fitted(columns, right, spare=[list(header).index(name) for name in spare])


def _is_number(cell: str) -> bool:
    head = cell.split(" ")[0].rstrip("%")
    return head in ("", "-") or head.replace(".", "", 1).replace("-", "", 1).isdigit()
