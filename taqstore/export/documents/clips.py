"""How the clip bounds of a document are chosen: as `analysis.scales` chooses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import Cuts, per_step
from taqstore.quantization.search import Scheme


@dataclass(frozen=True)
class ClipBound:
    """A rule of clip bounds with its parameters; symmetric, of whole tensors.

    Parameters
    ----------
    clip, percentile, momentum, order, cuts
        As in `analysis.scales`. `tensor_absmax` and `hist_p999` are the source's own two.
    bits
        Width that rules of least error look at.
    """

    clip: Rule = "tensor_absmax"
    percentile: float | None = None
    momentum: float | None = None
    order: Sequence[int] | None = None
    cuts: Cuts = None
    bits: int = 8

    def __post_init__(self) -> None:
        _ = self.rule

    @property
    def rule(self) -> Clip:
        """The rule.

        Raises
        ------
        MisuseError
            Parameters that make no sense, or that the rule does not take.
        """
        return Clip(self.clip, self.percentile, self.momentum, self.order)

    def alpha(self, dataset: xr.Dataset, *, analysis: str) -> xr.DataArray:
        """Clip bound of every step, (step, layer[, projection]) float64.

        Raises
        ------
        MissingError
            The source lacks what the rule needs.
        """
        scheme = Scheme(self.bits, symmetric=True)
        return per_step(dataset, self.cuts, self.rule, scheme, analysis=analysis).upper
