"""Text encoder of the reference model: words hashed to fixed vectors, nothing to download.

A word's vector is the output of SHAKE-256 on its spelling, so that every word has one, nearly
orthogonal to all others, the same on every machine. What the vectors mean, the MMDiT learns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import backend

TOKENS = 12
WIDTH = 128
_PAD = ""

Floats = NDArray[np.float32]


def words(text: str) -> list[str]:
    """Lower-case words of a text, at most `TOKENS`; punctuation separates, the rest is dropped."""
    return _all_words(text)[:TOKENS]


def word_count(text: str) -> tuple[int, int]:
    """Words of a text, and how many of them the model sees."""
    return len(_all_words(text)), TOKENS


def _all_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def embed(texts: Sequence[str]) -> tuple[Floats, Floats]:
    """Conditioning of texts.

    Returns
    -------
    tokens
        (N, 12, 128) float32: word plus position, padded; entries of about unit variance.
    pooled
        (N, 128) float32: sum of the word vectors over the root of their number; 0 without words.
    """
    found = [words(text) for text in texts]
    tokens = np.stack([_token_level(each) for each in found])
    pooled = np.stack([_pooled(each) for each in found])
    return tokens, pooled


def encode_text(text: str, cfg_weight: float = 7.5, negative_text: str = "") -> tuple[Any, Any]:
    """Conditioning of a prompt, as `encode_text` of DiffusionKit's pipelines gives it.

    Row 0 is the prompt, row 1 the negative text, which counts above a CFG weight of 1 only.

    Returns
    -------
    conditioning
        (2, 12, 128) float32, token level.
    pooled_conditioning
        (2, 128) float32.
    """
    mx = backend().mx
    tokens, pooled = embed([text, negative_text if cfg_weight > 1 else ""])
    return mx.array(tokens), mx.array(pooled)


def _token_level(found: list[str]) -> Floats:
    padded = found + [_PAD] * (TOKENS - len(found))
    vectors = np.stack([_vector(word) for word in padded])
    return (vectors + _positions()) / np.float32(np.sqrt(2))


def _pooled(found: list[str]) -> Floats:
    if not found:
        return np.zeros(WIDTH, np.float32)
    total = np.sum([_vector(word) for word in found], axis=0, dtype=np.float32)
    return np.asarray(total / np.float32(np.sqrt(len(found))), np.float32)


@lru_cache(maxsize=4096)
def _vector(word: str) -> Floats:
    """Vector (128,) of a word: the bytes of its hash, centred and of unit variance."""
    digest = hashlib.shake_256(word.encode()).digest(WIDTH)
    levels = np.frombuffer(digest, np.uint8).astype(np.float32)
    # Variance of a uniform byte: (256**2 - 1) / 12.
    vector = (levels - np.float32(127.5)) / np.float32(np.sqrt((256**2 - 1) / 12))
    vector.flags.writeable = False
    return vector


@lru_cache(maxsize=1)
def _positions() -> Floats:
    """Vectors (12, 128) of the positions; the space keeps them apart from every word."""
    return np.stack([_vector(f"position {index}") for index in range(TOKENS)])
