"""The models that can be run, one row each: everything in which they differ is data.

A place in code is written ``module:function``; a leading dot means this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from taqstore.asked import word_of

DIFFUSIONKIT = "diffusionkit"


@dataclass(frozen=True)
class ModelRow:
    """One model.

    Parameters
    ----------
    name
        What `--model` calls it.
    doc
        What it is, one line.
    hub
        Repository id under which DiffusionKit knows its checkpoint.
    pipeline
        Class of `diffusionkit.mlx` that loads and runs it.
    config
        ``module:function`` giving its `MMDiTConfig`; empty where DiffusionKit has one.
    checkpoint
        ``module:function`` giving the path of weights in this package; empty: from the hub.
    text
        ``diffusionkit``, or ``module:function`` with the signature of the pipeline's `encode_text`.
    decoder
        ``diffusionkit`` (its VAE), or ``module:function`` from a latent (height, width, channel)
        to a uint8 picture.
    judge
        Module with `prompted_share` and `evaluate`, where its pictures can be judged; or empty.
    words
        ``module:function`` giving the words of a prompt and how many the model sees, where its
        text encoder is no tokenizer of DiffusionKit's; or empty.
    prompts
        ``module:function`` that makes prompts of its own, ``(count, seed=…)``; or empty.
    shipped_prompts
        ``module:function`` giving the path of prompts that come with the model, taken where a user
        names none; or empty.
    use_t5
        Whether the T5 encoder is used unless asked otherwise.
    t5
        Whether it can be used, and left out.
    guidance
        Whether a forward has two rows, prompt and negative prompt.
    dtype
        ``float16`` (the pipeline's own half type) or ``float32``: of weights and activations.
    shift, cfg_weight, latent_size
        Defaults for sampling; latent_size is (height, width).
    """

    name: str
    hub: str
    pipeline: str = "DiffusionPipeline"
    config: str = ""
    checkpoint: str = ""
    text: str = DIFFUSIONKIT
    decoder: str = DIFFUSIONKIT
    judge: str = ""
    words: str = ""
    prompts: str = ""
    shipped_prompts: str = ""
    use_t5: bool = False
    t5: tuple[bool, ...] = (False,)
    guidance: bool = True
    dtype: str = "float16"
    shift: float = 3.0
    cfg_weight: float = 7.5
    latent_size: tuple[int, int] = (64, 64)
    doc: str = ""


MODELS: dict[str, ModelRow] = {
    row.name: row
    for row in (
        ModelRow(
            name="reference",
            hub="taqstore/reference",
            config=".reference:config",
            checkpoint=".reference:checkpoint_path",
            text=".reference:encode_text",
            words=".reference:word_count",
            prompts=".reference:digit_prompts",
            shipped_prompts=".reference:prompts_path",
            decoder=".reference:decode",
            judge=".reference.accuracy",
            dtype="float32",
            cfg_weight=3.0,
            latent_size=(8, 8),
            doc="a small MMDiT of handwritten digits that comes with taqstore",
        ),
        ModelRow(
            name="sd3-medium",
            hub="argmaxinc/mlx-stable-diffusion-3-medium",
            use_t5=True,
            t5=(True, False),
            doc="Stable Diffusion 3 Medium",
        ),
        ModelRow(
            name="flux-schnell",
            hub="argmaxinc/mlx-FLUX.1-schnell",
            pipeline="FluxPipeline",
            use_t5=True,
            t5=(True,),
            guidance=False,
            shift=1.0,
            cfg_weight=0.0,
            doc="FLUX.1 schnell",
        ),
    )
}


def find_model(name: str) -> ModelRow:
    """The row called `name`.

    Raises
    ------
    MissingError
        There is none; the message lists those there are.
    """
    return MODELS[word_of(name, MODELS, "model")]


def resolve(spec: str) -> Callable[..., Any]:
    """The function that a row's ``module:function`` names."""
    module, _, function = spec.partition(":")
    found: Callable[..., Any] = getattr(import_module(module, __package__), function)
    return found


def judge_of(row: ModelRow) -> Any:
    """The module that judges pictures of a model; None where there is none."""
    return import_module(row.judge, __package__) if row.judge else None
