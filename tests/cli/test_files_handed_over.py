"""Files that a user hands over: whatever is in them, one line and exit 1, or misuse and exit 2."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from support.cli_runner import Runner
from support.hostile import make_small, nested
from support.limited import complaints, run_limited
from support.store_commands import calls, every_command
from taqstore.cli import main
from taqstore.errors import LONGEST, SourceError, TaqError, printable, problem
from taqstore.files.safetensors import read_metadata, read_safetensors
from taqstore.files.weight_absmax import weight_absmax
from taqstore.kinds.weight_files import read_quant_config, read_quantized
from taqstore.testing import RunShape, make_run_folder


def _config(**changes: Any) -> dict[str, Any]:
    entry = {"bits": 8, "scale": 1.0, **changes}
    return {
        "version": "4",
        "per_timestep": {"0": {"mm0.img.mlp.fc2": entry}},
        "sigma_map": {"0": 1},
    }


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _tensor(**changes: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}
    name = "mm0.img.mlp.fc2.weight"
    return _safetensors(json.dumps({name: entry}).encode(), b"\0" * 8)


# What JSON may say and no reader expects; the same is tried in every kind of file.
ODD: dict[str, Any] = {
    "10^400": 10**400,
    "-10^400": -(10**400),
    "infinity": float("inf"),
    "no number": float("nan"),
    "a ragged list": [[1], [1, 2], 3],
    "a list": [1.0],
    "an object": {"a": 1},
    "a string": "\x1b[2J" * 100,
    "nothing": None,
    "true": True,
    "less than nothing": -1,
    "2^63": 1 << 63,
}

FILES: dict[str, bytes] = {
    "nothing": b"",
    "bytes that are no text": b"\xff\xfe\x00",
    "JSON 10^5 deep": nested(),
    "objects 10^5 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "JSON 900 deep": b'{"a": ' * 900 + b"1" + b"}" * 900,
    "a number of 10^5 digits": b'{"version": ' + b"9" * 100_000 + b"}",
    "a list": b"[]",
    **{f"scale is {name}": json.dumps(_config(scale=odd)).encode() for name, odd in ODD.items()},
    **{f"bits are {name}": json.dumps(_config(bits=odd)).encode() for name, odd in ODD.items()},
    **{
        f"sigma is {name}": json.dumps({**_config(), "sigma_map": {"0": odd}}).encode()
        for name, odd in ODD.items()
    },
    "a header 10^5 deep": _safetensors(nested()),
    "a header of a list": _safetensors(b"[]"),
    "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    **{f"shape is {name}": _tensor(shape=odd) for name, odd in ODD.items()},
    **{f"shape holds {name}": _tensor(shape=[odd, 1]) for name, odd in ODD.items()},
    **{f"offsets hold {name}": _tensor(data_offsets=[0, odd]) for name, odd in ODD.items()},
    **{f"type is {name}": _tensor(dtype=odd) for name, odd in ODD.items()},
    "no outputs": _tensor(shape=[0, 4], data_offsets=[0, 0]),
    "more than NumPy counts": _tensor(shape=[0, 1 << 62], data_offsets=[0, 0]),
    "100 axes": _tensor(shape=[1] * 100),
}
TRIED = ("JSON 10^5 deep", "a header 10^5 deep", "scale is 10^400")
VARIANTS = {
    "--weights": ["--variant", "adaround"],
    "--config": ["--variant", "rtn/config"],
    "--allocation": ["--variant", "mixed"],
}
# A line of text is a prompt, whatever it says: what these read is looked at, and nothing run.
DRY = {"gate": ["--variant", "rtn", "--dry-run"], "sensitivity": ["--dry-run"]}
SUFFIXES = {"--config": ".json", "--weights": ".safetensors"}


@pytest.mark.parametrize("name", FILES)
def test_readers_refuse_what_they_cannot_read(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file.safetensors"
    file.write_bytes(FILES[name])
    for reader in (
        read_quant_config,
        read_quantized,
        read_metadata,
        weight_absmax,
        lambda path: list(read_safetensors(path)),
    ):
        with suppress(TaqError):
            reader(file)
    with pytest.raises(TaqError) as refused:
        read_quant_config(file)
    assert str(refused.value) == printable(str(refused.value))


def options_that_take_a_file() -> Iterator[tuple[str, str]]:
    """Command and option, for every option of every command that names a file to be read."""
    for name, command in every_command().items():
        for parameter in command.params:
            kind = parameter.type
            if isinstance(kind, click.Path) and kind.exists and isinstance(parameter, click.Option):
                yield name, parameter.opts[0]


def test_every_file_of_every_command_may_hold_anything(tmp_path: Path) -> None:
    store = make_small(tmp_path / "s.zarr").path
    known = dict(reversed(list(calls(store, tmp_path, endless=True))))
    options = list(options_that_take_a_file())
    assert {("evaluate", "--config"), ("evaluate", "--weights")} <= set(options)
    chosen = [n for n in FILES if " is " not in n and " hold" not in n and " are " not in n]
    tried: list[tuple[str, list[object]]] = []
    for number, name in enumerate((*chosen, "scale is 10^400", "shape is 10^400")):
        for command, option in options:
            suffix = SUFFIXES.get(option, ".txt")
            file = tmp_path / f"{number}{suffix}"
            file.write_bytes(FILES[name])
            runs = command == "evaluate"  # a model, for seconds, before it looks at a file
            if option in known.get(command, ["--prompts"]) or (runs and name not in TRIED):
                continue
            if option != "--local-ckpt" or not runs:
                judged = runs or command == "gate"
                more = [*(VARIANTS.get(option, []) if judged else []), *DRY.get(command, [])]
                line = [*known[command], *_model_of(command, known[command]), *more, option, file]
                tried.append((f"{command} {option} {name}", line))
    done = run_limited(tried)
    assert complaints(done) == []
    assert {call.code for call in done} <= {0, 1, 2}
    for name in ("--config JSON 10^5 deep", "--weights a header 10^5 deep"):
        (call,) = (call for call in done if call.name == f"evaluate {name}")
        assert "JSON" in call.error, "the file was not read"


def _model_of(command: str, known: list[str]) -> list[str]:
    """A model, for commands that ask which one made the latents."""
    takes = any("--model" in parameter.opts for parameter in every_command()[command].params)
    return ["--model", "reference"] if takes and "--model" not in known else []


def test_lines_are_bounded_and_a_terminal_does_not_obey_them(
    tmp_path: Path, taq: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "a\x1b[2J\r\n\x00\x07\u202e\ud800" + "x" * 5000
    for text in (
        problem(hostile, where=hostile, found=hostile, remedy="see \x1b[1m"),
        printable(hostile),
        str(SourceError(problem(hostile))),
    ):
        assert len(text) <= LONGEST
        assert text.isprintable()
        text.encode()
    for command in (
        ["info", f"{tmp_path}/\x1b[2J{'y' * 240}"],
        ["query", tmp_path, "\x1b[2J"],
        ["info", tmp_path, "\x1b[2J\n" * 1000],
        ["\x1b[2J" * 1000],
        ["info", "--\x1b[2J" * 1000],
        ["plot", "\x1b[2J" * 1000, tmp_path],
    ):
        done = taq(*command)
        assert done.code in (1, 2)
        assert all(line.isprintable() and len(line) <= LONGEST for line in done.err.splitlines())

    def fail(**_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a\x1b[2Jb")

    monkeypatch.setattr("taqstore.cli.cli", fail)
    monkeypatch.setattr(sys, "argv", ["taqstore"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "taqstore: a\\x1b[2Jb: Input/output error\n"


def test_without_asserts_one_line_says_that_it_does_not_work(tmp_path: Path) -> None:
    """`python -O`: zarr's own asserts do work that is left out then."""
    store = make_small(tmp_path / "s.zarr").path
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    done = run_limited(calls(store, tmp_path), optimize=True)
    assert complaints(done) == []
    opening = [call for call in done if call.code == 1 and "PYTHONOPTIMIZE" in call.error]
    assert len(opening) > 50
    assert all(len(call.error.splitlines()) == 1 for call in opening)
    assert {call.code for call in done} == {1, 2}
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before


def test_without_asserts_nothing_is_left_behind(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", shape=RunShape(images=1), parts=("latents",))
    (done,) = run_limited(
        [("ingest", ["ingest", str(run), str(tmp_path / "new.zarr")])], optimize=True
    )
    assert "PYTHONOPTIMIZE" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a /proc")
def test_a_place_that_takes_no_lock_is_told_at_once(taq: Runner, tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", shape=RunShape(images=1))
    started = time.monotonic()
    done = taq("ingest", run, "/proc/s.zarr")
    assert (done.code, time.monotonic() - started < 20) == (1, True)
    assert "another process" not in done.err
