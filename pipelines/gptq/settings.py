"""Options of `gptq`, and the grid that they make of a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from taqstore.asked import number, whole_number, word_of
from taqstore.errors import MisuseError, problem
from taqstore.names import ADALN, EVERY_SITE, SITES
from taqstore.quantization.defaults import DAMPING
from taqstore.quantization.integer_grid import (
    IntegerGrid,
    StepDtype,
    affine_grid,
    symmetric_grid,
)
from taqstore.quantization.weight_grid import MAX_WEIGHT_BITS, WeightClip

Grid = Literal["affine", "symmetric"]
Fallback = Literal["refuse", "nearest"]

SET = "gptq"
"""Name of the set, unless told otherwise."""
DEFAULT_SITES = (*SITES, ADALN)
"""Blocks and modulation: 99 % of the weights of SD3-Medium, and what a runtime packs. Embedders and
the final layer are on every list of what to leave alone, and 1 %."""


@dataclass(frozen=True)
class GptqSettings:
    """How weights are rounded.

    Parameters
    ----------
    bits
        2 to 8.
    site_bits
        Other bits, by site.
    group_size
        Inputs that share a step; None: all of an output channel.
    grid
        `affine`: from the least to the largest weight of a group, as MLX's packed weights have it.
        `symmetric`: about 0, as AdaRound's.
    clip
        Of symmetric grids: `absmax`, or `mse`: the bound of least squared error, in which each
        input counts by its sum of squares where that is known.
    damping
        As of `taqstore.quantization.gptq.prepare`.
    sigma_power
        Groups of steps count as the mean of ``sigma ** sigma_power`` over their steps, scaled to a
        mean of 1 over all steps.
    step_dtype
        What steps and offsets are rounded to before the integers are made.
    fallback
        Of sites without statistics: `refuse` them, or round them to `nearest`.

    Raises
    ------
    MisuseError
        A value makes no sense.
    """

    bits: int = 4
    site_bits: Mapping[str, int] = field(default_factory=dict)
    group_size: int | None = 64
    grid: Grid = "affine"
    clip: WeightClip = "absmax"
    damping: float = DAMPING
    sigma_power: float = 0.0
    step_dtype: StepDtype = "float16"
    fallback: Fallback = "refuse"

    def __post_init__(self) -> None:
        for site, bits in {"": self.bits, **self.site_bits}.items():
            if site:
                word_of(site, EVERY_SITE, "site")
            whole_number(bits, f"weight bits {site}".strip(), least=2, most=MAX_WEIGHT_BITS)
        if self.group_size is not None:
            whole_number(self.group_size, "group_size", least=1)
        word_of(self.grid, get_args(Grid), "grid")
        word_of(self.clip, get_args(WeightClip), "weight clip")
        word_of(self.step_dtype, get_args(StepDtype), "step dtype")
        word_of(self.fallback, get_args(Fallback), "fallback")
        number(self.damping, "damping", least=0)
        number(self.sigma_power, "sigma power", least=0)
        if self.grid == "affine" and self.clip != "absmax":
            what = "clip bounds are of symmetric grids: an affine one goes from end to end"
            raise MisuseError(problem(what, remedy="--grid symmetric"))

    def bits_of(self, site: str) -> int:
        """Bits of a site's weights."""
        return self.site_bits.get(site, self.bits)

    def grid_of(self, site: str, weight: np.ndarray, diagonal: np.ndarray | None) -> IntegerGrid:
        """Grid of one weight float32 ``(out, in)``.

        Parameters
        ----------
        diagonal
            Sums of squares of its inputs ``(in,)``; None: not known.
        """
        bits, size, dtype = self.bits_of(site), self.group_size, self.step_dtype
        if self.grid == "affine":
            return affine_grid(weight, bits=bits, group_size=size, step_dtype=dtype)
        return symmetric_grid(
            weight,
            bits=bits,
            group_size=size,
            clip=self.clip,
            importance=diagonal,
            step_dtype=dtype,
        )

    def summary(self, site: str) -> dict[str, Any]:
        """What groups of a site made by one run must agree in."""
        return {
            "method": "gptq",
            "bits": self.bits_of(site),
            "group_size": self.group_size,
            "grid": self.grid,
            "clip": self.clip,
            "damping": self.damping,
            "sigma_power": self.sigma_power,
            "step_dtype": self.step_dtype,
        }
