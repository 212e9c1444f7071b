"""Steps of two runs matched by their noise level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from taqstore.analysis.ranges.steps import Cuts
from taqstore.errors import MissingError, problem


@dataclass(frozen=True)
class Matched:
    """For every step of the second run, the step of the first that is nearest to it.

    Parameters
    ----------
    index
        int64 ``(step,)``: positions in the first run; the noisier one where two are as near.
    first, second
        Labels of those steps, and of the second run's own.
    gap
        float64 ``(step,)``: difference of the noise levels; 0 where steps are matched by label.
    """

    index: npt.NDArray[np.int64]
    first: npt.NDArray[Any]
    second: npt.NDArray[Any]
    gap: npt.NDArray[np.float64]

    @classmethod
    def of(cls, first: xr.Dataset, second: xr.Dataset) -> Matched:
        """Match by `sigma`, or by label where a run does not say it.

        Raises
        ------
        MissingError
            There is no sigma, and steps of the second run are none of the first.
        """
        labels = first["step"].values, second["step"].values
        if "sigma" in first.coords and "sigma" in second.coords:
            sigma = [side["sigma"].values.astype(np.float64) for side in (first, second)]
            apart = np.abs(sigma[1][:, None] - sigma[0])
            index = apart.argmin(axis=1)
            gap = apart[np.arange(len(index)), index]
            return cls(index, labels[0][index], labels[1], gap)
        unknown = np.setdiff1d(labels[1], labels[0])
        if len(unknown):
            what = f"step {unknown[0]} of the second store is none of the first"
            raise MissingError(problem(what, found=", ".join(map(str, labels[0]))))
        index = np.array([labels[0].tolist().index(label) for label in labels[1]], np.int64)
        return cls(index, labels[1], labels[1], np.zeros(len(index)))

    @property
    def is_same(self) -> bool:
        """Whether both runs have the same steps at the same noise levels."""
        return bool((self.gap < 1e-6).all() and len(np.unique(self.index)) == len(self.index))

    def cuts(self, cuts: Cuts, kept: Sequence[int] | None = None) -> Cuts:
        """Cuts of the first run as labels of the second: where its steps reach the cut.

        Parameters
        ----------
        kept
            Positions of the second run's steps that are looked at; all by default.
        """
        if cuts is None or isinstance(cuts, str):
            return cuts
        positions = np.arange(len(self.second)) if kept is None else np.asarray(kept)
        found = [positions[self.first[positions] >= cut][:1] for cut in cuts]
        inner = {int(at[0]) for at in found if len(at) and at[0] != positions[0]}
        return tuple(int(self.second[at]) for at in sorted(inner)) or "static"
