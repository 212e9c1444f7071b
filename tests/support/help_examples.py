"""The examples of `--help` texts, and the folders that they run in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from support.docs_tables import root_context
from taqstore.cli import cli

_EXAMPLES = re.compile(r"^ *Examples?:\n(.*?)(?:\n *\n|\Z)", re.M | re.S)
_RUN = "cp -r store.zarr run.zarr"


@dataclass(frozen=True)
class Setting:
    """Where the examples of a command run.

    Parameters
    ----------
    folder
        As of `runs on: FOLDER`.
    within
        Folder in it that they run in.
    before
        Lines that make what the examples read.
    fresh
        Each example has a folder of its own: what one wrote would be in the way of the next.
    """

    folder: str = "live"
    within: str = "."
    before: tuple[str, ...] = (_RUN,)
    fresh: bool = False


SETTINGS = {
    "generate": Setting("prompts", before=()),
    "ingest": Setting("ingest", "run", before=()),
    "cache": Setting("latents", fresh=True),
    "collect": Setting("latents", fresh=True),
    "gptq": Setting("statistics", fresh=True),
    "adaround": Setting(fresh=True),
    "evaluate": Setting(before=(_RUN, "taqstore adaround run.zarr")),
    "gate": Setting(before=(_RUN, "taqstore export mlx run.zarr --weights gptq -o packed")),
    "query": Setting("ingest", before=("taqstore ingest run/calibration_data run.zarr",)),
    "report": Setting("narrow", before=()),
    "pull": Setting("narrow"),
    "push": Setting("narrow"),
    "diff": Setting(
        before=(
            _RUN,
            "cp -r store.zarr old.zarr",
            "taqstore generate new.zarr --model reference --num-images 4 --steps 4 --cfg 5",
            "taqstore collect new.zarr --stride 1",
            "taqstore export quant-config run.zarr -o theirs.json",
            "taqstore ingest theirs.json theirs.zarr",
        )
    ),
    "plan": Setting("latents", fresh=True),
    "merge": Setting(
        "empty",
        before=(
            "taqstore generate monday.zarr --model reference --num-images 2 --steps 4",
            "taqstore generate tuesday.zarr --model reference --num-images 2 --steps 4 --seed 9",
            "taqstore generate wednesday.zarr --model reference --num-images 1 --steps 4 --seed 20",
        ),
    ),
}
"""By the first word of a command; others have `Setting()`."""
NOT_RUN = {
    "sd3-medium": "its weights are not here, and no test fetches any",
    "s3://bucket/run.zarr": "no bucket is there; tests of their own have one",
}
"""Words of examples that cannot run, and why."""


def examples() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(command, its examples) of every command and subcommand that shows some."""
    for words, command in _commands((), cli):
        found = _EXAMPLES.search(click.unstyle(command.help or "").replace("\b", ""))
        if found:
            lines = re.sub(r"\\\n *", " ", found[1]).splitlines()
            yield " ".join(words), tuple(line.strip() for line in lines if line.strip())


def _commands(
    words: tuple[str, ...], command: click.Command
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name in command.list_commands(root_context()):
            inner = command.get_command(root_context(), name)
            assert inner is not None
            if words == ("plan",):
                continue  # the command itself, which shows its own examples
            yield from _commands((*words, name), inner)
