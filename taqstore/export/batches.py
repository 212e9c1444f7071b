"""Some of the observed batches, for formats that are made of statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import split_group
from taqstore.query.select import select


class Batches(Mapping[str, xr.Dataset]):
    """Groups of which the observed ones show some of their batches.

    Parameters
    ----------
    groups
        A store, or any mapping of group paths to Datasets.
    batch
        As `query.select` takes it: ``A:B:S``, or several with commas between.
    """

    def __init__(self, groups: Mapping[str, xr.Dataset], batch: str) -> None:
        self._groups, self._batch = groups, batch

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, path: str) -> xr.Dataset:
        """A group.

        Raises
        ------
        MissingError
            There is no such group, no such batch, or the group was pooled over its batches.
        """
        dataset = self._groups[path]
        if split_group(path)[0] not in STATISTICS:
            return dataset
        if "batch" not in dataset.dims:
            remedy = "leave --batch away, or name observations with --source activations"
            raise MissingError(problem("batches are pooled here", where=path, remedy=remedy))
        return select(dataset, batch=self._batch)
