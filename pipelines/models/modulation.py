"""The adaLN parameters of a forward, computed in it: to the bit those that DiffusionKit tables.

`MMDiT.cache_modulation_params` works ahead for every timestep and empties the weights. Computed in
the forward that needs them they cost the same once per forward, hooks see every linear at its step,
linears that run quantized act here too, and the weights stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .backend import backend

# An `mlx.core.array`; MLX is not imported for a type.
Tensor = Any


def modulation(
    mmdit: Any, modules: Sequence[Any], pooled: Tensor, timesteps: Tensor
) -> list[Tensor]:
    """AdaLN parameters of each module ``(row, 1, 1, parameter)``, not evaluated.

    Parameters
    ----------
    modules
        Streams of blocks, and the final layer. All read one tensor, SiLU of the sum of text and
        time.
    pooled
        ``(row, pooled_channel)``.
    timesteps
        ``(row,)`` in the activation dtype.
    """
    text, time = mmdit.y_embedder(pooled), mmdit.t_embedder(timesteps)
    activate, _ = mmdit.final_layer.adaLN_modulation.layers
    given = activate(text[:, None, None, :] + time)
    return [module.adaLN_modulation.layers[1](given) for module in modules]


@contextmanager
def modulated_by(
    modules: Sequence[Any], values: Sequence[Tensor], timestep: Tensor
) -> Iterator[None]:
    """Let modules find these parameters under a timestep until the block ends."""
    key = timestep.item()
    for module, value in zip(modules, values, strict=True):
        module["_modulation_params"] = {key: value}
    try:
        yield
    finally:
        for module in modules:
            module.pop("_modulation_params", None)


def rows_of(timestep: Tensor, rows: int) -> Tensor:
    """A scalar timestep for each row ``(row,)``."""
    return backend().mx.repeat(timestep[None], rows, axis=0)
