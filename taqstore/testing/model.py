"""The synthetic model behind every made file: sizes, schedule, prompts, tensors.

Everything is a pure function of a `RunShape`, a seed and indices, so two files made from one seed
agree with each other and with the raw tensors a test makes anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]

GELU_MINIMUM = -0.1701
SHIFT = 3.0
TRAIN_TIMESTEPS = 1000.0

_SUBJECTS = (
    "a red fox", "two old sailors", "a glass teapot", "an astronaut", "a stone bridge",
    "a street musician", "a sleeping cat", "a paper lantern", "a steam train", "a beekeeper",
)  # fmt: skip
_PLACES = (
    "in a snowy forest", "on a crowded beach", "under neon lights", "beside a quiet lake",
    "on a wooden table", "in an empty museum", "above the clouds",
)  # fmt: skip
_MANNERS = (
    "oil painting", "35mm photograph", "watercolour, soft light", "detailed pencil drawing",
    "wide shot at dusk", "studio portrait", "isometric render", "minimalist poster",
    "film still", "macro photograph", "woodcut print",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunShape:
    """Sizes of a synthetic run: SD3 in miniature by default.

    Parameters
    ----------
    images, steps
        Generated images and denoising steps (`steps + 1` latents per image are kept).
    blocks, unified_blocks
        Multimodal blocks and, after them, unified ones. Without unified blocks the text stream of
        the last block ends at its attention: it has no `o_proj`, `fc1`, `fc2` and no output.
    hidden, ffn_ratio
        Channels of the streams; the post-GELU width is `ffn_ratio * hidden`.
    image_tokens, text_tokens
        Tokens per guidance row; the default exceeds the 256 rows the source scripts sample.
    latent, channels
        Latent height and width, latent channels.
    stats_stride, cache_stride, cache_images
        Every how many steps statistics and block streams are kept, and of how many images the
        block streams.
    """

    images: int = 5
    steps: int = 12
    blocks: int = 3
    unified_blocks: int = 0
    hidden: int = 48
    ffn_ratio: int = 4
    image_tokens: int = 144
    text_tokens: int = 7
    latent: tuple[int, int] = (8, 8)
    channels: int = 16
    stats_stride: int = 3
    cache_stride: int = 5
    cache_images: int = 2

    @property
    def ffn(self) -> int:
        """Channels of an `mlp.fc2` input."""
        return self.ffn_ratio * self.hidden

    @property
    def stats_steps(self) -> list[int]:
        """Step indices at which activation statistics are kept."""
        return list(range(0, self.steps, self.stats_stride))

    @property
    def cache_steps(self) -> list[int]:
        """Step indices at which block streams are kept."""
        return list(range(0, self.steps, self.cache_stride))

    @property
    def cache_image_ids(self) -> list[int]:
        """Images whose block streams are kept, spread evenly as the source script picks them."""
        stride = max(1, self.images // self.cache_images)
        return [i * stride for i in range(min(self.cache_images, self.images))]


def get_sigmas(steps: int) -> NDArray[np.float32]:
    """Noise levels of SD3's flow schedule with shift 3, the way its sampler computes them.

    Parameters
    ----------
    steps
        Number of denoising steps, at least 2.

    Returns
    -------
    float32 (steps + 1,)
        From 1 down to 0; the last non-zero one is 0.0089285714. Every operation is in float32:
        the last bits depend on that and on the form of the interpolation.
    """
    end = _shifted(np.ones(1, np.float32)) * np.float32(TRAIN_TIMESTEPS)
    fraction = np.arange(steps, dtype=np.float32) / np.float32(steps - 1)
    timesteps = np.float32(TRAIN_TIMESTEPS) * (np.float32(1) - fraction) + end * fraction
    return np.append(_shifted(timesteps), np.float32(0))


def _shifted(timesteps: NDArray[np.float32]) -> NDArray[np.float32]:
    t = timesteps / np.float32(TRAIN_TIMESTEPS)
    return np.float32(SHIFT) * t / (np.float32(1) + np.float32(SHIFT - 1) * t)


def get_timesteps(sigmas: NDArray[np.float32]) -> NDArray[np.float16]:
    """What the model is given: `sigma * 1000` cast to float16, up to 0.25 away from the product."""
    return (sigmas * np.float32(TRAIN_TIMESTEPS)).astype(np.float16)


def prompts(n: int, seed: int = 0) -> list[str]:
    """Short, varied English prompts, all different up to n = 770."""
    combined = len(_SUBJECTS) * len(_PLACES) * len(_MANNERS)
    # The three lengths are pairwise coprime, so counting walks through every combination once.
    start = int(np.random.default_rng([seed, 1]).integers(combined))
    return [
        f"{_SUBJECTS[k % len(_SUBJECTS)]} {_PLACES[k % len(_PLACES)]}, "
        f"{_MANNERS[k % len(_MANNERS)]}"
        for k in range(start, start + n)
    ]


def linear_inputs(shape: RunShape) -> dict[str, tuple[str, ...]]:
    """Distinct linear inputs in order of execution, each with the linears that read it.

    Returns
    -------
    dict
        `{"mm0.img.attn.qkv": ("mm0.img.attn.q_proj", ...), "mm0.img.attn.o_proj": (...), ...}`
    """
    inputs: dict[str, tuple[str, ...]] = {}
    for i in range(shape.blocks):
        streams = [f"mm{i}.img", f"mm{i}.txt"]
        inputs.update(_readers(s, "attn.qkv") for s in streams)
        full = streams[:1] if i == shape.blocks - 1 and not shape.unified_blocks else streams
        inputs.update(_readers(s, site) for s in full for site in _AFTER_ATTENTION)
    for i in range(shape.unified_blocks):
        inputs.update(_readers(f"uni{i}", site) for site in ("attn.qkv", *_AFTER_ATTENTION))
    return inputs


_AFTER_ATTENTION = ("attn.o_proj", "mlp.fc1", "mlp.fc2")


def _readers(stream: str, site: str) -> tuple[str, tuple[str, ...]]:
    name = f"{stream}.{site}"
    if site != "attn.qkv":
        return name, (name,)
    return name, tuple(f"{stream}.attn.{p}_proj" for p in "qkv")


def raw_activations(
    shape: RunShape, *, seed: int = 0, image: int = 0, step: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Input tensors of every linear for one image at one step, both guidance rows.

    Heavy-tailed, with a few outlier channels, drifting with sigma; inputs of `mlp.fc2` are
    post-GELU: skewed and never below -0.1701. q, k and v share one array.

    Returns
    -------
    dict of float32 (2 * tokens, channels)
        By full linear name, in order of execution.
    """
    sigma = float(get_sigmas(shape.steps)[step])
    tensors: dict[str, NDArray[np.float32]] = {}
    for index, (name, readers) in enumerate(linear_inputs(shape).items()):
        rng = np.random.default_rng([seed, 2, index, image, step])
        profile = _Profile(seed=seed, index=index, channels=_channels(shape, name))
        x = profile.draw(rng, 2 * _tokens(shape, name), sigma)
        tensors.update(dict.fromkeys(readers, _gelu(x) if name.endswith("mlp.fc2") else x))
    return tensors


def _channels(shape: RunShape, name: str) -> int:
    return shape.ffn if name.endswith("mlp.fc2") else shape.hidden


def _tokens(shape: RunShape, name: str) -> int:
    if name.startswith("uni"):
        return shape.image_tokens + shape.text_tokens
    return shape.image_tokens if ".img." in name else shape.text_tokens


class _Profile:
    """Scales, shifts and drift of one tensor's channels; the same at every image and step."""

    def __init__(self, *, seed: int, index: int, channels: int) -> None:
        rng = np.random.default_rng([seed, 3, index])
        self.scale = np.exp(rng.normal(-0.5, 0.4, channels)).astype(np.float32)
        outliers = rng.choice(channels, max(1, channels // 50), replace=False)
        self.scale[outliers] *= np.float32(rng.uniform(6, 12))
        self.shift = rng.normal(0, 0.3, channels).astype(np.float32)
        self.slope, self.bend = rng.uniform(-0.4, 0.8), rng.uniform(-0.5, 1.0)

    def draw(self, rng: np.random.Generator, rows: int, sigma: float) -> NDArray[np.float32]:
        """Values (rows, channels); z + 0.15 z^3 has tails well beyond a normal's."""
        z = rng.standard_normal((rows, self.scale.size), dtype=np.float32)
        gain = 1 + self.slope * sigma + self.bend * 4 * sigma * (1 - sigma)
        gain *= 1 + 0.1 * float(rng.standard_normal())
        x: NDArray[np.float32] = z * (1 + np.float32(0.15) * z * z)
        x *= self.scale * np.float32(gain)
        x += self.shift
        return x


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    y: NDArray[np.float32] = np.float32(0.5) * x * (1 + np.tanh(inner))
    return y


def latent_trajectory(shape: RunShape, *, seed: int = 0, image: int = 0) -> NDArray[np.float32]:
    """Latents (steps + 1, 1, height, width, channels) of one image, from noise to result."""
    rng = np.random.default_rng([seed, 4, image])
    size = (1, *shape.latent, shape.channels)
    noise = rng.standard_normal(size, dtype=np.float32)
    result = rng.standard_normal(size, dtype=np.float32) * np.float32(1.6)
    sigmas = get_sigmas(shape.steps)[:, None, None, None, None]
    return sigmas * noise + (1 - sigmas) * result


def block_streams(
    shape: RunShape, *, seed: int = 0, image: int = 0, step: int = 0, float16: bool = False
) -> dict[str, list[Float]]:
    """Residual streams before block 0, 1, ... and after the last block that writes them.

    Returns
    -------
    dict of lists of (2, tokens, 1, hidden)
        `img` and `txt` (and `uni`, text tokens first). The first image stream is float16, all
        others float32, as an uncast conditioning makes them; with `float16` all are float16.
    """
    rng = np.random.default_rng([seed, 5, image, step])
    scale = np.exp(np.random.default_rng([seed, 6]).normal(0, 0.5, shape.hidden))
    rest = np.dtype(np.float16 if float16 else np.float32)
    outputs = shape.blocks if shape.unified_blocks else shape.blocks - 1
    img = _residuals(rng, _size(shape, shape.image_tokens), shape.blocks, scale)
    txt = _residuals(rng, _size(shape, shape.text_tokens), outputs, scale)
    streams = {
        "img": [img[0].astype(np.float16), *(x.astype(rest) for x in img[1:])],
        "txt": [x.astype(rest) for x in txt],
    }
    if shape.unified_blocks:
        first = np.concatenate([txt[-1], img[-1]], axis=1)
        uni = _residuals(rng, first.shape, shape.unified_blocks, scale, first=first)
        streams["uni"] = [x.astype(rest) for x in uni]
    return streams


def _size(shape: RunShape, tokens: int) -> tuple[int, ...]:
    return (2, tokens, 1, shape.hidden)


def _residuals(
    rng: np.random.Generator,
    size: tuple[int, ...],
    blocks: int,
    scale: Float,
    *,
    first: NDArray[np.float32] | None = None,
) -> list[NDArray[np.float32]]:
    """Stream before and after each of `blocks` blocks: each adds a small update."""
    width = scale.astype(np.float32)
    x = rng.standard_normal(size, dtype=np.float32) * width if first is None else first
    streams = [x]
    for _ in range(blocks):
        x = x + np.float32(0.3) * width * rng.standard_normal(size, dtype=np.float32)
        streams.append(x)
    return streams
