"""A layer without a finite value at a step: refused by every format alike, or left out by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cli_runner import Runner
from support.planted import SHAPE, STEPS, fill, planted_store, put
from taqstore.errors import MissingError, TaqError
from taqstore.export.complete import incomplete
from taqstore.export.formats import export, taking
from taqstore.store.reader import open_store
from taqstore.testing import RunShape, make_activations, make_postgelu, make_store

LAST = STEPS[-1]
OBSERVED = [name for name in taking("allow_incomplete") if name != "postgelu-npz"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At the last step of one image of three: a layer of NaN, a channel of another of Inf."""
    plants = {
        (1, LAST, "mm1.img.mlp.fc2"): fill(np.nan),
        (2, LAST, "mm0.txt.attn.o_proj"): lambda x: x.__setitem__((slice(None), 3), -np.inf),
    }
    return planted_store(tmp_path_factory.mktemp("planted") / "s.zarr", plants)


def target(name: str, folder: Path) -> Path:
    if name == "imatrix":
        pytest.importorskip("gguf")
    return folder / ("a.npz" if name == "act-scales" else "out")


def texts(path: Path) -> Iterator[str]:
    """Everything that names a linear in an export."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                yield from arrays.files
        else:
            yield file.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("name", OBSERVED)
def test_every_format_refuses_in_one_line(
    name: str, store: Path, taq: Runner, tmp_path: Path
) -> None:
    out = target(name, tmp_path)
    refused = taq("export", name, store, "-o", out)
    assert (refused.code, refused.out, out.exists()) == (1, "", False)
    (line,) = refused.err.splitlines()
    assert (
        f"mlp.fc2: no finite value of mm1.img at step {LAST}, image 1" in line
        or f"attn.o_proj: no finite value in a channel of mm0.txt at step {LAST}, image 2" in line
    )
    assert "--allow-incomplete" in line


@pytest.mark.parametrize("name", OBSERVED)
def test_every_format_leaves_it_out_by_name(
    name: str, store: Path, taq: Runner, tmp_path: Path
) -> None:
    out = target(name, tmp_path)
    done = taq("export", name, store, "-o", out, "--allow-incomplete")
    assert done.code == 0, done.err
    for site, layer in (("mlp.fc2", "mm1.img"), ("attn.o_proj", "mm0.txt")):
        assert f"note: activations/{site}: left out {layer}: no finite value" in done.err
    written = "\n".join(texts(out)).replace("_", ".")
    assert "mm1.img.mlp.fc2" not in written
    assert "mm0.txt.attn.o.proj" not in written
    for kept in ("mm0.img.mlp.fc2", "mm1.img.mlp.fc1", "mm1.img.attn.o.proj"):
        assert kept in written


def test_numbers_of_the_others_are_those_of_a_sound_store(store: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "sound.zarr", shape=SHAPE)
    documents: list[Any] = []
    for path in (store, tmp_path / "sound.zarr"):
        out = tmp_path / f"{path.stem}.json"
        export("quant-config", open_store(path, chunks=None), out, allow_incomplete=True)
        documents.append(json.loads(out.read_text())["per_timestep"])
    for step in map(str, STEPS):
        found, sound = (document[step] for document in documents)
        assert found == {name: sound[name] for name in found}
        assert sound.keys() - found.keys() == {"mm0.txt.attn.o_proj", "mm1.img.mlp.fc2"}


def test_one_sound_value_per_channel_is_enough(tmp_path: Path) -> None:
    plants = {(0, STEPS[1], "mm0.img.mlp.fc1"): lambda x: x.__setitem__(slice(1, None), np.nan)}
    opened = open_store(planted_store(tmp_path / "s.zarr", plants), chunks=None)
    summary = export("act-scales", opened, tmp_path / "a.npz")
    assert any("first in mm0.img" in note for note in summary.notes)
    with np.load(tmp_path / "a.npz") as scales:
        assert all(np.isfinite(scales[name]).all() for name in scales.files)


def test_a_site_without_a_layer_left_goes_and_a_store_without_one_is_refused(
    tmp_path: Path,
) -> None:
    layers = [f"mm{block}.{stream}" for block in range(2) for stream in ("img", "txt")]
    o_proj = {(0, STEPS[0], f"{layer}.attn.o_proj"): fill(np.inf) for layer in layers[:-1]}
    opened = open_store(planted_store(tmp_path / "s.zarr", o_proj), chunks=None)
    summary = export("lut-schedule", opened, tmp_path / "l.json", allow_incomplete=True)
    assert any(
        note.startswith("activations/attn.o_proj: left out mm0.img, ") for note in summary.notes
    )
    assert "o_proj" not in (tmp_path / "l.json").read_text()
    alone = {"activations/attn.o_proj": opened["activations/attn.o_proj"]}
    with pytest.raises(MissingError, match="would be empty"):
        export("lut-schedule", alone, tmp_path / "m.json", allow_incomplete=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_extrema_of_pooled_sources_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    from taqstore.pipelines.ingest import ingest

    make_postgelu(tmp_path / "p.npz", shape=SHAPE)
    make_activations(tmp_path / "activations", shape=SHAPE)
    ingest([tmp_path / "p.npz", tmp_path / "activations"], tmp_path / "s.zarr")
    store = dict(open_store(tmp_path / "s.zarr", chunks=None))
    assert [path for path in store if incomplete(store[path])] == []
    for path, variable in (
        ("pooled/timestep_stats/mlp.fc2", "avg_max"),
        ("pooled/postgelu/mlp.fc2", "max"),
    ):
        group = store[path].load().copy(deep=True)
        group[variable][2, 1, 3] = value
        step, layer = int(group["step"][2]), str(group["layer"].values[1])
        groups = {**store, path: group}
        name = "postgelu-npz" if "postgelu" in path else "quant-config"
        with pytest.raises(TaqError, match=f"no finite value .*of {layer} at step {step};"):
            export(name, groups, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_formats_without_statistics_do_not_take_the_option(
    store: Path, taq: Runner, tmp_path: Path
) -> None:
    done = taq("export", "adaround", store, "-o", tmp_path / "w", "--allow-incomplete")
    assert done.code == 2
    assert "--allow-incomplete does not go with adaround" in done.err


def test_a_schedule_of_one_step_is_refused(taq: Runner, tmp_path: Path) -> None:
    one = RunShape(**{**vars(SHAPE), "stats_stride": SHAPE.steps})
    make_store(tmp_path / "s.zarr", shape=one)
    out = tmp_path / "poly.json"
    refused = taq("export", "poly-schedule", tmp_path / "s.zarr", "-o", out)
    assert (refused.code, out.exists()) == (1, False)
    assert "the schedule would be empty (found 1 steps)" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_a_group_without_a_batch_is_refused(tmp_path: Path) -> None:
    opened = open_store(make_store(tmp_path / "s.zarr", shape=SHAPE), chunks=None)
    groups = {path: opened[path].isel(batch=slice(0, 0)) for path in opened}
    for name in OBSERVED:
        if name != "imatrix":
            with pytest.raises(MissingError, match=r"no batch is complete: .* would be empty"):
                export(name, groups, target(name, tmp_path))


def test_a_sound_store_is_given_as_it_is(tmp_path: Path) -> None:
    opened = open_store(make_store(tmp_path / "s.zarr", shape=SHAPE), chunks=None)
    assert [path for path in opened if incomplete(opened[path])] == []
    for allow in (False, True):
        out = tmp_path / f"{allow}.json"
        assert export("onnx-calibration", opened, out, allow_incomplete=allow).notes == ()
    assert (tmp_path / "False.json").read_bytes() == (tmp_path / "True.json").read_bytes()


def test_channels_are_looked_at_where_something_was_counted(tmp_path: Path) -> None:
    rows = SHAPE.image_tokens * 2
    plants = {(1, STEPS[2], "mm0.img.mlp.fc1"): put(np.nan, *range(rows), channel=1)}
    opened = open_store(planted_store(tmp_path / "s.zarr", plants))
    found = incomplete(opened["activations/mlp.fc1"])
    assert found is not None
    assert found.places == {"mm0.img": f"in a channel of mm0.img at step {STEPS[2]}, image 1"}
