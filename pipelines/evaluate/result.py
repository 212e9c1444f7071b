"""Result of an evaluation: what each variant was measured to cost, as one Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from ..judge.figures import joined
from ..models.load import LoadedModel, Tensor
from .linears_of_variant import Planner
from .measurement import Measure, Measurer
from .variants import Variant


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Parameters
    ----------
    result
        Dataset; see `evaluate`.
    prompts
        Of each image.
    finals
        Final latents of each variant and image.
    model
        What decodes them; None: no pictures were asked for.
    """

    result: xr.Dataset
    prompts: list[str]
    finals: Sequence[Sequence[Tensor]] = field(default=(), repr=False)
    model: LoadedModel | None = field(default=None, repr=False)

    @cached_property
    def pictures(self) -> np.ndarray | None:
        """uint8 ``(variant, image, height, width[, 3])``, decoded when they are asked for.

        None where they were not to be had from the start.
        """
        model = self.model
        if model is None:
            return None
        return np.stack([[model.picture(x) for x in latents] for latents in self.finals])


def result_of(
    measures: Sequence[Measure], ways: Sequence[Variant], job: Measurer, planner: Planner
) -> xr.Dataset:
    """Dataset of what was measured, a row of `measures` for each of `ways`; see `evaluate`."""
    figures = [joined(measure.rows) for measure in measures]
    with np.errstate(divide="ignore"):  # the model as it is: no error, infinite SQNR
        sqnr = [
            [10 * np.log10(np.divide(m.block_power[b], m.block_error[b])) for b in job.chosen]
            for m in measures
        ]
    weights, packed = np.array([planner.packed(way) for way in ways], np.int64).T
    share = packed / np.where(weights, 2.0 * weights, np.nan)
    result = xr.Dataset(
        {
            "denoiser_error": (
                ("variant", "step"),
                [np.sqrt(measure.error / measure.power) for measure in measures],
            ),
            "sqnr": (("variant", "block"), np.array(sqnr, np.float64)),
            "latent_error": (
                ("variant", "image"),
                [one.final_error for one in figures],
            ),
            "latent_cosine": (
                ("variant", "image", "latent_step"),
                [one.cosine for one in figures],
            ),
            "psnr": (("variant", "image"), [one.psnr for one in figures]),
            "quantized": (
                ("variant", "block"),
                [[block in planner.blocks_of(way) for block in job.chosen] for way in ways],
            ),
            "accuracy": ("variant", [measure.accuracy for measure in measures]),
            "weight_bits": ("variant", [planner.weight_bits(way) for way in ways]),
            "relative_rms": ("variant", [np.sqrt(m.error.sum() / m.power.sum()) for m in measures]),
            "weights_covered": ("variant", weights),
            "packed_bytes": ("variant", packed),
            "float16_share": ("variant", share),
        },
        {
            "variant": [way.name for way in ways],
            "step": list(job.found.steps),
            "sigma": ("step", job.found.sigmas),
            "block": list(job.chosen),
            "image": list(job.found.images),
            "latent_step": figures[0].steps,
            "latent_sigma": ("latent_step", job.schedule.arrays()[0][figures[0].steps]),
        },
    )
    return _described(result, planner)


def _described(result: xr.Dataset, planner: Planner) -> xr.Dataset:
    """Names and units on the variables, settings on the whole."""
    texts: dict[str, dict[str, Any]] = {
        "denoiser_error": {"long_name": "relative error of the denoiser"},
        "sqnr": {"long_name": "signal to quantization noise of blocks", "units": "dB"},
        "latent_error": {"long_name": "relative error of the final latent"},
        "latent_cosine": {"long_name": "cosine of latents, by step"},
        "psnr": {"long_name": "PSNR of the final latent", "units": "dB"},
        "quantized": {"long_name": "whether the variant quantizes the block"},
        "accuracy": {"long_name": "share of digits drawn as asked for"},
        "weight_bits": {"long_name": "bits of weights, 0: as they are or not known"},
        "relative_rms": {"long_name": "relative RMS of the guided output's error"},
        "weights_covered": {"long_name": "weights that are rounded"},
        "packed_bytes": {"long_name": "bytes of these weights, packed", "units": "B"},
        "float16_share": {"long_name": "bytes of these weights by those in float16"},
    }
    for name, attrs in texts.items():
        result[name].attrs |= attrs
    result.attrs |= {
        "model": planner.model.row.name,
        "blocks": list(planner.chosen),
        "time_groups": planner.options.time_groups,
        "model_weights": planner.weights.total,
        "store_digest": planner.store.digest,
    }
    return result
