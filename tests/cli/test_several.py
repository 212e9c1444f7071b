"""`--with STORE`: commands that read a store read several as one; `pull` and `push` of a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli_runner import Runner
from taqstore import open_store
from taqstore.cli import COMMANDS, cli
from taqstore.testing import RunShape, make_store
from taqstore.upkeep import merge

SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
SITE = "mlp.fc2"
READING = ("info", "query", "analyze", "export", "plot", "report")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    paths = [make_store(folder / f"{s}.zarr", shape=SHAPE, seed=s) for s in range(3)]
    merge(*paths, folder / "all.zarr", renumber=True)
    return [*paths, folder / "all.zarr"]


QUESTIONS = [
    ("query", "{}", f"activations/{SITE}", "max", "--reduce", "channel=max", "--csv"),
    ("analyze", "scales", "{}", "--site", SITE, "--csv"),
    ("analyze", "scales", "{}", "--site", SITE, "--csv", "--scheduler", "processes"),
    ("analyze", "bits", "{}", "--json"),
    ("info", "{}", f"activations/{SITE}", "--json"),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q[0]}-{q[-1]}")
def test_answers_are_those_of_the_merged_store(
    taq: Runner, stores: list[Path], question: tuple[str, ...]
) -> None:
    *parts, whole = map(str, stores)
    others = [word for path in parts[1:] for word in ("--with", path)]
    ours = taq(*[w.format(parts[0]) for w in question], *others, "--renumber")
    theirs = taq(*[w.format(whole) for w in question])
    assert (ours.code, theirs.code) == (0, 0)
    assert _without_digests(ours.out) == _without_digests(theirs.out) != ""


def _without_digests(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "digest" not in line)


def test_files_are_those_of_the_merged_store(
    taq: Runner, stores: list[Path], tmp_path: Path
) -> None:
    *parts, whole = map(str, stores)
    others = [word for path in parts[1:] for word in ("--with", path)]
    done: Any
    for name, one, given in (("a", whole, []), ("b", parts[0], [*others, "--renumber"])):
        folder = tmp_path / name
        folder.mkdir()
        done = [
            taq("export", "act-scales", one, "-o", folder / "s.npz", *given),
            taq("plot", "channelmap", one, "-o", folder / "p", "--layer", "mm0.img", *given),
        ]
        assert [one.code for one in done] == [0, 0], [one.err for one in done]
    small = ("--bits", "8", "--average", "8", "--time-groups", "1")
    done = taq("report", parts[0], "-o", tmp_path / "r.html", *small, *others, "--renumber")
    assert done.code == 0, done.err
    for written in ("s.npz", "p/channelmap_mm0_img_mlp_fc2.csv"):
        assert (tmp_path / "a" / written).read_bytes() == (tmp_path / "b" / written).read_bytes()


def test_every_command_that_reads_one_store_and_writes_none_has_it() -> None:
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        if name in ("analyze", "export"):
            word = {"analyze": "scales", "export": "act-scales"}[name]
            command = command.get_command(None, word)  # type: ignore[union-attr, arg-type]
        options = {option for param in command.params for option in param.opts}  # type: ignore[union-attr]
        assert ({"--with", "--renumber"} <= options) == (name in READING), name


def test_what_does_not_go_together(taq: Runner, stores: list[Path]) -> None:
    alone = taq("info", stores[0], "--renumber")
    assert alone.code == 2
    assert "--renumber goes with --with" in alone.err
    same = taq("info", stores[0], "--with", stores[1])
    assert same.code == 1
    assert f"both {stores[0]} and {stores[1]} have batch" in same.err
    lost = taq("info", stores[0], "--with", stores[0].with_name("none"))
    assert lost.code == 1
    assert "no store here" in lost.err


def test_pull_and_push(taq: Runner, stores: list[Path], tmp_path: Path) -> None:
    whole, out = stores[-1], tmp_path / "out"
    chosen = ("--site", "fc2_in", "--step", "5:", "--layer", "mm*.img")
    planned = json.loads(taq("pull", whole, out, *chosen, "--dry-run", "--json").out)
    assert planned["groups"][f"activations/{SITE}"]["to_write"] == 6
    assert not out.exists()
    done = taq("pull", whole, out, *chosen)
    assert done.out.splitlines()[1].split()[:3] == [f"activations/{SITE}", "6", "0"]
    assert open_store(out)[f"activations/{SITE}"].sizes["step"] == 2
    again = json.loads(taq("push", whole, out, *chosen, "--json").out)
    assert again["groups"][f"activations/{SITE}"]["skipped"] == 6
    commands = [record["command"] for record in open_store(out).provenance]
    assert commands == ["merge", "pull", "push"]
    wrong = taq("pull", whole, out, "--step", "5")
    assert wrong.code == 1
    assert "choose as it was chosen before, or another store" in wrong.err
    none = taq("pull", whole, tmp_path / "none", "--layer", "mm7.img")
    assert none.code == 1
    assert "nothing matches --layer mm7.img" in none.err
    assert not (tmp_path / "none").exists()
    assert taq("pull", whole, whole).code == 1
    assert taq("pull", whole).code == 2
