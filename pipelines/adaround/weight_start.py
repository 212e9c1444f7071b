"""The weight set that AdaRound starts from, in place of the floating-point weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from taqstore.errors import MissingError, StoreError, problem
from taqstore.kinds.quantized_linears import linear_names_of, quantized_linear, run_of
from taqstore.kinds.weight_sets import set_groups
from taqstore.names import SITES, LayerName, tensor_site
from taqstore.store.reader import Store

from ..models.inputs import block_readers
from ..models.layers import ModelBlock
from ..models.load import LoadedModel
from ..models.rounding import Settings, WeightStart


@dataclass(frozen=True)
class WeightSet:
    """A set of a store, to start from.

    Parameters
    ----------
    store
        Which store.
    name
        Of the set.
    groups
        Its groups by site.
    """

    store: Store
    name: str
    groups: Mapping[str, xr.Dataset]

    @classmethod
    def open(
        cls, store: Store, name: str, blocks: Sequence[ModelBlock], model: LoadedModel
    ) -> WeightSet:
        """Find a set that has every linear of these blocks, of this model.

        Raises
        ------
        MissingError
            There is no such set, or it lacks a linear.
        StoreError
            It is of other weights.
        """
        known = {*linear_names_of(store, set=name)}
        wanted = [reader.name for block in blocks for reader in block_readers(block, SITES)]
        absent = [linear.full for linear in wanted if linear not in known]
        if absent:
            what = f"the set {name} has no {absent[0]}"
            remedy = "start from a set with all linears of the blocks"
            raise MissingError(problem(what, where=str(store.location), remedy=remedy))
        digest = run_of(store, name).get("weights")
        if digest not in (None, model.digest):
            what = f"the set {name} is of other weights"
            raise StoreError(problem(what, where=str(store.location), remedy="--local-ckpt"))
        return cls(store, name, set_groups(store, name))

    def groups_of(self, site: str) -> int:
        """Weight steps of an output channel."""
        return int(self._of(site).sizes["group"])

    def has_offset(self, site: str) -> bool:
        """Whether grids of a site have an offset."""
        return "offset" in self._of(site)

    def _of(self, site: str) -> xr.Dataset:
        return next(data for name, data in self.groups.items() if tensor_site(name) == site)

    def settings(self, given: Settings) -> Settings:
        """Settings with the bits and groups of the set, for what it is measured against."""
        run = run_of(self.store, self.name)
        found: dict[str, Any] = {"group_size": run.get("group_size", given.group_size)}
        return replace(given, bits=run.get("bits", given.bits), **found)

    def summary(self) -> dict[str, Any]:
        """What groups made from this set must agree in."""
        return {"set": self.name, **run_of(self.store, self.name)}

    def of(self, name: LayerName) -> WeightStart:
        """One linear."""
        found = quantized_linear(self.store, name, set=self.name)
        return WeightStart(found.weight, found.step, found.offset, found.bits)
