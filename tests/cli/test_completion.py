"""What a shell completes: typed into a real one, and for every parameter that has a vocabulary."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from support.cli_runner import Runner
from support.hostile import make_small, nested
from support.store_commands import distinct_commands, every_command
from support.typed_lines import TAB, Bash, with_command
from support.worded_store import make_worded_store
from taqstore.cli.completed import Named, StoreAddress
from taqstore.names import SITES

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"numpy", "xarray", "zarr", "dask", "pandas", "mlx", "matplotlib", "diffusionkit"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run.zarr`, `other.zarr`, `prompts.txt`, `w.safetensors`, and folders to go through."""
    found = tmp_path_factory.mktemp("typed")
    store = make_worded_store(found)
    shutil.move(str(found / "other.zarr"), str(found / "kept" / "other.zarr"))
    (found / "my runs" / "a b").mkdir(parents=True)
    (found / "my runs" / "a b" / "$(rm x).zarr").symlink_to(store)
    (found / "run.zarr.notes").mkdir()
    return found


class Line:
    """Completions of a line, as bash is told of them."""

    def __init__(self, taq: Runner, patch: pytest.MonkeyPatch) -> None:
        self._taq, self._patch = taq, patch

    def __call__(self, line: str) -> list[str]:
        self._patch.setenv("_TAQSTORE_COMPLETE", "bash_complete")
        self._patch.setenv("COMP_WORDS", f"taqstore {line}")
        self._patch.setenv("COMP_BREAKS", " \t\n\"'@><=;|&(:")
        done = self._taq()
        assert (done.code, done.err) == (0, "")
        return done.out.split("\n")[:-1] if done.out.strip() else []


@pytest.fixture
def line(taq: Runner, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Line:
    monkeypatch.chdir(folder)
    return Line(taq, monkeypatch)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_a_line_typed_into_bash(folder: Path, tmp_path: Path) -> None:
    for name in ("run.zarr", "my runs", "prompts.txt"):
        (tmp_path / name).symlink_to(folder / name)
    with Bash(tmp_path) as bash:
        bash.enter("source <(taqstore completion bash)")
        query, made = "taqstore query run.zarr activations/mlp.fc2", "taqstore generate x --prompts"
        latents = "taqstore query run.zarr latents"
        for typed, words in {
            f"taqstore inf{TAB}x": "taqstore info x",
            f"taqstore info ru{TAB}x": "taqstore info run.zarr x",
            f"taqstore info run.zarr/{TAB}x": "taqstore info run.zarr/x",
            f"taqstore query run.zarr lat{TAB}pro{TAB}x": f"{latents} prompt x",
            f"{query} --laye{TAB}mm0.i{TAB}x": f"{query} --layer mm0.img x",
            f"{query} --layer=mm0.img,mm1.t{TAB}x": f"{query} --layer=mm0.img,mm1.txt x",
            f"{query} --reduce ch{TAB}ma{TAB}x": f"{query} --reduce channel=max x",
            f"{query} --reduce=step=med{TAB}x": f"{query} --reduce=step=median x",
            f"taqstore analyze sca{TAB}run.zarr --clip absm{TAB}x": (
                "taqstore analyze scales run.zarr --clip absmax x"
            ),
            f"{made} pro{TAB}x": f"{made} prompts.txt x",
        }.items():
            assert bash.words(typed) == words.split()
        parts = bash.words(f"taqstore info my{TAB}a{TAB}{TAB}x")
        assert parts == ["taqstore", "info", "my runs/a b/$(rm x).zarr", "x"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.zarr").symlink_to(folder / "run.zarr")
    for typed, found in {"latents pro": "prompt", "activations/mlp.fc2 --layer mm0.img,mm1.i":
                         "mm0.img,mm1.img"}.items():  # fmt: skip
        script = f"complete -C 'taqstore query run.zarr {typed}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"taqstore completion fish | source; {script}"],
            capture_output=True, text=True, check=True, cwd=tmp_path, env=with_command(tmp_path),
        )  # fmt: skip
        assert done.stdout.split() == [found]
        shutil.rmtree(tmp_path / "bin")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_of_their_shell(taq: Runner, tmp_path: Path, shell: str) -> None:
    done = taq("completion", shell)
    assert done.code == 0
    assert f"_TAQSTORE_COMPLETE={shell}_complete" in done.out
    (tmp_path / "script").write_text(done.out)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", tmp_path / "script"], check=False).returncode == 0


def test_stores_and_ways_to_them(line: Line) -> None:
    assert line("info ") == [
        "open,kept/",
        "open,my\\ runs/",
        "plain,run.zarr",
        "open,run.zarr.notes/",
    ]
    assert line("info run.zarr/") == []
    assert line("info run.zarr/activations/") == []
    assert line("info kept/o") == ["plain,kept/other.zarr"]
    assert line("info s3://bucket/") == []
    assert line("info nowhere/") == []


def parameters() -> Iterator[tuple[str, str]]:
    """Command and option or argument that is completed from a vocabulary."""
    for name, command in distinct_commands().items():
        for one in command.params:
            if isinstance(one.type, Named) and one.opts[0] not in ("--cuts", "--order"):
                yield name, one.opts[0]


@pytest.mark.parametrize(("name", "option"), list(parameters()))
def test_every_vocabulary_has_words_of_this_store(line: Line, name: str, option: str) -> None:
    command = every_command()[name]
    before = []
    for one in command.params:
        if one.opts[0] == option and isinstance(one, click.Argument):
            break
        store = isinstance(one.type, StoreAddress)
        if isinstance(one, click.Option) or not (one.required or store):
            continue
        before.append(
            "run.zarr" if store else "activations/mlp.fc2" if one.name == "group" else "range"
        )
    words = [*before, "--analysis", "scales"] if option == "--option" else before
    if option.startswith("--"):
        words = [*words, option]
    found = line(f"{name} {' '.join(words)} ")
    assert found
    first = found[0].partition(",")[2]
    again = line(f"{name} {' '.join(words)} {first[:2]}")
    assert found[0] in again, "what was offered is offered to who has begun it"
    assert all(one.partition(",")[2].startswith(first[:2]) for one in again)


def test_words_are_those_of_the_store(line: Line) -> None:
    def values(typed: str) -> list[str]:
        return [one.partition(",")[2] for one in line(typed)]

    assert values("query run.zarr second_moments/") == ["second_moments/mlp.fc2"]
    assert values("analyze scales run.zarr --site mlp") == ["mlp.fc1", "mlp.fc2"]
    assert values("analyze scales run.zarr --site mlp.fc2 --layer mm1") == ["mm1.img", "mm1.txt"]
    assert set(values("adaround run.zarr --shifted-sites ")) == set(SITES)
    assert values("adaround run.zarr --blocks mm0,") == ["mm0,mm1", "mm0,mm2"]
    assert values("evaluate run.zarr --variant gp") == ["gptq"]
    assert "gptq/a8-static" in values("evaluate run.zarr --variant gptq/")
    assert values("evaluate run.zarr --weights ") == ["gptq"]
    assert values("sensitivity run.zarr --targets mm0.img.mlp.") == [
        "mm0.img.mlp.fc1",
        "mm0.img.mlp.fc2",
    ]
    assert values("diff run.zarr run.zarr --weights ") == ["gptq"]
    assert values("analyze frontier run.zarr --format rtn-w2") == ["rtn-w2"]
    assert values("collect run.zarr --second-moment ") == ["full"]


def test_a_store_that_is_being_changed_has_its_words(line: Line, folder: Path) -> None:
    copy = folder / "kept" / "changing.zarr"
    shutil.copytree(folder / "run.zarr", copy)
    document = json.loads((copy / "zarr.json").read_text())
    del document["consolidated_metadata"]  # as a writer leaves it while it works
    (copy / "zarr.json").write_text(json.dumps(document))
    try:
        assert line("query kept/changing.zarr latents see") == ["plain,seed"]
        assert "plain,mm0.img" in line("query kept/changing.zarr activations/mlp.fc2 --layer ")
    finally:
        shutil.rmtree(copy)


BROKEN = {
    "nothing": b"",
    "no JSON": b'{"taqstore"',
    "a list": b'["taqstore"]',
    "deep": b'"taqstore"' + nested(),
    "attributes of another kind": b'{"attributes": {"taqstore": 3}}',
    "groups of another kind": b'{"attributes": {"taqstore": {"format": 2, "groups": 7}}}',
    "documents of another kind": b'{"attributes": {"taqstore": {"format": 2, "groups": ["a"]}},'
    b' "consolidated_metadata": {"metadata": {"a/x": 3}}}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_store_is_passed_over_in_silence(line: Line, tmp_path: Path, name: str) -> None:
    store = make_small(tmp_path / "s.zarr").path
    (store / "zarr.json").write_bytes(BROKEN[name])
    for typed in ("query {s} ", "query {s} a ", "query {s} a --layer ", "evaluate {s} --variant g"):
        assert set(line(typed.format(s=store))) <= {"plain,a"}


def test_nothing_is_offered_that_a_shell_would_obey(line: Line, tmp_path: Path) -> None:
    store = make_small(tmp_path / "s.zarr")
    names = ["$(touch x)", "a b", "a;b", "`x`", "../../x", "-rf", "a\nb", "\x1b[2J", "fine/one"]
    text = (store.path / "zarr.json").read_text()
    document = json.loads(text)
    document["attributes"]["taqstore"]["groups"] = names
    (store.path / "zarr.json").write_text(json.dumps(document))
    assert line(f"query {store.path} ") == ["plain,fine/one"]


def test_a_pipe_is_not_waited_for(line: Line, tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    os.mkfifo(tmp_path / "s.zarr" / "zarr.json")
    assert line(f"query {tmp_path}/s.zarr ") == []
    assert line(f"info {tmp_path}/") == [f"open,{tmp_path}/s.zarr/"]


def test_a_shell_does_not_wait_for_arrays(folder: Path) -> None:
    program = (
        "import os, sys\n"
        "os.environ |= {'_TAQSTORE_COMPLETE': 'bash_complete', 'COMP_BREAKS': '=:',\n"
        "    'COMP_WORDS': 'taqstore evaluate run.zarr --variant gptq/'}\n"
        "sys.argv = ['taqstore']\n"
        "from taqstore.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "gptq/a16" in done.stdout
    assert not set(done.stderr.split()) & HEAVY
