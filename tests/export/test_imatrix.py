"""Importance matrices under the names of stable-diffusion.cpp, and in the layout that it reads."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from support.cli_runner import Runner
from taqstore.errors import MissingError, TaqError
from taqstore.export.formats import export
from taqstore.names import LayerName, checkpoint_tensor, linear_names, parse_layer, weight_layer
from taqstore.store.reader import Store, open_store
from taqstore.testing import RunShape, linear_inputs, make_store, raw_activations
from taqstore.testing.checkpoint import SD3_MEDIUM, tensor_shapes

SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
PREFIX = "model.diffusion_model."


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = make_store(tmp_path_factory.mktemp("imatrix") / "run.zarr", shape=SHAPE)
    return open_store(path, chunks=None)


def read_old(path: Path) -> tuple[dict[str, tuple[int, np.ndarray]], int, str]:
    """As stable-diffusion.cpp's `load_imatrix` does: entries, then the number of calls."""
    data, at = path.read_bytes(), 0

    def integer() -> int:
        nonlocal at
        at += 4
        return int(struct.unpack_from("<i", data, at - 4)[0])

    def text() -> str:
        nonlocal at
        length = integer()
        at += length
        return data[at - length : at].decode()

    found = {}
    for _ in range(integer()):
        name, calls, size = text(), integer(), integer()
        found[name] = calls, np.frombuffer(data, "<f4", size, at)
        at += 4 * size
    last, dataset = integer(), text()
    assert at == len(data)
    return found, last, dataset


def test_names_are_those_of_sd3_medium() -> None:
    """All weights of linears in blocks, and no other; the list of the checkpoint's own.

    The digest is that of the sorted names of these weights in `sd3_medium.safetensors`, as the
    converter of DiffSynth-Studio (e3f8a576, `from_civitai`) lists them one by one.
    """
    shape = RunShape(blocks=24, hidden=8, image_tokens=2, text_tokens=2)
    mine = {checkpoint_tensor(parse_layer(name)) for name in linear_inputs(shape)}
    every = {PREFIX + name for name, _ in tensor_shapes(SD3_MEDIUM)}
    assert mine <= every
    rest = [n for n in every - mine if ".joint_blocks." in n and n.endswith(".weight")]
    assert all(".adaLN_modulation." in name for name in rest)
    assert len(mine) == 189
    digest = hashlib.sha256("\n".join(sorted(mine)).encode()).hexdigest()
    assert digest == "df552395d8feec7c02e36b554692a22e866cc3bf3b20b52975fbc1affb647141"


@pytest.mark.parametrize(
    ("linear", "tensor"),
    [
        ("mm0.img.attn.q_proj", "joint_blocks.0.x_block.attn.qkv.weight"),
        ("mm0.img.attn.v_proj", "joint_blocks.0.x_block.attn.qkv.weight"),
        ("mm23.txt.attn.k_proj", "joint_blocks.23.context_block.attn.qkv.weight"),
        ("mm7.txt.attn.o_proj", "joint_blocks.7.context_block.attn.proj.weight"),
        ("mm12.img.mlp.fc1", "joint_blocks.12.x_block.mlp.fc1.weight"),
        ("mm3.txt.mlp.fc2", "joint_blocks.3.context_block.mlp.fc2.weight"),
    ],
)
def test_the_name_of_each_kind_of_linear(linear: str, tensor: str) -> None:
    name = parse_layer(linear)
    assert checkpoint_tensor(name) == PREFIX + tensor
    known = weight_layer(PREFIX + tensor)
    assert known is not None
    assert name.full in linear_names(known)


def test_unified_blocks_have_no_such_name() -> None:
    with pytest.raises(MissingError, match=r"no weight of uni4\.mlp\.fc1; use taqstore's names"):
        checkpoint_tensor(LayerName("uni4", "uni", "mlp.fc1"))


def test_what_stable_diffusion_cpp_reads(store: Store, tmp_path: Path) -> None:
    """Each value by its calls is the mean square of a channel; q, k and v are one tensor."""
    out = tmp_path / "i.dat"
    summary = export("imatrix", store, out, names="stable-diffusion.cpp")
    assert summary.notes == ()
    found, last, dataset = read_old(out)
    chunks = SHAPE.images * len(SHAPE.stats_steps)
    assert (last, dataset) == (chunks, f"taqstore {store.digest}")
    seen: dict[str, list[np.ndarray]] = {}
    for image in range(SHAPE.images):
        for step in SHAPE.stats_steps:
            for linear, x in raw_activations(SHAPE, image=image, step=step).items():
                values = x.astype(np.float16).astype(np.float64)
                seen.setdefault(checkpoint_tensor(parse_layer(linear)), []).append(values)
    assert set(found) == set(seen)
    for name, (calls, values) in found.items():
        assert calls == chunks
        expected = (np.concatenate(seen[name]) ** 2).mean(axis=0)
        np.testing.assert_allclose(values / calls, expected, rtol=1e-5)


def test_gguf_with_either_names(store: Store, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    ours = export("imatrix", store, tmp_path / "ours.gguf")
    theirs = export("imatrix", store, tmp_path / "theirs.gguf", names="stable-diffusion.cpp")
    assert "--names stable-diffusion.cpp" in ours.notes[0]
    assert "sd -M convert --imat-in reads FILE.dat" in theirs.notes[0]
    plain, named = (
        {t.name: t.data.ravel() for t in gguf.GGUFReader(tmp_path / f"{n}.gguf").tensors}
        for n in ("ours", "theirs")
    )
    assert len(named) < len(plain)
    for name, values in plain.items():
        linear, _, kind = name.rpartition(".")
        other = named[f"{checkpoint_tensor(parse_layer(linear))}.{kind}"]
        np.testing.assert_array_equal(other, values)


def test_linears_of_one_tensor_must_have_seen_one_input(store: Store, tmp_path: Path) -> None:
    """Moments that tell q, k and v apart cannot be those of one tensor."""
    data = store["activations/attn.qkv"].load()
    apart = data.assign(m2=data["m2"].expand_dims(projection=["q_proj", "k_proj", "v_proj"]) * 1.0)
    apart["m2"][{"projection": 1}] *= 2
    given = {"activations/attn.qkv": apart}
    with pytest.raises(TaqError, match=r"k_proj saw other inputs than the rest of model\.diff"):
        export("imatrix", given, tmp_path / "i.dat", names="stable-diffusion.cpp")
    assert not list(tmp_path.iterdir())


def test_on_the_command_line(store: Store, tmp_path: Path, taq: Runner) -> None:
    path = store.location
    shown = taq("export", "imatrix", path, "-o", tmp_path / "i.dat", "--names", "ggml")
    assert shown.code == 2
    shown = taq("export", "act-scales", path, "-o", tmp_path / "a.npz", "--names", "taqstore")
    assert shown.code == 2
    assert "--names does not go with act-scales; it goes with imatrix" in shown.err
    shown = taq("export", "imatrix", path, "-o", tmp_path / "i.dat")
    assert shown.code == 0, shown.err
    assert "note: tensors have taqstore's names" in shown.err
