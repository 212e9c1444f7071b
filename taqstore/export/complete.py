"""Layers that a document cannot have, told once for all formats.

A layer, or one of its channels, without a finite value at a step has no number there. Formats would
each leave out, or put in, something else; so such layers never reach them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, TaqError, problem
from taqstore.kinds import nonfinite
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import MODEL_SITES, site_of, split_group, tensor_site

_ROLLUPS = ("tensor_min", "tensor_max")


@dataclass(frozen=True)
class Incomplete:
    """Layers of a group that lack a finite value, each with the first place where it does."""

    places: Mapping[str, str]

    @property
    def sentence(self) -> str:
        """What is missing first, and which other layers miss something."""
        first = next(iter(self.places.values()))
        others = nonfinite.listed(list(self.places)[1:])
        return f"no finite value {first}" + (f", nor in {others} somewhere" if others else "")


class Complete(Mapping[str, xr.Dataset]):
    """Groups as a format is given them: statistics without their incomplete layers.

    Parameters
    ----------
    groups
        A store, or any mapping of group paths to Datasets.
    allow_incomplete
        Leave incomplete layers out and name them in `notes`; else refuse a group that has any.
    blocks_only
        Hand over no statistics of `names.MODEL_SITES`, and name them in `notes`.
    """

    def __init__(
        self,
        groups: Mapping[str, xr.Dataset],
        *,
        allow_incomplete: bool,
        blocks_only: bool = False,
    ) -> None:
        self._groups, self._allow = groups, allow_incomplete
        self._apart = [path for path in groups if blocks_only and _is_outside_blocks(path)]
        self._given: dict[str, xr.Dataset] = {}
        self._found: dict[str, Incomplete | None] = {}

    def __iter__(self) -> Iterator[str]:
        return (path for path in self._groups if not self._is_hidden(path))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, path: object) -> bool:
        return path in self._groups and not self._is_hidden(str(path))

    def __getitem__(self, path: str) -> xr.Dataset:
        """A group.

        Raises
        ------
        TaqError
            Layers are incomplete and that is not allowed.
        MissingError
            There is no such group, or nothing in it.
        """
        if not _is_statistics(path):
            return self._groups[path]
        if path not in self._given:
            self._given[path] = self._checked(path)
        return self._given[path]

    @property
    def notes(self) -> list[str]:
        """What was left out of the sources that were asked, and what is no number in them."""
        asked = {split_group(path)[0] for path in self._given}
        left_out = [
            f"{path}: left out {nonfinite.listed(list(found.places))}: {found.sentence}"
            for path, found in self._found.items()
            if found is not None and split_group(path)[0] in asked
        ]
        paths = [
            path
            for path in self._groups
            if split_group(path)[0] in asked and path not in self._apart
        ]
        apart = [site_of(path) for path in self._apart if split_group(path)[0] in asked]
        if apart:
            left_out.append(f"left out, for it is of linears of blocks: {', '.join(apart)}")
        return [*left_out, *nonfinite.notes(self._groups, paths)]

    def _incomplete(self, path: str) -> Incomplete | None:
        if path not in self._found:
            self._found[path] = incomplete(self._groups[path])
        return self._found[path]

    def _is_gone(self, path: str) -> bool:
        found = self._incomplete(path)
        return found is not None and len(found.places) == self._groups[path].sizes["layer"]

    def _is_hidden(self, path: str) -> bool:
        """Whether no layer of a site is left, while other sites of its source have some.

        And a site that the format does not know.
        """
        if path in self._apart:
            return True
        if not (self._allow and _is_statistics(path) and self._is_gone(path)):
            return False
        source = split_group(path)[0]
        sites = (other for other in self._groups if split_group(other)[0] == source)
        return not all(self._is_gone(other) for other in sites)

    def _checked(self, path: str) -> xr.Dataset:
        dataset = self._groups[path]
        empty = next((dim for dim in nonfinite.CELL if dataset.sizes.get(dim) == 0), None)
        if empty:
            what = f"no {empty} is complete: the export would be empty"
            raise MissingError(problem(what, where=path, remedy="see taqstore info"))
        found = self._incomplete(path)
        if found is None:
            return dataset
        if not self._allow:
            remedy = "--allow-incomplete leaves such layers out, and names them"
            raise TaqError(problem(found.sentence, where=path, remedy=remedy))
        if self._is_gone(path):
            what = f"{found.sentence}: the export would be empty"
            raise MissingError(problem(what, where=path))
        keep = [str(label) not in found.places for label in dataset["layer"].values]
        return dataset.isel(layer=np.flatnonzero(keep))


def _is_outside_blocks(path: str) -> bool:
    return _is_statistics(path) and tensor_site(site_of(path)) in MODEL_SITES


def _is_statistics(path: str) -> bool:
    return split_group(path)[0] in STATISTICS


def incomplete(dataset: xr.Dataset) -> Incomplete | None:
    """Layers of a group of statistics that lack a finite value at a step; None if none does.

    A layer that a pooled source never saw at a step lacks nothing: its own documents leave it out.
    """
    if not {"step", "layer"} <= set(dataset.dims):
        return None
    observed = "nonfinite" in dataset.data_vars
    whole, channel = _unobserved(dataset) if observed else _unpooled(dataset)
    cells = np.argwhere(whole | channel)
    if not len(cells):
        return None
    steps, layers = dataset["step"].values, [str(label) for label in dataset["layer"].values]
    images = nonfinite.images_of(dataset)
    places: dict[str, str] = {}
    for batch, step, layer in sorted(cells.tolist(), key=lambda c: (steps[c[1]], c[2], c[0])):
        within = "of" if whole[batch, step, layer] else "in a channel of"
        place = nonfinite.at(layers[layer], int(steps[step]), images[batch])
        places.setdefault(layers[layer], f"{within} {place}")
    return Incomplete(places)


def _unpooled(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """As `_unobserved`: where a pooled source holds an extremum that is none."""
    counts = (nonfinite.pooled_counts(dataset, rollups=flag) for flag in (True, False))
    whole, channel = (np.asarray(found.any(axis=-1)) for found in counts)
    return whole, channel


def _unobserved(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Whether a tensor, or one of its channels, has no finite value, (batch, step, layer) each."""
    some = np.asarray(nonfinite.observed_counts(dataset).any(axis=-1))
    whole, channel = (np.zeros(some.shape, bool) for _ in range(2))
    for name in _ROLLUPS:
        if name in dataset.data_vars:
            whole |= np.isnan(nonfinite.laid_out(dataset[name]))
    # Channels are many: they are read of batches alone that have something to look for.
    for batch in np.flatnonzero(some.any(axis=(1, 2))) if "min" in dataset.data_vars else ():
        ends = dataset["min"].isel(batch=[batch]) if "batch" in dataset.dims else dataset["min"]
        channel[batch] = np.asarray(np.isnan(nonfinite.laid_out(ends)).any(axis=-1))[0]
    return whole, channel
