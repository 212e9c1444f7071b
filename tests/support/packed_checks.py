"""What formats with packed weights, and comfy-quants' files, say; read by their layout alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from support.format_checks import Groups, observed, read
from taqstore.export.packed.base import Base
from taqstore.kinds.weights import weights_template
from taqstore.names import SITES
from taqstore.quantization.comfy.float8 import float8_values
from taqstore.quantization.comfy.rotation import hadamard
from taqstore.store.writer import create_store
from taqstore.testing.checkpoint import PREFIX, MMDiTShape, make_checkpoint

WIDE = "wide"
# Outputs, inputs, groups of inputs, bits, and whether the grid has offsets; no two alike.
GRIDS = {
    "attn.qkv": (32, 64, 2, 4, False),
    "attn.o_proj": (64, 64, 1, 7, False),
    "mlp.fc1": (96, 64, 4, 3, True),  # groups of 16, which MLX does not have
    "mlp.fc2": (64, 96, 3, 3, True),
}
BLOCKS, STREAMS = 2, {"img": ("x_block", "image"), "txt": ("context_block", "text")}
THEIRS = {"attn.qkv": "attn.qkv", "attn.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1",
          "mlp.fc2": "mlp.fc2"}  # fmt: skip
Tensors = dict[str, np.ndarray]
_DTYPES = {"F32": "<f4", "F16": "<f2", "U32": "<u4", "U8": "u1", "I8": "i1", "F8_E4M3": "u1"}


def tensors_of(path: Path) -> Tensors:
    """Tensors of a safetensors file; floats of eight bits as their bits."""
    content = path.read_bytes()
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, last = (8 + size + at for at in entry["data_offsets"])
        values = np.frombuffer(content[first:last], _DTYPES[entry["dtype"]])
        found[name] = values.reshape(entry["shape"])
    return found


# -- MLX ----------------------------------------------------------------------------------------


def write_wide(path: Path) -> Path:
    """A store with the set `wide`: the text's linears of the last block are not there."""
    rng = np.random.default_rng(11)
    with create_store(path) as writer:
        for site, (outputs, inputs, groups, bits, affine) in GRIDS.items():
            layers = ["mm0.img", "mm0.txt", "mm1.img"]
            template = weights_template(
                site, set=WIDE, layers=layers, shape=(outputs, inputs), groups=groups,
                offset=affine, rounding=False, activations=False,
                attrs={"run": {"model": "made", "method": "rtn", "bits": bits}},
            )  # fmt: skip
            group = writer.group(template)
            for array in template.arrays:
                values = _values(rng, array.name, template.shape(array), bits)
                for row in range(len(layers)):
                    group.put(array.name, (row,) + (0,) * (values.ndim - 1), values[row : row + 1])
            group.commit([(row,) for row in range(len(layers))])
    return path


def _values(
    rng: np.random.Generator, variable: str, shape: tuple[int, ...], bits: int
) -> np.ndarray:
    if variable == "weight":
        return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8)
    if variable == "weight_bits":
        return np.full(shape, bits, np.int8)
    values = rng.normal(size=shape) if variable == "offset" else rng.uniform(0.01, 1, shape)
    return values.astype(np.float32)


def _wide(groups: Groups) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Path in DiffusionKit's model, site and what the store holds, of every linear."""
    for site in GRIDS:
        data = groups[f"weights/{WIDE}/{site}"]
        for layer in data["layer"].values:
            block, stream = str(layer).removeprefix("mm").split(".")
            at = f"multimodal_transformer_blocks.{block}.{STREAMS[stream][1]}_transformer_block"
            one = data.sel(layer=layer)
            if site == "attn.qkv":
                for letter in "qkv":
                    yield f"{at}.attn.{letter}_proj", site, one.isel(projection="qkv".index(letter))
            else:
                yield f"{at}.{site}", site, one


def mlx_base(groups: Groups) -> Base:
    found: dict[str, np.ndarray] = {"other.bias": np.float16([1.5, -2.0, 3.25])}
    for path, _, one in _wide(groups):
        found[f"{path}.weight"] = np.zeros(one["weight"].shape, np.float16)
    return Base(found, "made")


def check_mlx(groups: Groups, out: Path, name: str) -> None:
    """Codes are a stream of bits, the lowest first; ``scale * code + bias`` is the weight."""
    found, told = tensors_of(out / "model.safetensors"), read(out / "config.json")["quantization"]
    assert found.pop("other.bias").tolist() == [1.5, -2.0, 3.25]
    for path, site, one in _wide(groups):
        weight, step = (one[v].values.astype(np.float64) for v in ("weight", "step_size"))
        offset = one["offset"].values.astype(np.float64) if "offset" in one else 0 * step
        per_group = weight.shape[1] // step.shape[1]
        expected = weight * step.repeat(per_group, 1) + offset.repeat(per_group, 1)
        values = found.pop(f"{path}.weight")
        assert (path in told) == (site != "mlp.fc1")
        if path in told:
            bits, size = told[path]["bits"], told[path]["group_size"]
            assert bits == {4: 4, 7: 8, 3: 3}[GRIDS[site][3]]
            stream = np.unpackbits(values.view(np.uint8), axis=1, bitorder="little")
            codes = stream.reshape(len(values), -1, bits) @ (1 << np.arange(bits))
            scales, biases = (found.pop(f"{path}.{part}") for part in ("scales", "biases"))
            values = codes * scales.astype("f8").repeat(size, 1) + biases.repeat(size, 1)
        # One rounding of float32 at the largest number that takes part.
        largest = np.abs(offset).max() + 2.0 ** GRIDS[site][3] * step.max()
        np.testing.assert_allclose(values, expected, rtol=0, atol=largest * 2.0**-23)
    assert not found


# -- ComfyUI ------------------------------------------------------------------------------------


def _names() -> Iterator[tuple[str, str, str, str]]:
    """Name of a linear in a checkpoint, layer, site, and a linear of it by the store's name."""
    for block in range(BLOCKS):
        for stream, (theirs, _) in STREAMS.items():
            for site in SITES:
                if (block, stream) == (BLOCKS - 1, "txt") and site != "attn.qkv":
                    continue
                layer = f"mm{block}.{stream}"
                own = f"{layer}.{site.replace('qkv', 'q_proj')}"
                yield f"{PREFIX}joint_blocks.{block}.{theirs}.{THEIRS[site]}", layer, site, own


def moment_of(groups: Groups, layer: str, site: str) -> tuple[np.ndarray, int] | None:
    """Sum of x x^T, 0 between blocks, and the number of x; by plain indexing."""
    if f"second_moments/{site}" not in groups:
        return None
    data = groups[f"second_moments/{site}"].sel(layer=layer)
    channels, size = int(data.attrs["channels"]), data.sizes["channel_row"]
    found = np.zeros((channels, channels))
    for block in range(data.sizes["channel_block"]):
        part = data["second_moment"].isel(channel_block=block).values.astype(np.float64)
        at = slice(block * size, (block + 1) * size)
        width = len(range(channels)[at])
        found[at, at] = part.sum(axis=(0, 1))[:width, :width]
    return found, int(data["count"].sum())


def check_comfy_stats(groups: Groups, out: Path, name: str) -> None:
    layers, expected = read(out / "int4_activation_stats.json")["layers"], observed(groups)
    hessians = read(out / "int4_gptq_hessian_stats.json")["layers"]
    assert set(layers) == {theirs for theirs, *_ in _names()}
    assert set(hessians) == {theirs for theirs, _, site, _ in _names() if site != "mlp.fc1"}
    for theirs, layer, site, own in _names():
        data, record = expected[own], layers[theirs]
        ends = [abs(data[v].values.astype(np.float64)).max(axis=(0, 1)) for v in ("min", "max")]
        assert record["input_amax"] == np.maximum(*ends).tolist()
        count = data["count"].values.astype(np.float64)
        mean, m2 = (data[v].values.astype(np.float64) for v in ("mean", "m2"))
        squares = (m2 + count[..., None] * mean**2).sum(axis=(0, 1))
        np.testing.assert_allclose(record["input_rms"], np.sqrt(squares / count.sum()), rtol=1e-6)
        assert (record["sample_count"], record["element_count"]) == (count.size, count.sum())
        if (moment := moment_of(groups, layer, site)) is not None:
            told = hessians[theirs]
            assert told["row_count"] == moment[1]
            hessian = tensors_of(out / told["file_path"])[told["tensor_name"]]
            np.testing.assert_array_equal(hessian, np.float32(moment[0] * (2 / moment[1])))


def comfy_base(folder: Path, hidden: int) -> Base:
    shape = MMDiTShape(hidden=hidden, blocks=BLOCKS)
    return Base(dict(tensors_of(make_checkpoint(folder / "model.safetensors", shape=shape))))


def decoded(found: Tensors, name: str) -> np.ndarray:
    """The weight of a linear, whose inputs are not rotated any more."""
    told = json.loads(found[f"{name}.comfy_quant"].tobytes())
    packed = found[f"{name}.weight"].view(np.uint8)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    scale = float8_values(found[f"{name}.weight_s_rel"]).repeat(told["group_size"], axis=1)
    integers = np.clip(np.rint(found[f"{name}.weight_codebook"][codes] * scale), -127, 127)
    size = told["convrot_groupsize"]
    turn = np.kron(np.eye(codes.shape[1] // size), hadamard(size))
    channel = found[f"{name}.weight_s_channel"].astype(np.float64)
    return np.asarray((integers * channel[:, None]) @ turn)


def check_comfy(groups: Groups, out: Path, base: Base, nearest: Path) -> None:
    """What the store holds of a linear's input is what its codes spare, more than the nearest."""
    found, plain, expected = tensors_of(out), tensors_of(nearest), observed(groups)
    for theirs, layer, site, own in _names():
        if (moment := moment_of(groups, layer, site)) is not None:
            squares = moment[0]
        else:
            data = expected[own].astype(np.float64)
            each = data["m2"] + data["count"] * data["mean"] ** 2
            squares = np.diag(each.sum(("batch", "step")).values)
        weight = np.asarray(base.tensors[f"{theirs}.weight"], np.float64)
        left = [
            np.einsum("oi,ij,oj->", away, squares, away)
            for away in (decoded(tensors, theirs) - weight for tensors in (found, plain))
        ]
        assert 0 < left[0] < 0.95 * left[1], (theirs, left)
        for part in ("weight_s_rel", "weight_s_channel", "weight_codebook", "comfy_quant"):
            assert np.array_equal(found[f"{theirs}.{part}"], plain[f"{theirs}.{part}"])
