"""`dit-cali-data`: the Phase 1 file, as it was ingested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, save_npz, summarize
from taqstore.names import SAMPLES
from taqstore.query.sites import needed_group
from taqstore.store.attributes import attribute_of

# Key of the file -> variable of the store, in the order of the source.
KEYS = {
    "xs": "x",
    "ts": "timestep",
    "prompt_indices": "prompt_index",
    "cs": "conditioning",
    "cs_pooled": "pooled_conditioning",
    "prompts": "prompt",
}
# Of stores that were made before the dtype of prompts was kept.
_OBJECTS = "object"


def dit_cali_data(groups: Mapping[str, xr.Dataset], out: Path, *, force: bool = False) -> Summary:
    """Write xs, ts, prompt_indices, cs, cs_pooled, prompts and cfg_scale, in the source's dtypes.

    Keys that the source did not have are not written. Prompts that were objects are objects again,
    which NumPy pickles: a reader needs ``allow_pickle=True``, as with the source's own file.

    Raises
    ------
    MissingError
        The store has no `samples`.
    TaqError
        The file exists, or cannot be written.
    """
    group = needed_group(groups, SAMPLES, remedy="ingest a DiT_cali_data.npz").compute()
    dtypes: Mapping[str, Any] = attribute_of(group, "original_dtype", {})
    arrays = {
        key: group[name].values.astype(dtypes.get(key, group[name].dtype), copy=False)
        for key, name in KEYS.items()
        if name in group.variables and name != "prompt"
    }
    prompts = group["prompt"].values.astype(object)
    arrays["prompts"] = prompts.astype(dtypes.get("prompts", _OBJECTS), copy=False)
    arrays["cfg_scale"] = np.array(group.attrs["cfg_scale"], dtypes.get("cfg_scale", "float32"))
    with whole_file(out, force=force) as fresh:
        save_npz(fresh, arrays, pickled=("prompts",))
    total = int(group.attrs.get("rows", group.sizes["sample"]))
    lost = total - group.sizes["sample"]
    return summarize(out, f"{lost} of {total} rows are not whole and left out" if lost else "")
