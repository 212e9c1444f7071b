"""Evaluate: sample a store's prompts and seeds quantized in several ways; tell what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.files.datasets import write_table
from taqstore.files.png import contact_sheet
from taqstore.files.tables import to_table
from taqstore.run.progress import SILENT, Progress
from taqstore.store.reader import Store, open_store

from ..models.load import LoadedModel, to_numpy
from ..models.sampling import Schedule, restored_schedule
from ..run.trajectories import Trajectories, load_model_of, read_trajectories
from .linears_of_variant import Options, Planner
from .measurement import Measure, Measurer
from .variants import Variant, default_variants


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Parameters
    ----------
    result
        Dataset; see `evaluate`.
    pictures
        uint8 ``(variant, image, height, width[, 3])``; None where they were not asked for.
    prompts
        Of each image.
    """

    result: xr.Dataset
    pictures: np.ndarray | None
    prompts: list[str]


def evaluate(
    store: Store | str | os.PathLike[str],
    *,
    variants: Sequence[Variant] | None = None,
    images: Iterable[int] | None = None,
    stride: int = 1,
    options: Options | None = None,
    digits: int = 0,
    pictures: bool = False,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure variants against the model as it is, which always comes first.

    Parameters
    ----------
    variants
        None: `default_variants`.
    store, images, stride, model, local_ckpt
        As of `cache`; `stride` is that of the steps at which denoiser and blocks are compared.
    options
        Blocks, bits, groups and files; see `Options`.
    digits
        Pictures sampled besides for each variant of the reference model, to judge accuracy by;
        0: the store's own images are judged.
    pictures
        Decode the final latents, which takes the model's VAE.

    Returns
    -------
    Dataset
        (variant, step): `denoiser_error`, ``|v - v0| / |v0|`` over all images, with v the guided
        output of the model ``(x - denoised) / sigma`` at the latents of the model as it is.
        (variant, block): `sqnr`, 10 log10 of the mean square of the block's output by its mean
        squared error there, in dB; inputs of the block are those of the quantized model.
        (variant, image): `latent_error`, the same ratio of final latents, each sampled by its
        own. (variant,): `accuracy` of the reference model, share of pictures judged to be the
        digit that was asked for; NaN for other models.

    Raises
    ------
    MissingError
        The store has no latents with a final step, or not what a variant needs.
    TaqError
        The model cannot run.
    """
    opened = open_store(store)
    found = read_trajectories(opened, images=images, stride=stride, model=model)
    options = options or Options()
    use = replace(found.use, seeds=found.seeds)
    loaded = load_model_of(found.run, local_ckpt=local_ckpt, use=use)
    if pictures:
        loaded.load_decoder()
    planner = Planner(loaded, opened, options)
    run, config = planner.run if planner.has_weights else None, options.config is not None
    asked = variants or default_variants(opened, run=run, config=config)
    ways = list(dict.fromkeys([Variant("float"), *asked]))
    job = Measurer(found, loaded, _whole_schedule(found, loaded), planner.chosen, digits, progress)
    progress.start(len(ways) * job.forwards)
    measures = [job.measure(variant, planner) for variant in ways]
    result = _dataset(measures, ways, job)
    drawn = [[loaded.picture(x) for x in m.finals] for m in measures] if pictures else None
    return Evaluation(
        _described(result, planner), None if drawn is None else np.stack(drawn), job.prompts
    )


def summary(result: xr.Dataset) -> pd.DataFrame:
    """One row for each variant: means, the worst step and block, accuracy where it was judged."""
    denoiser, sqnr = result["denoiser_error"], result["sqnr"]
    columns = {
        "variant": result["variant"].values.astype(object),
        "denoiser_error": denoiser.mean("step").values,
        "worst_step": denoiser.max("step").values,
        "latent_error": result["latent_error"].mean("image").values,
        "sqnr": sqnr.mean("block").values,
        "worst_block": sqnr.min("block").values,
        "accuracy": result["accuracy"].values,
    }
    if np.isnan(columns["accuracy"]).all():
        del columns["accuracy"]
    table = pd.DataFrame(columns)
    table.attrs["dims"] = ["variant"]
    return table


def write_evaluation(found: Evaluation, folder: Path) -> list[Path]:
    """Write figure and tables, and a contact sheet where there are pictures; return their paths.

    `evaluation.csv` is `summary`; `by_step.csv`, `by_block.csv` and `by_image.csv` are the Dataset.
    """
    from taqstore.plot import write_page
    from taqstore.plot.evaluation import evaluation_figure
    from taqstore.plot.parts.panels import Page

    result = found.result
    page = Page("evaluation", evaluation_figure(result), summary(result))
    written = write_page(page, folder, ("png",))
    for dim in ("step", "block", "image"):
        (name,) = (n for n in result.data_vars if dim in result[n].dims)
        written.append(folder / f"by_{dim}.csv")
        write_table(to_table(result[[name]]), written[-1], force=True)
    if found.pictures is None:
        return written
    sheet = folder / "contact_sheet.png"
    names = [str(name) for name in result["variant"].values]
    captions = [found.prompts, *[[]] * (len(names) - 1)]
    contact_sheet(list(found.pictures), sheet, captions=captions, labels=names)
    return [*written, sheet]


def _whole_schedule(found: Trajectories, model: LoadedModel) -> Schedule:
    latents = found.latents
    if not bool(latents["is_final"].values[-1]):
        what = "the latents have no final step, so the schedule cannot be sampled again"
        raise MissingError(problem(what, remedy="generate them, or ingest whole trajectories"))
    return restored_schedule(model, latents["sigma"].values, latents["timestep"].values)


def _dataset(measures: Sequence[Measure], ways: Sequence[Variant], job: Measurer) -> xr.Dataset:
    finals = np.array([[to_numpy(x).ravel() for x in m.finals] for m in measures], np.float64)
    norm = np.linalg.norm(finals[0], axis=-1)
    with np.errstate(divide="ignore"):  # the model as it is: no error, infinite SQNR
        sqnr = [
            [10 * np.log10(np.divide(m.block_power[b], m.block_error[b])) for b in job.chosen]
            for m in measures
        ]
    return xr.Dataset(
        {
            "denoiser_error": (
                ("variant", "step"),
                [np.sqrt(measure.error / measure.power) for measure in measures],
            ),
            "sqnr": (("variant", "block"), np.array(sqnr, np.float64)),
            "latent_error": (
                ("variant", "image"),
                np.linalg.norm(finals - finals[0], axis=-1) / norm,
            ),
            "accuracy": ("variant", [measure.accuracy for measure in measures]),
        },
        {
            "variant": [way.name for way in ways],
            "step": list(job.found.steps),
            "sigma": ("step", job.found.sigmas),
            "block": list(job.chosen),
            "image": list(job.found.images),
        },
    )


def _described(result: xr.Dataset, planner: Planner) -> xr.Dataset:
    """Names and units on the variables, settings on the whole."""
    texts: dict[str, dict[str, Any]] = {
        "denoiser_error": {"long_name": "relative error of the denoiser"},
        "sqnr": {"long_name": "signal to quantization noise of blocks", "units": "dB"},
        "latent_error": {"long_name": "relative error of the final latent"},
        "accuracy": {"long_name": "share of digits drawn as asked for"},
    }
    for name, attrs in texts.items():
        result[name].attrs |= attrs
    result.attrs |= {
        "model": planner.model.row.name,
        "weight_bits": planner.bits,
        "time_groups": planner.options.groups,
        "store_digest": planner.store.digest,
    }
    return result
