"""One tensor -> observations that merge: extrema, moments, histograms. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.statistics.bins import Layout as Layout
    from taqstore.statistics.histogram import absolute_quantile as absolute_quantile
    from taqstore.statistics.histogram import count as count
    from taqstore.statistics.histogram import quantile as quantile
    from taqstore.statistics.moments import Moments as Moments
    from taqstore.statistics.moving_average import ema_float32 as ema_float32
    from taqstore.statistics.moving_average import ema_midpoint as ema_midpoint
    from taqstore.statistics.moving_average import running_mean_float32 as running_mean_float32
    from taqstore.statistics.observation import Accumulator as Accumulator
    from taqstore.statistics.observation import Observation as Observation
    from taqstore.statistics.observation import merge as merge
    from taqstore.statistics.observation import observe as observe
    from taqstore.statistics.observation import observe_each as observe_each
    from taqstore.statistics.second_moment import SecondMoment as SecondMoment

lazy_face(
    __name__,
    {
        "Accumulator": "taqstore.statistics.observation",
        "Layout": "taqstore.statistics.bins",
        "Moments": "taqstore.statistics.moments",
        "Observation": "taqstore.statistics.observation",
        "SecondMoment": "taqstore.statistics.second_moment",
        "absolute_quantile": "taqstore.statistics.histogram",
        "count": "taqstore.statistics.histogram",
        "ema_float32": "taqstore.statistics.moving_average",
        "ema_midpoint": "taqstore.statistics.moving_average",
        "merge": "taqstore.statistics.observation",
        "observe": "taqstore.statistics.observation",
        "observe_each": "taqstore.statistics.observation",
        "quantile": "taqstore.statistics.histogram",
        "running_mean_float32": "taqstore.statistics.moving_average",
    },
)
