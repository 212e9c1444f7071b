"""Prompts and numbers of documents however they are written: as they are, or named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.ingest import ingest

from support.source_runs import edit_npz, one_line
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import SourceError
from taqstore.store.attributes import attribute_of
from taqstore.testing import RunShape, make_latents, make_phase1

SHAPE = RunShape(images=2, steps=2, latent=(3, 2), channels=4)
TEXTS = {
    "lines": "a\nb\r\nc\rd", "separators": "\x0b\x0c\x1c\x85\u2028\u2029", "quotes": '"\'`;,\t',
    "spaces": "  a  ", "empty": "", "mark": "\ufeffa", "emoji": "\U0001f469\u200d\U0001f680",
    "long": "x" * (1 << 16), "combining": "e\u0301", "right to left": "\u202eabc",
}  # fmt: skip
PROMPT = "a prompt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_latents(tmp_path / "run", shape=SHAPE)


def edited(folder: Path, change: Callable[[dict[str, Any]], object], **options: Any) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document, **options), encoding="utf-8")


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("name", TEXTS)
def test_a_prompt_of_a_manifest_comes_back(name: str, ascii_only: bool, folder: Path) -> None:
    text = TEXTS[name]
    edited(folder, lambda d: d["images"][1].update(prompt=text), ensure_ascii=ascii_only)
    store = folder.with_name("s.zarr")
    assert ingest([folder], store).problems == []
    assert open_store(store)["latents"]["prompt"].values[1] == text


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("a\ud83d", "half a character"), ("a\0", "zero character"), ("a" * 65537, "65537 characters")],
)
def test_a_text_that_no_store_keeps_is_refused_with_its_image(
    prompt: str, says: str, folder: Path
) -> None:
    edited(folder, lambda d: d["images"][1].update(prompt=prompt))
    outcome = ingest([folder], folder.with_name("s.zarr"))
    (text,) = outcome.problems
    assert "image 1" in one_line(text)
    assert says in text
    assert open_store(folder.with_name("s.zarr"))["latents"]["image"].values.tolist() == [0]


@pytest.mark.parametrize("name", TEXTS)
def test_a_prompt_of_phase_1_comes_back(name: str, tmp_path: Path) -> None:
    path = make_phase1(tmp_path / "DiT_cali_data.npz", shape=SHAPE)
    with np.load(path, allow_pickle=True) as file:
        count = len(file["prompts"])
    texts = [TEXTS[name], *[PROMPT] * (count - 1)]
    edit_npz(path, prompts=np.array(texts))
    ingest([path], tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr")["samples"]["prompt"].values.tolist() == texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_document_of_any_encoding_is_read(encoding: str, folder: Path) -> None:
    path = folder / "manifest.json"
    text = path.read_text("utf-8")
    path.write_bytes(text.encode(encoding))
    assert ingest([folder], folder.with_name("s.zarr")).problems == []


def test_whole_numbers_written_as_floats_are_taken(folder: Path) -> None:
    def as_floats(document: dict[str, Any]) -> None:
        document["num_steps"] = float(document["num_steps"])
        for entry in document["images"]:
            entry |= {name: float(entry[name]) for name in ("image_id", "seed")}

    edited(folder, as_floats)
    store = folder.with_name("s.zarr")
    assert ingest([folder], store).problems == []
    assert open_store(store)["latents"]["seed"].dtype == np.int64


def test_unknown_fields_and_keys_are_kept_or_named(folder: Path) -> None:
    edited(folder, lambda d: d.update(weather="fine"))
    edited(folder, lambda d: d["images"][0].update(mood="good"))
    edit_npz(folder / "samples" / "0001_001.npz", noise=np.ones(3))
    outcome = ingest([folder], folder.with_name("s.zarr"))
    assert outcome.problems == []
    latents = open_store(folder.with_name("s.zarr"))["latents"]
    assert attribute_of(latents, "source_manifest")["weather"]
    notes = "; ".join(outcome.notes)
    assert "fields not stored: mood" in notes
    assert "keys not stored: noise" in notes


# What a sample was saved as; x is float32 in the source.
SAVED: dict[str, Callable[[dict[str, np.ndarray]], dict[str, Any]]] = {
    "float64": lambda f: {"x": f["x"].astype(np.float64)},
    "big-endian": lambda f: {"x": f["x"].astype(">f4"), "image_id": f["image_id"].astype(">i8")},
    "Fortran": lambda f: {"x": np.asfortranarray(f["x"])},
    "int64": lambda f: {"image_id": np.int64(f["image_id"]), "step_index": np.int64(1)},
    "whole floats": lambda f: {"image_id": np.float64(f["image_id"]), "is_final": np.int8(0)},
    "one axis": lambda f: {n: f[n].reshape(1) for n in ("sigma", "timestep", "image_id")},
}


@pytest.mark.parametrize("name", SAVED)
def test_a_sample_of_the_same_numbers_is_taken(name: str, folder: Path) -> None:
    plain, other = folder.with_name("plain.zarr"), folder.with_name("other.zarr")
    ingest([folder], plain)
    path = folder / "samples" / "0001_001.npz"
    with np.load(path) as file:
        changes = SAVED[name](dict(file))
    edit_npz(path, **changes)
    assert ingest([folder], other).problems == []
    expected, found = open_store(plain)["latents"], open_store(other)["latents"]
    for variable in expected.variables:
        assert found[variable].values.tolist() == expected[variable].values.tolist(), variable


# What is given in place of a source -> what is said of it.
INSTEAD: dict[str, tuple[str, bytes, str]] = {
    "prompts": ("prompts.csv", b"prompt\na\n", "--prompts prompts.csv"),
    "text": ("notes.txt", b"a\n", "no source of their own"),
    "a web page": ("stats.json", b"<html></html>", "web page"),
    "a pointer": ("stats.npz", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "gzip": ("stats.json", b"\x1f\x8b\x08\0\0\0", "gzip"),
    "a pickle": ("stats.pt", b"\x80\x04N.", "pickle"),
    "safetensors": ("w.safetensors", b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
    "cut": ("stats.json", b'{"format": ', "may have been stopped"),
    "twice": ("stats.json", b'{"format": 1, "format": 2}', "'format' is there twice"),
}


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_no_source_says_what_it_is(name: str, tmp_path: Path) -> None:
    file, raw, says = INSTEAD[name]
    (tmp_path / file).write_bytes(raw)
    with pytest.raises(SourceError) as error:
        ingest([tmp_path / file], tmp_path / "s.zarr")
    assert says in one_line(str(error.value))
    assert not (tmp_path / "s.zarr").exists()
    result = CliRunner().invoke(cli, ["ingest", str(tmp_path / file), str(tmp_path / "s.zarr")])
    assert isinstance(result.exception, SourceError)
