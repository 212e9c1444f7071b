"""Whatever has a vocabulary, mistyped by a letter, is refused by naming what was meant.

The cases are made from the table of commands: a new option has to do it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from support.cli_runner import Runner
from support.store_commands import calls, distinct_commands, every_command
from support.worded_store import make_worded_store
from taqstore.cli import cli
from taqstore.cli.completed import Asked, Named, StoreAddress
from taqstore.cli.words import Word, WordGroup

# Texts that are of no list: numbers, ranges, prompts.
FREE = {"--negative-prompt", "--images", "--image", "--step", "--sigma", "--batch", "--channel",
        "--shard", "--size", "--staging", "--explorer", "--host", "--token", "--allow-host",
        "--allow-origin"}  # fmt: skip
# What makes a new name or a new store takes any.
NEW = {("generate", "store"), ("ingest", "store"), ("merge", "out"),
       ("pull", "target"), ("push", "target")}  # fmt: skip
NEW_SETS = {"adaround", "gptq", "ingest"}
# What a command needs besides, so that it comes to the word.
GROUP = "activations/mlp.fc2"
MODEL = ["--local-ckpt", "{o}/w.safetensors"]
BESIDES: dict[str, list[str]] = {
    "adaround --start": [*MODEL, "--batch-size", "2"],
    "adaround --blocks": MODEL,
    "adaround --shifted-sites": MODEL,
    "cache --blocks": [*MODEL, "--resume"],
    "collect --sites": MODEL,
    "collect --per-channel-histogram": MODEL,
    "evaluate --blocks": MODEL,
    "evaluate --variant": MODEL,
    "evaluate --weights": [*MODEL, "--variant", "rtn"],
    "gptq --sites": MODEL,
    "gate --variant": MODEL,
    "sensitivity --format": [*MODEL, "--dry-run"],
    "sensitivity --targets": [*MODEL, "--dry-run"],
    "sensitivity --sites": [*MODEL, "--dry-run"],
    "sensitivity --blocks": [*MODEL, "--dry-run"],
    "diff --analysis": [GROUP, "tensor_max"],
    "diff --option": [GROUP, "tensor_max", "--analysis", "scales"],
    "diff --weights": [GROUP, "tensor_max", "--analysis", "smooth"],
    "diff variable": [GROUP],
    **{
        f"analyze smooth --{word}": ["--weights", "gptq"]
        for word in ("source", "site", "layer", "with")
    },
    "export mlx --weights": ["--base", "{o}/w.safetensors"],
    "collect --enough-clip": ["--until-enough", "0.1"],
}
# Where the longest word of the vocabulary is not one that this would take.
WORDS = {
    "analyze frontier --format": "rtn-w4",
    "diff --by": "jensen_shannon",
    "merge --group": GROUP,
}
VALUES = {"--reduce": "max", "--option": "absmax", "--site-bits": "4"}
SUFFIXES = {"imatrix": ".dat", "safetensors": ".safetensors", "safetensors-mlx": ".safetensors",
            "act-scales": ".npz"}  # fmt: skip


def test_what_is_planned_is_the_command_itself() -> None:
    commands = every_command()
    planned = [name for name in commands if name.startswith("plan ")]
    assert len(planned) > 3
    assert all(commands[name] is commands[name.removeprefix("plan ")] for name in planned)


def parameters() -> list[tuple[str, click.Parameter]]:
    return [(name, one) for name, command in distinct_commands().items() for one in command.params]


def spelled(parameter: click.Parameter) -> str:
    return parameter.opts[0]


def test_every_text_is_of_a_vocabulary_or_free() -> None:
    for name, one in parameters():
        assert type(one.type) is not click.Choice, f"{name} {spelled(one)}: use cli.words.Word"
        if type(one.type) is click.types.StringParamType:
            assert spelled(one) in FREE, f"{name} {spelled(one)}: what may be typed here?"


def tried() -> Iterator[tuple[str, str]]:
    """Command and parameter."""
    for name, one in parameters():
        base = name.removeprefix("plan ")
        new = (base, one.name) in NEW or (spelled(one) == "--set" and base in NEW_SETS)
        numbers = isinstance(one.type, Named) and spelled(one) in ("--cuts", "--order")
        if isinstance(one.type, Word | Named | StoreAddress) and not new and not numbers:
            yield name, spelled(one)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_worded_store(tmp_path_factory.mktemp("worded"))


def typed(store: Path, work: Path, name: str, option: str) -> tuple[list[str], str]:
    """The command with the word mistyped, and the word that is meant."""
    command, base = every_command()[name], name.removeprefix("plan ")
    parameter = next(one for one in command.params if spelled(one) == option)
    known = dict(reversed(list(calls(store, work, group=GROUP, endless=True))))
    start = "plot diff" if option == "--against" else name
    line = next(line for words, line in known.items() if f"{words} ".startswith(f"{start} "))
    line = [f"{one}{SUFFIXES.get(name.split()[-1], '')}" if one.startswith(str(work)) else one
            for one in line]  # fmt: skip
    besides = [word.format(o=store.parent) for word in BESIDES.get(f"{base} {option}", [])]
    if name != base:  # a plan writes no item anyhow
        besides = [word for word in besides if word not in ("--dry-run", "--resume")]
    word = WORDS.get(f"{base} {option}") or _word(parameter, command, store)
    bare, equals, _ = word.partition("=")
    wrong = f"{bare}{bare[-1]}{equals}{VALUES[option] if equals else ''}"  # a letter typed twice
    if isinstance(parameter, click.Option):
        return [*line, *besides, option, wrong], word
    if parameter.required or isinstance(parameter.type, StoreAddress):
        place = [one for one in command.params if isinstance(one, click.Argument)]
        line[len(name.split()) + place.index(parameter)] = wrong
        return [*line, *besides], word
    return [*line, *besides, wrong], word


def _word(parameter: click.Parameter, command: click.Command, store: Path) -> str:
    if isinstance(parameter.type, StoreAddress):
        return str(store)
    if isinstance(parameter.type, Word):
        return max(parameter.type.choices, key=len)
    assert isinstance(parameter.type, Named)
    params = {one.name: str(store) for one in command.params if isinstance(one.type, StoreAddress)}
    context = click.Context(command)
    context.params = {**params, "group": GROUP, "analysis": "scales"}
    words = parameter.type.words(Asked(context, store=parameter.type.store))
    return max(words, key=len)


@pytest.mark.parametrize(("name", "option"), list(tried()))
def test_a_mistyped_word_is_told_what_was_meant(
    store: Path, tmp_path: Path, taq: Runner, name: str, option: str
) -> None:
    line, word = typed(store, tmp_path, name, option)
    done = taq(*line)
    assert done.code in (1, 2), done.err
    assert "did you mean" in done.err, done.err
    assert word.partition("=")[0] in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name, command in distinct_commands().items()
        for one in command.params
        for option in (*one.opts, *one.secondary_opts)
        if option.startswith("--")
    ],
)
def test_a_mistyped_option_is_told_which(taq: Runner, name: str, option: str) -> None:
    done = taq(*name.split(), f"{option}{option[-1]}")
    assert done.code == 2
    assert f"Did you mean '{option}'?" in done.err


@pytest.mark.parametrize("word", [" ".join(words) for words in [
    *([name] for name in cli.list_commands(click.Context(cli))),
    *(name.split() for name in every_command() if " " in name),
]])  # fmt: skip
def test_a_mistyped_command_is_told_which(taq: Runner, word: str) -> None:
    done = taq(*f"{word}{word[-1]}".split(), "run.zarr")
    assert done.code == 2
    assert f"did you mean {word.split()[-1]}?" in done.err


def test_groups_of_commands_are_word_groups() -> None:
    names = cli.list_commands(click.Context(cli))
    groups = [cli, *(cli.get_command(click.Context(cli), name) for name in names)]
    assert all(isinstance(one, WordGroup) for one in groups if isinstance(one, click.Group))


@pytest.mark.parametrize(
    ("word", "meant"),
    [("scales", "analyze scales"), ("imatrix", "export imatrix"), ("heatmap", "plot heatmap")],
)
def test_a_word_of_another_command_is_told_where_it_is(taq: Runner, word: str, meant: str) -> None:
    done = taq(word, "run.zarr")
    assert done.code == 2
    assert f"did you mean taqstore {meant}?" in done.err


def test_one_dash_too_few(taq: Runner) -> None:
    done = taq("query", "run.zarr", "latents", "-layer", "mm0.img")
    assert done.code == 2
    assert "Did you mean '--layer'?" in done.err
