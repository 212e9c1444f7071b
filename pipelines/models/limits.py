"""What a model can be asked: checked before it is loaded, or anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from taqstore.asked import MAX_SEED
from taqstore.errors import MisuseError, TaqError, problem

from .backend import backend
from .table import DIFFUSIONKIT, ModelRow, resolve

DTYPES = ("float16", "float32")
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Use:
    """How a model is going to be used; None where it is not asked for.

    Parameters
    ----------
    latent_size, channels
        Of the latents: height and width, and channels, where they are there already.
    steps
        Model calls of an image.
    cfg_weights
        Guidance weights of the images.
    negative
        Negative prompt.
    seeds
        Of the noise that images are made from.
    dtype, shift, use_t5
        In place of the row's.
    """

    latent_size: tuple[int, int] | None = None
    channels: int | None = None
    steps: int | None = None
    cfg_weights: tuple[float, ...] = ()
    negative: str = ""
    seeds: tuple[int, ...] = ()
    dtype: str | None = None
    shift: float | None = None
    use_t5: bool | None = None


def check_use(row: ModelRow, use: Use, *, of_store: bool = False) -> None:
    """Refuse what a model of the table does not take, all of it in one line.

    Parameters
    ----------
    of_store
        Whether a store holds what is named, which no option changes: a TaqError then.

    Raises
    ------
    MisuseError
        Something is beyond its limits, or would have no effect; every such thing is named.
    """
    found = [*_options(row, use), *_guidance(row, use), *_latents(row, use)]
    if found:
        asks = "the store has" if of_store else "asked"
        what = "; ".join(f"{wrong} ({asks} {asked})" for wrong, asked, _ in found)
        if of_store:
            remedy = "another model made them: name it with --model"
            raise TaqError(problem(f"{row.name} {what}", remedy=remedy))
        remedies = dict.fromkeys(option for *_, option in found)
        remedy = f"change {', '.join(remedies)}"
        raise MisuseError(problem(f"{row.name} {what}", remedy=remedy))


Wrong = tuple[str, object, str]


def _options(row: ModelRow, use: Use) -> Iterable[Wrong]:
    if use.dtype is not None and use.dtype not in DTYPES:
        yield f"runs in {' or '.join(DTYPES)}", use.dtype, "--dtype"
    if use.shift is not None and not (isfinite(use.shift) and use.shift > 0):
        yield "needs a shift above 0", use.shift, "--timestep-shift"
    if use.use_t5 is not None and use.use_t5 not in row.t5:
        rule = "always uses T5" if row.t5[0] else "has no T5 encoder"
        yield rule, "--t5" if use.use_t5 else "--no-t5", "--t5"
    if use.steps is not None and not 1 <= use.steps <= _MOST_STEPS:
        yield f"samples in 1 to {_MOST_STEPS} steps", use.steps, "--steps"
    outside = [seed for seed in use.seeds if not 0 <= seed <= MAX_SEED]
    if outside:
        yield f"takes seeds below {MAX_SEED + 1}", outside[0], "--seed"


def _guidance(row: ModelRow, use: Use) -> Iterable[Wrong]:
    rule = "finite and above 0" if row.guidance else "0"
    for weight in dict.fromkeys(use.cfg_weights):
        if not isfinite(weight) or weight < 0 or (weight > 0) != row.guidance:
            yield f"needs a guidance weight that is {rule}", weight, "--cfg"
        elif use.negative and weight <= 1:
            yield (
                "uses a negative prompt above a guidance weight of 1 only",
                weight,
                ("--cfg" if row.guidance else "--negative-prompt"),
            )


def _latents(row: ModelRow, use: Use) -> Iterable[Wrong]:
    if use.latent_size is None:
        return
    config, asked = config_of(row), " ".join(map(str, use.latent_size))
    if any(side < 1 or side % config.patch_size for side in use.latent_size):
        patch = config.patch_size
        yield f"folds latents {patch} by {patch}: each side is a multiple", asked, "--latent-size"
    largest = _largest_side(config)
    if largest is not None and max(use.latent_size) > largest:
        yield f"takes latents of up to {largest} {largest}", asked, "--latent-size"
    if use.channels not in (None, config.vae_latent_dim):
        yield f"takes latents of {config.vae_latent_dim} channels", use.channels, "--model"


def _largest_side(config: Any) -> int | None:
    """The side of its table of positions; None where positions are computed."""
    learned = config.pos_embed_type.name == "LearnedInputEmbedding"
    return int(config.max_latent_resolution) if learned else None


def config_of(row: ModelRow) -> Any:
    """Its `MMDiTConfig`, without loading anything else of it."""
    io = backend().model_io  # a row's own config is of DiffusionKit's class too
    if row.config:
        return resolve(row.config)()
    return io._CONFIG.get(row.hub, io.FLUX_SCHNELL)


def seen_in_part(row: ModelRow, pipeline: Any, prompt: str) -> str:
    """How much of a prompt a loaded pipeline sees; empty where that is all."""
    found = [(*resolve(row.words)(prompt), "words")] if row.words else []
    if row.text == DIFFUSIONKIT:
        names = ("tokenizer_l", "tokenizer_g", *(["t5_tokenizer"] if row.use_t5 else []))
        tokenizers = [getattr(pipeline, name, None) for name in names]
        found += [(_tokens(t, prompt), t.max_length, "tokens") for t in tokenizers if t is not None]
    parts = [f"{most} of {count} {unit}" for count, most, unit in found if count > most]
    return ", ".join(dict.fromkeys(parts))


def _tokens(tokenizer: Any, text: str) -> int:
    """Tokens of a text, all of them: tokenizers cut what is longer than they say."""
    most = tokenizer.max_length
    tokenizer.max_length = 1 << 30
    try:
        return len(tokenizer.tokenize(text))
    finally:
        tokenizer.max_length = most


def short(text: str, longest: int = 40) -> str:
    """A text as messages show it."""
    return text if len(text) <= longest else f"{text[:longest]}…"
