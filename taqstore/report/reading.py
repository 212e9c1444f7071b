"""What the report reads of a store's statistics: each site once, and in blocks of few layers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xarray as xr

from taqstore.analysis.held import held
from taqstore.analysis.shared.inputs import first_complete, is_observed
from taqstore.arrays.lazy import for_a_pass
from taqstore.names import EXTREMA, site_of, site_rank
from taqstore.query.sites import Groups, paths_of

# With all batches and steps: what an analysis makes of a block is several times as much.
_BLOCK_BYTES = 3 << 20
# Of sources that are not held: recut histograms grow in the analyses, few steps at a time.
_STEPS_AT_ONCE = 5
_SITES_AT_ONCE = 2
_UNUSED = ("mean", "m2", "std", "nonfinite")


def groups_of(groups: Groups, source: str) -> dict[str, xr.Dataset]:
    """The groups of one source, sites in the order of a block.

    Observations are `held`: in memory, without batches. Only the extrema of channels are left in
    the store, behind dask, with their batches. Other sources are as they are, behind dask.
    """
    found = statistics_of(groups, source)
    # One site is read and merged while another is: what takes long are reads and sorts.
    with ThreadPoolExecutor(_SITES_AT_ONCE) as pool:
        return dict(zip(found, pool.map(_of_site, found.values()), strict=True))


def statistics_of(groups: Groups, source: str) -> dict[str, xr.Dataset]:
    """The groups of one source as they are, sites in the order of a block."""
    paths = sorted(paths_of(groups, source), key=lambda path: site_rank(site_of(path)))
    return {path: groups[path] for path in paths}


def _of_site(group: xr.Dataset) -> xr.Dataset:
    if not is_observed(group):
        used = group.drop_vars(_UNUSED, errors="ignore")
        few = {"step": _STEPS_AT_ONCE}
        return used.assign({n: _chunked(a, few) for n, a in used.data_vars.items()})
    ends = in_blocks(group[[*first_complete(group, EXTREMA)]])
    return held(group).assign(dict(ends.data_vars))


def in_blocks(group: xr.Dataset) -> xr.Dataset:
    """Behind dask, all that there is of some layers in a block; blocks of a variable are small."""
    found = {}
    # A block is read of the files of all batches in turn: none is needed again soon.
    for name, array in for_a_pass(group, mapped_bytes=0).data_vars.items():
        layers = array.sizes.get("layer", 1)
        size = max(1, _BLOCK_BYTES * layers // max(1, array.nbytes))
        found[name] = _chunked(array, {**dict.fromkeys(array.dims, -1), "layer": size})
    return group.assign(found)


def _chunked(array: xr.DataArray, blocks: Mapping[Any, int]) -> xr.DataArray:
    """The values behind dask; the coordinates stay in memory."""
    here = {dim: size for dim, size in blocks.items() if dim in array.dims}
    found: xr.DataArray = array.copy(data=array.variable.chunk(here).data)
    return found
