"""One labelled Zarr store for the calibration data of diffusion transformers.

>>> import taqstore
>>> from taqstore.testing import make_store
>>> store = taqstore.open_store(make_store("run.zarr"))  # yours: taqstore.open_store("run.zarr")
>>> mlp = store["activations/mlp.fc2"]
>>> mlp["max"].sel(layer=store.name("mm_00_img")).dims
('batch', 'step', 'channel')
>>> taqstore.analysis.scales(mlp, bits=4)["step_size"].dims
('step', 'layer')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face
from taqstore.version import __version__

if TYPE_CHECKING:
    from taqstore import analysis as analysis
    from taqstore import export as export
    from taqstore import kinds as kinds
    from taqstore import pipelines as pipelines
    from taqstore import plot as plot
    from taqstore import quantization as quantization
    from taqstore import query as query
    from taqstore import report as report
    from taqstore import run as run
    from taqstore import statistics as statistics
    from taqstore import testing as testing
    from taqstore import transfer as transfer
    from taqstore import upkeep as upkeep
    from taqstore.errors import TaqError
    from taqstore.store.reader import Store
    from taqstore.store.writer import StoreWriter, create_store
    from taqstore.together.opening import open_store

__all__ = ["Store", "StoreWriter", "TaqError", "__version__", "create_store", "open_store"]

_ROOMS = (
    *("analysis", "export", "kinds", "pipelines", "plot", "quantization"),
    *("query", "report", "run", "statistics", "testing", "transfer", "upkeep"),
)
lazy_face(
    __name__,
    {
        "Store": "taqstore.store.reader",
        "StoreWriter": "taqstore.store.writer",
        "TaqError": "taqstore.errors",
        "create_store": "taqstore.store.writer",
        "open_store": "taqstore.together.opening",
    },
    rooms=_ROOMS,
)
