"""Whatever fails inside a model is one line with its place; bugs of ours keep their traceback."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.evaluate import evaluate
from taqstore.pipelines.models.failures import ModelError
from taqstore.pipelines.models.rounding import Settings

from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store, without
from support.thinned import crossed
from taqstore import open_store
from taqstore.cli import cli
from taqstore.run.mode import Mode

pytestmark = needs_models
CLI = Path(__file__).parents[2] / "support" / "live_cli.py"
QUICK = Settings(bits=3, iterations=2, batch_size=4)
COMMANDS: dict[str, Callable[..., object]] = {
    "cache": lambda store, weights: cache(store, local_ckpt=weights, mode=Mode(force=True)),
    "collect": lambda store, weights: collect(store, local_ckpt=weights, mode=Mode(force=True)),
    "adaround": lambda store, weights: adaround(
        store, local_ckpt=weights, settings=QUICK, mode=Mode(force=True)
    ),
    "evaluate": lambda store, weights: evaluate(store, local_ckpt=weights),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("failures"), TINY)


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    shutil.copy(filled.with_name("w.safetensors"), tmp_path)
    return Path(shutil.copytree(filled, tmp_path / "run.zarr"))


@pytest.fixture(scope="module")
def store_of(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A store for each command, which makes anew what an error left there."""

    @functools.cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(filled.with_name("w.safetensors"), folder)
        return Path(shutil.copytree(filled, folder / "run.zarr"))

    return made


def broken(error: Exception) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        raise error

    return call


def feed_forward() -> Any:
    from diffusionkit.mlx.mmdit import FFN

    return FFN


@pytest.mark.parametrize(("error", "name"), crossed(
    [AssertionError(), ValueError("[matmul] shapes\ndo not fit"), KeyError("k"), IndexError(3),
     RuntimeError("[metal::malloc] Unable to allocate 9 bytes"), MemoryError(), OSError(5, "I/O"),
     AttributeError("no such thing"), ZeroDivisionError("by zero")],
    COMMANDS,
))  # fmt: skip
def test_an_error_of_the_model_is_one_line_with_its_layer(
    name: str,
    error: Exception,
    store_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = store_of(name)
    monkeypatch.setattr(feed_forward(), "__call__", broken(error))
    with pytest.raises(ModelError) as told:
        COMMANDS[name](store, store.with_name("w.safetensors"))
    text = str(told.value)
    assert "\n" not in text
    assert type(error).__name__ in text
    assert "mm0" in text
    assert ("image 0" if name != "adaround" else "iteration 0") in text
    assert told.value.__cause__ is error


def test_a_bug_of_a_hook_keeps_its_type(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our reducers raise inside a forward is no error of the model."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        collect(
            store, local_ckpt=store.with_name("w.safetensors"), reducer=fail, mode=Mode(force=True)
        )


def _words(store: Path, prompt: str = "a cat") -> list[str]:
    prompts = store.with_name("more.txt")
    prompts.write_text(prompt, encoding="utf-8")
    weights = str(store.with_name("w.safetensors"))
    return ["--model", "tiny", "--prompts", str(prompts), "--local-ckpt", weights, "--steps", "2"]


def test_generate_names_image_and_step(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = feed_forward().__call__, []

    def late(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 10:
            raise RuntimeError("late")
        return run(self, *arguments)

    monkeypatch.setattr(feed_forward(), "__call__", late)
    words = ["generate", str(tmp_path / "s.zarr"), "--images", "9", *_words(store)]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, ModelError)
    assert result.exception.places[0].startswith("image ")
    assert result.exception.places[1].startswith("step ")
    assert result.exception.places[2].startswith("mm")


def test_a_prompt_that_cannot_be_encoded_is_named_before_anything_is_made(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import live_models

    monkeypatch.setattr(live_models, "encode_text", broken(KeyError("☃")))
    with pytest.raises(ModelError, match=r"prompt 'a snowman ☃'.*KeyError"):
        CliRunner().invoke(
            cli, ["generate", str(tmp_path / "s.zarr"), "--images", "1",
                  *_words(store, "a snowman ☃")], catch_exceptions=False,
        )  # fmt: skip


def test_the_traceback_is_shown_where_it_is_asked_for(store: Path, tmp_path: Path) -> None:
    """The command as a user has it: exit code 1, one line, and more with TAQSTORE_DEBUG."""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\0" * 100)
    words = [*_words(store), "--images", "1", "--local-ckpt", str(bad)]
    command = [sys.executable, str(CLI), "generate", str(tmp_path / "s.zarr"), *words]
    quiet = {k: v for k, v in os.environ.items() if k != "TAQSTORE_DEBUG"}
    for environment, shown in ((quiet, False), (quiet | {"TAQSTORE_DEBUG": "1"}, True)):
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=120, check=False
        )
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 1
        assert ": tiny does not load (found " in lines[-1]
        assert ("Traceback (most recent call last):" in lines) == shown
        assert (len(lines) > 1) == shown
    assert not (tmp_path / "s.zarr").exists()


def test_the_model_is_whole_again_after_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = store.with_name("w.safetensors")
    without(store, "activations/mlp.fc2")
    with monkeypatch.context() as patch:
        patch.setattr(feed_forward(), "__call__", broken(RuntimeError("once")))
        with pytest.raises(ModelError):
            collect(store, sites=["mlp.fc2"], local_ckpt=weights)
    assert collect(store, sites=["mlp.fc2"], local_ckpt=weights).written > 0
    assert open_store(store)["activations/mlp.fc2"].sizes["batch"] > 0
