"""Raw tensors of a forward, seen without the library's observers: `nn.Linear` itself is patched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel

needs_models = pytest.mark.skipif(
    find_spec("mlx") is None or find_spec("diffusionkit") is None,
    reason="needs the extra `models` and diffusionkit",
)

PARTS = {"q_proj": "attn", "k_proj": "attn", "v_proj": "attn", "o_proj": "attn"} | {
    "fc1": "mlp",
    "fc2": "mlp",
}


def streams_of_blocks(mmdit: Any) -> dict[str, Any]:
    """Module of every stream of every block by its layer, written out by hand."""
    halves = {}
    for i, block in enumerate(mmdit.multimodal_transformer_blocks):
        halves[f"mm{i}.img"] = block.image_transformer_block
        halves[f"mm{i}.txt"] = block.text_transformer_block
    for i, block in enumerate(getattr(mmdit, "unified_transformer_blocks", [])):
        halves[f"uni{i}"] = block.transformer_block
    return halves


def full_names(mmdit: Any) -> dict[int, str]:
    """Full name of every linear of the blocks by id of its module, written out by hand."""
    halves = streams_of_blocks(mmdit)
    last = f"mm{len(mmdit.multimodal_transformer_blocks) - 1}.txt"
    unused = ("o_proj", "fc1", "fc2") if mmdit.config.depth_unified == 0 else ()
    return {
        id(half[section][part]): f"{layer}.{section}.{part}"
        for layer, half in halves.items()
        for part, section in PARTS.items()
        if not (layer == last and part in unused)
    }


def model_names(mmdit: Any) -> dict[int, str]:
    """The same of every other linear and the convolution, adaLN linears of blocks included."""
    halves = streams_of_blocks(mmdit)
    found = {f"{n}.adaln.linear": half.adaLN_modulation.layers[1] for n, half in halves.items()}
    found |= {
        "x_embedder.embed.image": mmdit.x_embedder.proj,
        "context_embedder.embed.text": mmdit.context_embedder,
        "y_embedder.pooled.fc1": mmdit.y_embedder.mlp.layers[0],
        "y_embedder.pooled.fc2": mmdit.y_embedder.mlp.layers[2],
        "t_embedder.time.fc1": mmdit.t_embedder.mlp.layers[0],
        "t_embedder.time.fc2": mmdit.t_embedder.mlp.layers[2],
        "final_layer.final.linear": mmdit.final_layer.linear,
        "final_layer.adaln.linear": mmdit.final_layer.adaLN_modulation.layers[1],
    }
    return {id(module): name for name, module in found.items()}


@contextmanager
def patched_linears(patch: pytest.MonkeyPatch) -> Iterator[dict[int, np.ndarray]]:
    """Input of every linear and convolution by id of its module, whole classes patched."""
    import mlx.nn as nn

    mx, seen = backend().mx, dict[int, np.ndarray]()

    def calling(run: Any) -> Any:
        def call(self: Any, x: Any) -> Any:
            wide = x.astype(mx.float32) if x.dtype == mx.bfloat16 else x
            seen[id(self)] = np.array(wide)
            return run(self, x)

        return call

    with patch.context() as context:
        for kind in (nn.Linear, nn.Conv2d):
            context.setattr(kind, "__call__", calling(kind.__call__))
        yield seen


def reset_modulation(model: LoadedModel) -> None:
    """Undo what DiffusionKit's `cache_modulation_params` does: weights emptied, tables left."""
    mmdit = model.mmdit
    for _, module in mmdit.named_modules():
        module.pop("_modulation_params", None)
    mmdit.pop("to_offload", None)
    mmdit.load_weights(model.pipeline.load_mmdit(only_modulation_dict=True), strict=False)


def raw_inputs(
    model: LoadedModel, patch: pytest.MonkeyPatch, x: np.ndarray, *, prompt: str, cfg: float,
    timestep: np.generic, sigma: np.float32, named: Callable[[Any], dict[int, str]] = full_names,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Inputs ``(rows, channel)`` of all linears, the model driven by DiffusionKit's own calls.

    A convolution's is as it is called, ``(row, height, width, channel)``.
    """
    mx, pipeline = backend().mx, model.pipeline
    dtype = pipeline.activation_dtype
    tokens, pooled = pipeline.encode_text(prompt, cfg, "")
    times = mx.array(np.array([timestep])).astype(dtype)
    with patched_linears(patch) as seen:
        pipeline.mmdit.cache_modulation_params(pooled.astype(dtype), times)
        denoised = backend().pipelines.CFGDenoiser(pipeline)(
            mx.array(x[None]), times[0], mx.array(sigma), tokens.astype(dtype), cfg
        )
        mx.eval(denoised)
    reset_modulation(model)
    names = named(pipeline.mmdit)
    found = {names[key]: tensor for key, tensor in seen.items() if key in names}
    assert len(found) == len(names)
    return {
        name: tensor if name == "x_embedder.embed.image" else tensor.reshape(-1, tensor.shape[-1])
        for name, tensor in found.items()
    }


def naive_histogram(x: np.ndarray, mantissa_bits: int) -> np.ndarray:
    """Counts in float-bit-prefix bins, their edges from the closed form (1 + k/2^m) 2^e."""
    exponents, bias = {2: (31, 15), 4: (255, 127)}[x.dtype.itemsize]
    steps = np.arange(2**mantissa_bits) / 2**mantissa_bits
    edges = [steps * 2.0 ** (1 - bias)]
    edges += [(1 + steps) * 2.0 ** (e - bias) for e in range(1, exponents)]
    magnitudes = np.concatenate([*edges, [2.0 ** (exponents - bias)]])
    values = x.astype(np.float64).ravel()
    place = np.searchsorted(magnitudes, np.abs(values), side="right") - 1
    half = len(magnitudes) - 1
    index = np.where(values < 0, half - 1 - place, half + place)
    return np.bincount(index, minlength=2 * half)
