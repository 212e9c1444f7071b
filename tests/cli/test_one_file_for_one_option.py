"""A file that is given for two things is refused, whatever the order of the options."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import click
import pytest

from support.cli_runner import Runner
from support.store_commands import every_command
from taqstore.cli.output import Source, Target


def paths_of(command: click.Command) -> list[click.Option]:
    options = [p for p in command.params if isinstance(p, click.Option)]
    return [p for p in options if isinstance(p.type, click.Path)]


def pairs() -> list[tuple[str, str, str]]:
    return [
        (name, first.opts[-1], second.opts[-1])
        for name, command in every_command().items()
        for first, second in combinations(paths_of(command), 2)
        if Source in (type(first.type), type(second.type))
        if all(getattr(o.type, "file_okay", True) for o in (first, second))
    ]


def test_every_file_of_every_command_is_a_source_or_a_target() -> None:
    for name, command in every_command().items():
        for option in paths_of(command):
            assert isinstance(option.type, Source | Target), f"{name} {option.opts}"
    assert ("evaluate", "--weights", "--config") in pairs()
    assert ("evaluate", "--config", "--local-ckpt") in pairs()


@pytest.mark.parametrize(("name", "first", "second"), pairs())
def test_one_file_for_two_options(
    tmp_path: Path, taq: Runner, name: str, first: str, second: str
) -> None:
    file = tmp_path / "one.safetensors"
    file.write_bytes(b"as it was")
    (tmp_path / "link.safetensors").symlink_to(file)
    link = tmp_path / "link.safetensors"
    for options in ([first, file, second, link], [second, link, first, file]):
        done = taq(*name.split(), tmp_path / "s.zarr", *options)
        assert done.code == 2, done.err
        assert "are the same file" in done.err
        assert first in done.err
        assert second in done.err
        assert file.read_bytes() == b"as it was"
