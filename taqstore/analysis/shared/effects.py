"""What several changes of a model do together, from what each does alone.

Two predictions. *First order*: effects add as vectors, ``|sum of deltas|``, which knows that some
cancel. *Root of the sum of squares*: they add as if they were independent, which needs no vectors
and is a sum over parts, so that the best choice can be found exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.statistics.bins import Floats

Ints = NDArray[np.int64]
Groups = Mapping[str, xr.Dataset]
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Effects:
    """Sensitivities of the same images in several formats.

    Parameters
    ----------
    formats
        Their names.
    datasets
        Of each format, as of `kinds.sensitivities`.
    """

    formats: tuple[str, ...]
    datasets: tuple[xr.Dataset, ...]

    @classmethod
    def of(cls, found: Mapping[str, xr.Dataset]) -> Effects:
        """Effects on the images that all formats have.

        Raises
        ------
        MissingError
            There is no such image.
        """
        keys = [_keys(dataset) for dataset in found.values()]
        shared = [key for key in keys[0] if all(key in other for other in keys[1:])]
        if not shared:
            what = "the sensitivities have no image in common"
            remedy = "measure the formats on the same images, or choose among them with --format"
            raise MissingError(problem(what, found=", ".join(found), remedy=remedy))
        chosen = [
            dataset.isel(image=[known.index(key) for key in shared])
            for dataset, known in zip(found.values(), keys, strict=True)
        ]
        return cls(tuple(found), tuple(chosen))

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets of any format, in the order they are first met."""
        names = (str(name) for data in self.datasets for name in data["target"].values)
        return tuple(dict.fromkeys(names))

    @property
    def norm(self) -> Floats:
        """``(image,)``: L2 norm of the float model's final latent."""
        first = self.datasets[0]["latent_norm"].isel(target=0)
        return np.asarray(first.values, np.float64)

    def squares(self) -> Floats:
        """``(target, format)``: mean over images of |delta|^2 / |final|^2.

        NaN: not measured. Infinite: the final latent of an image was no number.
        """
        found = np.full((len(self.targets), len(self.formats)), np.nan)
        place = {name: index for index, name in enumerate(self.targets)}
        for column, data in enumerate(self.datasets):
            rows = [place[str(name)] for name in data["target"].values]
            error = np.asarray(data["latent_error"].transpose("target", "image").values)
            known = np.where(np.isfinite(error), error, np.inf)
            found[rows, column] = np.square(known).mean(axis=1)
        return found

    def broken(self) -> list[tuple[str, str]]:
        """Targets and formats with which the final latent of an image was no number."""
        rows, columns = np.nonzero(np.isinf(self.squares()))
        return [(self.targets[r], self.formats[c]) for r, c in zip(rows, columns, strict=True)]

    def together(self, chosen: Ints) -> Floats:
        """``(row, image)``: |sum of deltas| / |final|; infinite where one of them is no number.

        Parameters
        ----------
        chosen
            ``(row, target)`` which format each target has; -1: it is as it was. Deltas are read for
            an image at a time, a block of targets of it.
        """
        sums = [self._of_image(image, chosen) for image in range(len(self.norm))]
        return np.stack(sums, axis=1) / self.norm

    def _of_image(self, image: int, chosen: Ints) -> Floats:
        place = {name: index for index, name in enumerate(self.targets)}
        total: Any = np.zeros((len(chosen), 1))
        for column, data in enumerate(self.datasets):
            names = [place[str(name)] for name in data["target"].values]
            used = [at for at, index in enumerate(names) if (chosen[:, index] == column).any()]
            delta = data["delta"].isel(image=image).transpose("target", ...)
            width = max(1, _BLOCK_BYTES // max(1, delta.nbytes // max(1, len(names))))
            for start in range(0, len(used), width):
                block = used[start : start + width]
                values = np.asarray(delta.isel(target=block).values, np.float64)
                values = values.reshape(len(block), -1)
                taken = chosen[:, [names[at] for at in block]] == column
                whole = np.isfinite(values).all(axis=1)
                # Nothing times what is no number is no number: such rows are left out, and told.
                total = total + taken[:, whole].astype(np.float64) @ values[whole]
                total[taken[:, ~whole].any(axis=1)] = np.inf
        found: Floats = np.linalg.norm(total, axis=-1)
        return found


def _keys(dataset: xr.Dataset) -> list[tuple[str, int, float]]:
    """What an image is: the same key is the same trajectory."""
    columns = [dataset[name].values.tolist() for name in ("prompt", "seed", "cfg_weight")]
    return [(str(p), int(s), float(w)) for p, s, w in zip(*columns, strict=True)]


def root_mean_square(values: Floats) -> Floats:
    """Over the last axis."""
    found: Floats = np.sqrt(np.square(values).mean(axis=-1))
    return found


def chosen_formats(there: Sequence[str], asked: Sequence[str], *, what: str) -> list[str]:
    """Formats that are asked for, or all of them.

    Raises
    ------
    MissingError
        One is not there.
    """
    absent = [name for name in asked if name not in there]
    if absent or not there:
        missing = f"no {what} of {absent[0]}" if absent else f"no {what}"
        near = f"{meant(absent[0], there)}; " if absent and there else ""
        remedy = f"{near}taqstore sensitivity measures them"
        raise MissingError(problem(missing, remedy=remedy))
    return list(dict.fromkeys(asked)) or list(there)
