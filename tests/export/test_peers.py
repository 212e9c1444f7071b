"""Formats of other tools, against raw activations and, where installed, the tools themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore.errors import MissingError, MisuseError, TaqError
from taqstore.export.formats import export
from taqstore.files.safetensors import read_safetensors
from taqstore.store.reader import Store, open_store
from taqstore.testing import RunShape, linear_inputs, make_store, raw_activations

SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("peers") / "run.zarr"
    return open_store(make_store(path, shape=SHAPE, mantissa_bits=10), chunks=None)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """What every linear saw: float16 values of all images and steps, as float64 (row, channel)."""
    seen: dict[str, list[np.ndarray]] = {}
    for image in range(SHAPE.images):
        for step in SHAPE.stats_steps:
            for name, x in raw_activations(SHAPE, image=image, step=step).items():
                seen.setdefault(name, []).append(x.astype(np.float16).astype(np.float64))
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def test_names_are_those_of_all_linears(store: Store, tmp_path: Path) -> None:
    export("act-scales", store, tmp_path / "a.npz")
    names = [name for readers in linear_inputs(SHAPE).values() for name in readers]
    assert list(np.load(tmp_path / "a.npz")) == sorted(names)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_act_scales(
    store: Store, tensors: dict[str, np.ndarray], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"scales.{suffix}"
    summary = export("act-scales", store, path)
    assert (summary.path, summary.files) == (path, 1)
    found = dict(np.load(path)) if suffix == "npz" else dict(read_safetensors(path))
    assert sorted(found) == sorted(tensors)
    for name, x in tensors.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], np.abs(x).max(axis=0))


def test_act_scales_refuses_pickles_and_standing_files(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"scales\.pt: .*write FILE\.npz or FILE\.safetensors"):
        export("act-scales", store, tmp_path / "scales.pt")
    (tmp_path / "s.npz").write_text("mine")
    with pytest.raises(TaqError, match="the target exists"):
        export("act-scales", store, tmp_path / "s.npz")
    assert (tmp_path / "s.npz").read_text() == "mine"


def test_onnx_ranges(store: Store, tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    export("onnx-calibration", store, tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["CLS"] == "TensorsData"
    assert document["calibration_method"]["value"] == "CalibrationMethod.MinMax"
    assert sorted(document["data"]) == sorted(tensors)
    for name, x in tensors.items():
        entry = document["data"][name]
        assert entry["CLS"] == "TensorData"
        ends = [entry[key] for key in ("lowest", "highest")]
        assert [e["data"] for e in ends] == [x.min(), x.max()]
        assert {e["dtype"] for e in ends} == {"float32"}


def test_onnx_percentile(store: Store, tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    """At 10 mantissa bits the percentile over all steps is exact, then rounded to float32."""
    export("onnx-calibration", store, tmp_path / "c.json", clip="p999")
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["calibration_method"]["value"] == "CalibrationMethod.Percentile"
    for name, x in tensors.items():
        expected = np.float32(np.quantile(np.abs(x), 0.999))
        entry = document["data"][name]
        assert entry["highest"]["data"] == pytest.approx(float(expected), rel=1e-6)
        assert entry["lowest"]["data"] == -entry["highest"]["data"]


def test_what_is_missing_is_said(store: Store, tmp_path: Path) -> None:
    bare = {path: store[path].drop_vars("histogram") for path in store}
    with pytest.raises(MissingError, match="needs histograms that add"):
        export("onnx-calibration", bare, tmp_path / "c.json", clip="p999")
    bare = {path: store[path].drop_vars("m2") for path in store}
    pytest.importorskip("gguf")
    with pytest.raises(MissingError, match="imatrix needs mean with m2 with count or"):
        export("imatrix", bare, tmp_path / "i.gguf")
    with pytest.raises(MissingError, match="no group activations/<site> or"):
        export("act-scales", {}, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_imatrix_needs_its_package(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingError, match="needs the gguf package; pip install gguf"):
        export("imatrix", store, tmp_path / "i.gguf")


def test_imatrix(store: Store, tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Read back with the package: sums of squares of every value, and how many positions."""
    gguf = pytest.importorskip("gguf")
    export("imatrix", store, tmp_path / "i.gguf")
    reader: Any = gguf.GGUFReader(tmp_path / "i.gguf")
    found = {str(t.name): t for t in reader.tensors}
    suffixes = (".in_sum2", ".counts")
    assert sorted(found) == sorted(n + s for n in tensors for s in suffixes)
    for name, x in tensors.items():
        sums, counts = (found[name + suffix] for suffix in suffixes)
        assert sums.shape.tolist() == [x.shape[1], 1]  # ggml counts dimensions from the inside
        assert counts.shape.tolist() == [1, 1]
        np.testing.assert_allclose(sums.data.ravel(), (x**2).sum(axis=0), rtol=1e-5)
        assert counts.data.ravel().tolist() == [len(x)]
    fields = reader.fields
    assert fields["general.type"].contents() == "imatrix"
    assert fields["imatrix.chunk_count"].contents() == SHAPE.images * len(SHAPE.stats_steps)
    assert fields["imatrix.chunk_size"].contents() == 2 * SHAPE.image_tokens
    assert fields["imatrix.datasets"].contents() == [f"taqstore {store.digest}"]


def test_onnx_runtime_loads_what_we_write(store: Store, tmp_path: Path) -> None:
    calibrate: Any = pytest.importorskip("onnxruntime.quantization.calibrate")
    export("onnx-calibration", store, tmp_path / "c.json")
    loaded = calibrate.load_tensors_data(tmp_path / "c.json")
    assert loaded.calibration_method is calibrate.CalibrationMethod.MinMax
    low, high = loaded["mm0.img.mlp.fc1"].range_value
    assert low.dtype == high.dtype == np.float32
    calibrate.save_tensors_data(loaded, tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == json.loads((tmp_path / "c.json").read_text())


def test_on_the_command_line(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    command = [sys.executable, "-m", "taqstore", "export", "act-scales", str(store.location)]
    done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"wrote {out}")
    assert out.exists()
