"""Python that is pasted elsewhere: compiled and run here, on the names and the model it is for."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.effects_store import sensitivity
from support.live_capture import needs_models
from taqstore.analysis import ANALYSES
from taqstore.errors import MisuseError
from taqstore.export.pasted.table import PASTES, pasted
from taqstore.names import checkpoint_tensor, diffusers_module, parse_layer, weight_layer
from taqstore.query import analyze

PARTS = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.fc1", "mlp.fc2",
         "adaln.linear")  # fmt: skip
TARGETS = [f"mm{i}.{s}.{part}" for i in (0, 1, 11) for s in ("img", "txt") for part in PARTS]
TARGETS += ["x_embedder.embed.image", "t_embedder.time.fc1", "final_layer.final.linear"]


def groups_of(targets: list[str], *formats: str) -> dict[str, xr.Dataset]:
    return {
        f"sensitivity/linear/{name}": sensitivity(
            targets, seed=place, amount=128 * 128, size=0.4 / 3**place
        )
        for place, name in enumerate(formats)
    }


def text_of(
    word: str, groups: dict[str, xr.Dataset], **options: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Names that the pasted text defines, and the allocation that it says."""
    results = analyze("frontier", groups, **options)
    known: dict[str, Any] = {}
    exec(compile(pasted("frontier", word, groups, results), word, "exec"), known)
    result = results["frontier"]
    return known, dict(zip(result["target"].values, result["allocated"].values, strict=True))


def test_words_of_the_option_are_the_texts_there_are() -> None:
    assert {name: row.pastes for name, row in ANALYSES.items() if row.pastes} == {
        name: tuple(texts) for name, texts in PASTES.items()
    }


def test_modelopt_switches_on_what_is_quantized_and_nothing_else() -> None:
    """Entries are applied in order, the last that fits a quantizer wins."""
    groups = groups_of(TARGETS, "rtn-w3", "mlx-w4-g64", "rtn-w8-g128")
    known, allocated = text_of("modelopt", groups, average=9.0)
    assert known["CONFIG"]["algorithm"] == "max"
    expected = {"rtn-w3": {"num_bits": 3, "axis": 0},
                "mlx-w4-g64": {"num_bits": 4, "block_sizes": {-1: 64}},
                "rtn-w8-g128": {"num_bits": 8, "block_sizes": {-1: 128}}}  # fmt: skip
    assert len({*allocated.values()}) > 2
    assert "float" in allocated.values()
    for name, format in allocated.items():
        module = diffusers_module(parse_layer(name))
        for kind in ("weight_quantizer", "input_quantizer", "output_quantizer"):
            state: Any = None
            for entry in known["CONFIG"]["quant_cfg"]:
                if fnmatch(f"{module}.{kind}", entry["quantizer_name"]):
                    state = entry.get("cfg") if entry["enable"] else None
            assert state == (expected.get(format) if kind == "weight_quantizer" else None), name


def test_comfy_has_every_layer_of_a_checkpoint_once() -> None:
    groups = groups_of(TARGETS, "comfy")
    known, allocated = text_of("comfy", groups, average=9.0)
    include, exclude = known["INCLUDE"], known["EXCLUDE"]
    assert not {*include} & {*exclude}
    assert len({*include, *exclude}) == len(include) + len(exclude)
    for name, format in allocated.items():
        layer = checkpoint_tensor(
            parse_layer(".".join([*name.split(".")[:-1], "qkv"])) if "_proj" in name
            and ".o_" not in name else parse_layer(name)
        ).removesuffix(".weight")  # fmt: skip
        read = [f for n, f in allocated.items() if n.rpartition(".")[0] == name.rpartition(".")[0]
                and n.endswith(("q_proj", "k_proj", "v_proj"))]  # fmt: skip
        own = read if layer.endswith("attn.qkv") else [format]
        assert (layer in include) == ("float" not in own)
        assert (layer in exclude) == ("float" in own)
    # With --fused they agree, and nothing that is allowed bits stays for its neighbours.
    known, allocated = text_of("comfy", groups, average=9.0, fused=True)
    quantized = [name for name, format in allocated.items() if format != "float"]
    count = sum(1 for n in quantized if not n.endswith(("q_proj", "k_proj")))
    assert len(known["INCLUDE"]) == count


def test_mlx_refuses_what_it_does_not_pack() -> None:
    groups = groups_of(TARGETS, "rtn-w3")
    results = analyze("frontier", groups, average=4.0)
    with pytest.raises(MisuseError, match=r"MLX does not pack .* in rtn-w3"):
        pasted("frontier", "mlx", groups, results)
    with pytest.raises(MisuseError, match="--average"):
        pasted("frontier", "mlx", groups, analyze("frontier", groups))
    with pytest.raises(MisuseError, match="did you mean mlx"):
        pasted("frontier", "mlxx", groups, results)


@needs_models
def test_mlx_quantizes_the_model_as_the_allocation_says() -> None:
    """`mlx.nn.quantize` itself, with the pasted predicate, on the reference model."""
    import mlx.nn as nn
    from taqstore.pipelines.models.backend import backend
    from taqstore.pipelines.models.load import load_pipeline

    model, mx = load_pipeline("reference"), backend().mx
    readers = {r.name.full: r for one in model.inputs() for r in one.readers}
    own = {name: reader.matrix() for name, reader in readers.items()}
    groups = groups_of([*readers], "mlx-w2-g32", "mlx-w4-g64", "mlx-w6-g128")
    known, allocated = text_of("mlx", groups, average=8.0)
    assert len({*allocated.values()}) > 2
    assert "float" in allocated.values()
    nn.quantize(model.mmdit, class_predicate=known["class_predicate"])
    packed = {r: m for r, m in model.mmdit.named_modules() if isinstance(m, nn.QuantizedLinear)}
    assert packed.keys() == known["QUANTIZATION"].keys()
    linear = {weight_layer(path): module for path, module in packed.items()}
    for name, format in allocated.items():
        if format == "float" or name == "x_embedder.embed.image":
            assert parse_layer(name) not in linear
            continue
        module = linear[parse_layer(name)]
        bits, size = int(format[5]), int(format.partition("-g")[2])
        assert (module.bits, module.group_size) == (bits, size)
        expected = mx.quantize(mx.array(own[name]).astype(module.scales.dtype), size, bits)
        assert np.array_equal(np.array(module.weight), np.array(expected[0]))
