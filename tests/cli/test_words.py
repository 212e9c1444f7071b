"""One word, one meaning: earlier spellings are taken and not shown, and what is refused is told."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from support.cli_runner import Runner
from support.docs_tables import command_of
from taqstore.cli import COMMANDS
from taqstore.cli.common import Renamed

# Command, its word, the earlier spelling, a value that is taken, one that is refused.
RENAMED = [
    ("generate", "--num-images", "--images", "3", "0-2"),
    ("generate", "--timestep-shift", "--shift", "2.5", "mlp.fc2"),
    ("adaround", "--weight-bits", "--bits", "3", "9"),
    ("adaround", "--weight-group-size", "--group-size", "8", "0"),
    ("adaround", "--weight-clip", "--clip", "mse", "percentile"),
    ("adaround", "--time-groups", "--groups", "3", "1"),
    ("gptq", "--weight-bits", "--bits", "3", "9"),
    ("gptq", "--weight-group-size", "--group-size", "8", "-1"),
    ("gptq", "--weight-clip", "--clip", "mse", "percentile"),
    ("evaluate", "--weight-bits", "--bits", "3", "9"),
    ("evaluate", "--weight-group-size", "--group-size", "8", "0"),
    ("evaluate", "--time-groups", "--groups", "3", "1"),
    ("gate", "--weight-bits", "--bits", "3", "9"),
    ("gate", "--weight-group-size", "--group-size", "8", "0"),
    ("gate", "--time-groups", "--groups", "3", "1"),
    ("report", "--average", "--budget", "5", "1"),
    ("report", "--time-groups", "--groups", "3", "0"),
]


def test_every_renamed_option_is_here() -> None:
    found = {
        (name, option.opts[0])
        for name in COMMANDS
        for option in command_of(name).params
        if isinstance(option, Renamed)
    }
    assert found == {(name, word) for name, word, *_ in RENAMED} | {("adaround", "--shifted-sites")}


@pytest.mark.parametrize(("name", "word", "old", "fit", "unfit"), RENAMED)
def test_an_earlier_spelling_is_taken_and_not_shown(
    taq: Runner, tmp_path: Path, name: str, word: str, old: str, fit: str, unfit: str
) -> None:
    shown = taq(name, "--help").out
    assert word in shown
    assert not re.search(rf"{old}(?![\w-])", shown)
    (tmp_path / "p.txt").write_text("a zero\n", encoding="utf-8")
    others = {
        "generate": ["--model", "reference", "--prompts", tmp_path / "p.txt"],
        "report": ["-o", tmp_path / "r.html"],
        "adaround": ["--rule", "timed"],
        "gptq": ["--grid", "symmetric"],
        "gate": ["--variant", "rtn"],
    }.get(name, [])
    for spelling in (word, old):
        refused = taq(name, tmp_path / "no.zarr", *others, spelling, unfit)
        assert refused.code == 2
        assert f"Invalid value for '{word}'" in refused.err
    if name != "generate":  # which would make the store
        for spelling in (word, old):
            taken = taq(name, tmp_path / "no.zarr", *others, spelling, fit)
            assert (taken.code, "no store here" in taken.err) == (1, True), taken.err


def test_a_word_means_one_thing_in_all_commands() -> None:
    """Options of one spelling are of one kind: a count is not a list of ids."""
    kinds: dict[str, set[str]] = {}
    for name in COMMANDS:
        command = command_of(name)
        for option in command.params:
            if isinstance(option, click.Option) and not isinstance(option.type, click.Path):
                for spelling in option.opts:
                    kinds.setdefault(spelling, set()).add(_kind(option))
    several = {word: sorted(found) for word, found in kinds.items() if len(found) > 1}
    # A step of the schedule, which a selection may name as a range too; and formats of pictures
    # and of numbers.
    assert several == {
        "--step": ["integer range  False", "text  False"],
        "--format": ["choice png,svg,pdf False", "text  False"],
    }


def _kind(option: click.Option) -> str:
    words = ",".join(option.type.choices) if isinstance(option.type, click.Choice) else ""
    return f"{option.type.name} {words} {option.is_flag}"
