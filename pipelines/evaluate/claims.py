"""Which differences between variants may be claimed, from how many images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from taqstore.trajectory.bootstrap import LEVEL, paired_difference

ENOUGH = 32
"""Images that a difference between two variants takes."""
_NAMED = 8


def claims(names: Sequence[str], errors: np.ndarray) -> list[str]:
    """What may be said of differences of variants' final latents, a line each.

    Parameters
    ----------
    names
        Of variants, the model as it is left out.
    errors
        ``(variant, image)``: relative error of the final latent.
    """
    images = errors.shape[1]
    if images < ENOUGH:
        return [f"no difference claimed: {images} images, {ENOUGH} needed"]
    pairs = list(combinations(range(len(names)), 2))
    open_ones = [
        f"{names[a]} and {names[b]}"
        for a, b in pairs
        if not paired_difference(errors[a], errors[b]).excludes_zero
    ]
    if not pairs:
        return []
    held = len(pairs) - len(open_ones)
    found = f"latent_error: {held} of {len(pairs)} differences hold on {images} images "
    found += f"({LEVEL:.0%} interval of the paired mean excludes 0)"
    if open_ones:
        more = f" and {len(open_ones) - _NAMED} more" if len(open_ones) > _NAMED else ""
        found += f"; no difference claimed: {', '.join(open_ones[:_NAMED])}{more}"
    return [found]
