"""One labelled Zarr store for the calibration data of diffusion transformers.

>>> import taqstore
>>> store = taqstore.open_store("run.zarr")                      # doctest: +SKIP
>>> store["pooled/timestep_stats/mlp.fc2"].avg_max.sel(layer="mm0.img")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.version import __version__

__all__ = ["Store", "StoreWriter", "TaqError", "__version__", "create_store", "open_store"]

_HOMES = {
    "open_store": "taqstore.store.reader",
    "Store": "taqstore.store.reader",
    "create_store": "taqstore.store.writer",
    "StoreWriter": "taqstore.store.writer",
    "TaqError": "taqstore.errors",
}

if TYPE_CHECKING:
    from taqstore.errors import TaqError
    from taqstore.store.reader import Store, open_store
    from taqstore.store.writer import StoreWriter, create_store


def __getattr__(name: str) -> object:
    # Names are fetched when used, so that `import taqstore` stays as light as the command line.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
