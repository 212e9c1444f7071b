"""ComfyUI's own package decodes what we write, and quantizes as we say that it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore import open_store
from taqstore.export import export
from taqstore.export.packed.base import Base
from taqstore.files.safetensors import SafetensorsFile
from taqstore.quantization.comfy.codebook import LEVELS, W4A8, w4a8_nearest
from taqstore.quantization.comfy.float8 import float8_bits
from taqstore.quantization.comfy.rotation import rotation_size
from taqstore.testing import make_second_moments
from taqstore.testing.checkpoint import MMDiTShape, make_checkpoint

torch = pytest.importorskip("torch")
kitchen = pytest.importorskip("comfy_kitchen.backends.eager.w4a8_int8")
tensor = pytest.importorskip("comfy_kitchen.tensor.w4a8_int8")

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
RNG = np.random.default_rng(12)


def test_float8_rounds_as_torch_does() -> None:
    values = np.abs(RNG.normal(size=20000) * np.exp(3 * RNG.normal(size=20000)))
    values = values[values < 448].astype(np.float32)
    told = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(float8_bits(values), told)


@pytest.mark.parametrize(("rows", "inputs"), [(24, 128), (16, 512), (7, 48), (300, 1536)])
def test_rounding_to_nearest_is_its_own_quantizer(rows: int, inputs: int) -> None:
    """But for the last bits of a rotation, which sums in another order here and there."""
    weight = (RNG.normal(size=(rows, inputs)) * np.exp(RNG.normal(size=(rows, 1)))).astype("f4")
    rotation = rotation_size(inputs)
    packed, scale, channel, correction, codebook = kitchen.quantize_w4a8_int8_weight(
        torch.from_numpy(weight), convrot_groupsize=rotation
    )
    assert correction is None
    assert np.array_equal(codebook.numpy(), LEVELS)
    found = w4a8_nearest(weight, rotation=rotation)
    assert (found.group_scale != scale.view(torch.uint8).numpy()).mean() <= 1e-4
    assert (found.packed() != packed.numpy()).mean() <= 1e-4
    np.testing.assert_allclose(found.channel_scale, channel.numpy(), rtol=2e-6)


def parameters(file: SafetensorsFile, name: str) -> dict[str, Any]:
    """As ComfyUI's loader takes a layer: tensors by their names, settings from `comfy_quant`."""
    part = {key: torch.from_numpy(file[f"{name}.weight_{key}"].make().copy())
            for key in ("s_channel", "codebook")}  # fmt: skip
    scale = torch.from_numpy(file[f"{name}.weight_s_rel"].make().view(np.uint8).copy())
    told = json.loads(file[f"{name}.comfy_quant"].make().tobytes())
    assert told["format"] == "asym_w4a8_int8"
    sizes = {key: int(told[key]) for key in ("group_size", "convrot_groupsize")}
    return {"scale": scale.view(torch.float8_e4m3fn), **part, **sizes}


def test_it_decodes_a_file_of_ours(tmp_path: Path) -> None:
    """Every packed linear, equal to what our own decoder makes of it; and it multiplies with it."""
    checkpoint = tmp_path / "model.safetensors"
    make_checkpoint(checkpoint, shape=MMDiTShape(hidden=48, blocks=3))
    store = make_second_moments(tmp_path / "s.zarr", block_size=None)
    given = SafetensorsFile(checkpoint)
    base = Base({name: given[name] for name in given})
    export("comfy-w4a8", open_store(store, chunks=None), tmp_path / "a.safetensors", base=base)
    file = SafetensorsFile(tmp_path / "a.safetensors")
    names = [name.removesuffix(".comfy_quant") for name in file if name.endswith("comfy_quant")]
    assert len(names) == 21
    for name in names:
        packed = file[f"{name}.weight"].make()
        told = parameters(file, name)
        rows, inputs = given[f"{name}.weight"].shape
        params = tensor.AsymW4A8Int8Layout.Params(
            **told, orig_dtype=torch.float32, orig_shape=(rows, inputs)
        )
        data = torch.from_numpy(packed.copy())
        found = tensor.AsymW4A8Int8Layout.dequantize(data, params).numpy()
        codes = packed.view(np.uint8)
        ours = W4A8(
            np.stack([codes & 15, codes >> 4], axis=-1).reshape(rows, inputs),
            told["scale"].view(torch.uint8).numpy(),
            told["s_channel"].numpy(),
            told["convrot_groupsize"],
        ).dequantized()
        assert np.abs(found - ours).max() <= 1e-6 * np.abs(ours).max()
        x = torch.from_numpy(RNG.normal(size=(5, inputs)).astype(np.float32))
        y = tensor.w4a8_int8_linear(
            x, data, told["scale"], told["s_channel"], told["codebook"], out_dtype=torch.float32,
            group_size=16, convrot_groupsize=told["convrot_groupsize"],
        ).numpy()  # fmt: skip
        wanted = x.numpy() @ ours.T
        # Its inputs are rounded to eight bits, each row by its largest.
        assert np.square(y - wanted).mean() < 0.02**2 * np.square(wanted).mean()
