"""Synthetic runs in the formats of the source scripts, for tests, docs, demos and benchmarks.

Everything follows from sizes and a seed: the same call writes the same bytes. Statistics in the
files are computed from `raw_activations` by the source's own formulas, without the library's code,
so they are an independent check of whatever reads them.

>>> from taqstore.testing import RunShape, make_run_folder
>>> folder = make_run_folder("calibration_data", shape=RunShape(images=2))
>>> sorted(path.name for path in folder.iterdir())
['activations', 'adaround_cache', 'latents', 'manifest.json', 'samples']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.testing.activations import (
    make_activation_stats_v1,
    make_activations,
    make_unnamed_statistics,
)
from taqstore.testing.bulk import make_block_cache, make_sd3_latents, make_sd3_statistics
from taqstore.testing.model import (
    RunShape,
    get_sigmas,
    get_timesteps,
    linear_inputs,
    prompts,
    raw_activations,
)
from taqstore.testing.phase import make_phase1, make_postgelu
from taqstore.testing.run_folder import make_adaround_cache, make_latents, make_run_folder
from taqstore.testing.schedule import make_lut_schedule, make_poly_schedule

if TYPE_CHECKING:
    from taqstore.testing.bulk_store import make_sd3_store
    from taqstore.testing.second_moments import make_second_moments
    from taqstore.testing.store import make_store

__all__ = [
    "RunShape",
    "get_sigmas",
    "get_timesteps",
    "linear_inputs",
    "make_activation_stats_v1",
    "make_activations",
    "make_adaround_cache",
    "make_block_cache",
    "make_latents",
    "make_lut_schedule",
    "make_phase1",
    "make_poly_schedule",
    "make_postgelu",
    "make_run_folder",
    "make_sd3_latents",
    "make_sd3_statistics",
    "make_sd3_store",
    "make_second_moments",
    "make_store",
    "make_unnamed_statistics",
    "prompts",
    "raw_activations",
]


def __getattr__(name: str) -> object:
    # Only these makers need a store library; the others must import with NumPy alone.
    if name == "make_store":
        from taqstore.testing.store import make_store

        return make_store
    if name == "make_sd3_store":
        from taqstore.testing.bulk_store import make_sd3_store

        return make_sd3_store
    if name == "make_second_moments":
        from taqstore.testing.second_moments import make_second_moments

        return make_second_moments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
