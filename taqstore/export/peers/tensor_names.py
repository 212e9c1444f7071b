"""What tensors are called in files of other tools; light, for the command line's choices."""

from __future__ import annotations

from collections.abc import Callable

from taqstore.names import checkpoint_tensor, parse_layer

NAMES: dict[str, Callable[[str], str]] = {
    "taqstore": lambda linear: linear,
    "stable-diffusion.cpp": lambda linear: checkpoint_tensor(parse_layer(linear)),
}
"""Of the full name of a linear, that of its weight in a model."""
