"""Evaluate: sample a store's prompts and seeds quantized in several ways; tell what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.errors import MisuseError, problem
from taqstore.files.datasets import write_table
from taqstore.files.png import contact_sheet
from taqstore.files.tables import to_table
from taqstore.kinds.weight_sets import ADAROUND, FORMATS, set_folders, weight_sets
from taqstore.run.extras import extra
from taqstore.run.mode import Mode
from taqstore.run.progress import SILENT, Progress
from taqstore.store.reader import Store, open_store
from taqstore.trajectory.bootstrap import bootstrap
from taqstore.trajectory.measures import MIN_COSINE, first_below

from ..judge.figures import joined
from ..judge.judged import Judged, judged, sample, whole_schedule
from ..judge.kept import Sampled
from ..judge.spool import Spool
from ..models.backend import LIBRARIES
from ..models.load import LoadedModel, Tensor
from ..models.sampling import Schedule
from ..run.record import record_run
from ..run.trajectories import Trajectories, load_model_of, read_trajectories
from .claims import claims
from .held_out import held_out as with_held_out
from .held_out import judged_text, observed_images
from .linears_of_variant import Options, Planner
from .measurement import Measure, Measurer
from .variants import Variant, blocks_text, default_variants


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


def evaluate(
    store: Store | str | os.PathLike[str],
    *,
    variants: Sequence[Variant] | None = None,
    images: Iterable[int] | None = None,
    stride: int = 1,
    options: Options | None = None,
    digits: int = 0,
    held_out: int = 0,
    prompts: str | os.PathLike[str] | None = None,
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
    held_out
        Judge so many further images, whose trajectories by the model as it is are kept in
        `trajectories/float` and sampled once; 0: those of the store.
    prompts
        File with their prompts; None: the model's own.
    pictures
        Let the final latents be decoded, once `Evaluation.pictures` is asked for, which takes the
        model's VAE.

    Returns
    -------
    Dataset
        (variant, step): `denoiser_error`, ``|v - v0| / |v0|`` over all images, with v the guided
        output of the model ``(x - denoised) / sigma`` at the latents of the model as it is.
        (variant, block): `sqnr`, 10 log10 of the mean square of the block's output by its mean
        squared error there, in dB; inputs of the block are those of the quantized model.
        `quantized`, whether the variant quantizes the block. (variant,): `weight_bits`, 0 where
        weights stay as they are or do not say it.
        (variant, image): `latent_error`, the same ratio of final latents, each sampled by its
        own; `psnr` of these, dB, the peak being what the model's own spans. (variant, image,
        latent_step): `latent_cosine` of the latents that each sampled, from step 1 to the final.
        (variant,): `accuracy` of the reference model, share of pictures judged to be the digit that
        was asked for; NaN for other models. (variant,): `relative_rms`, the root of the
        denoiser's squared error over all images and steps by its square; `weights_covered`, how
        many weights are rounded; `packed_bytes` that these take, codes and a half-precision scale
        and bias for every step; `float16_share` of them in float16. (image,): `observed`, whether
        the store holds observations of the image.

    Raises
    ------
    MissingError
        The store has no latents with a final step, or not what a variant needs; or no prompts are
        given to a model that makes none.
    MisuseError
        `prompts` without `held_out`, or `held_out` with chosen images.
    TaqError
        The model cannot run.
    """
    opened, options = open_store(store), options or Options()
    if variants:
        options.check(variants)
        check_sets([part for way in variants for part in options.parts(way)], opened)
    if prompts is not None and not held_out:
        raise MisuseError("--prompts is for --held-out images: give both")
    if held_out and images is not None:
        raise MisuseError("--held-out makes images, --images chooses those there are: give one")
    with ExitStack() as stack:
        return _evaluated(
            opened,
            ways=list(variants or ()),
            images=images,
            stride=stride,
            options=options,
            digits=digits,
            held_out=held_out,
            prompts=prompts,
            pictures=pictures,
            model=model,
            local_ckpt=local_ckpt,
            progress=progress,
            stack=stack,
        )


def _evaluated(
    opened: Store,
    *,
    ways: list[Variant],
    images: Iterable[int] | None,
    stride: int,
    options: Options,
    digits: int,
    held_out: int,
    prompts: str | os.PathLike[str] | None,
    pictures: bool,
    model: str | None,
    local_ckpt: str | os.PathLike[str] | None,
    progress: Progress,
    stack: ExitStack,
) -> Evaluation:
    """`evaluate`, of what can be asked; what `stack` holds is let go of at the end."""
    found = read_trajectories(opened, images=images, stride=stride, model=model)
    use = replace(found.use, seeds=found.seeds)
    loaded = load_model_of(found.run, local_ckpt=local_ckpt, use=use)
    planner = Planner(loaded, opened, options)
    ways = list(dict.fromkeys([Variant("float"), *(ways or defaults(planner))]))
    planner = replace(planner, beside=tuple(dict.fromkeys(v.weights for v in ways if v.is_set)))
    for variant in ways:
        planner.check(variant)
    schedule = whole_schedule(found, loaded)
    observed, notes = observed_images(opened, found.latents), list[str]()
    spool = Spool(partial(_of_store, found, loaded, schedule))
    stack.callback(spool.close)
    job = Measurer(found, loaded, schedule, planner.chosen, digits, progress, spool.at)
    if held_out:
        beside = stack.enter_context(
            judged(
                opened,
                count=held_out,
                prompts=prompts,
                model=model,
                mode=Mode(progress=progress),
                loaded=loaded,
            )
        )
        made = replace(with_held_out(beside), steps=found.steps)
        job, observed, notes = replace(job, found=made, plain=beside.at), set(), beside.notes
        _record(beside, held_out, prompts)
    progress.start(len(ways) * job.forwards)
    measures = [job.measure(variant, planner) for variant in ways]
    result = _described(_dataset(measures, ways, job, planner), planner)
    seen = [image in observed for image in job.found.images]
    result = result.assign_coords(observed=("image", seen))
    result.attrs |= {"notes": [*notes, *_claims(result)]}
    result.attrs |= {"judged": judged_text(job.found.images, observed, made=bool(held_out))}
    return Evaluation(
        result, job.prompts, [m.finals for m in measures], loaded if pictures else None
    )


def check_sets(variants: Sequence[Variant], store: Store) -> None:
    """Refuse names that are neither a way to round nor a weight set of the store.

    Raises
    ------
    MisuseError
        There is such a name. One of `adaround` is told later what it lacks.
    """
    known = {ADAROUND, *set_folders(store)}
    strange = [way.name for way in variants if way.is_set and way.weights not in known]
    if strange:
        sets = ", ".join(weight_sets(store)) or "none"
        remedy = f"{', '.join(FORMATS)}, or a weight set of the store"
        what = f"variant {strange[0]!r} is not known"
        raise MisuseError(problem(what, found=f"weight sets: {sets}", remedy=remedy))


def defaults(planner: Planner) -> list[Variant]:
    """The variants that are measured where none is named."""
    options = planner.options
    return default_variants(
        planner.store,
        chosen=planner.chosen,
        rounded=planner.rounded,
        sets=() if planner.rounded else planner.weights.sets,
        bits=planner.bits,
        group_size=options.group_size,
        config=options.config is not None,
    )


def summary(result: xr.Dataset) -> pd.DataFrame:
    """One row for each variant: means, the worst step and block, accuracy where it was judged.

    `sqnr` and `worst_block` are of the blocks that the variant quantizes, which `blocks` names.
    `relative_rms` is one number for all images and steps; `weights` are rounded, `packed_bytes`
    what they take, `of_float16` by what they take in float16. `cosine` is the mean over images and
    steps of the latents' cosine with those of the model as it is, `worst_cosine` the least,
    `bifurcated` how many images have one below 0.95; `_lower` and `_upper` are ends of 95 %
    intervals over images, by the bootstrap.
    """
    denoiser, quantized = result["denoiser_error"], result["quantized"]
    own = result["sqnr"].where(quantized | ~quantized.any("block"))
    names = result["block"].values
    columns: dict[str, Any] = {
        "variant": result["variant"].values.astype(object),
        "blocks": [blocks_text(names[row]) or "none" for row in quantized.values],
        "denoiser_error": denoiser.mean("step").values,
        "worst_step": denoiser.max("step").values,
        "latent_error": result["latent_error"].mean("image").values,
        "sqnr": own.mean("block").values,
        "worst_block": own.min("block").values,
        "accuracy": result["accuracy"].values,
        "relative_rms": result["relative_rms"].values,
        "weights": result["weights_covered"].values,
        "packed_bytes": result["packed_bytes"].values,
        "of_float16": result["float16_share"].values,
        **_of_trajectories(result),
    }
    if np.isnan(columns["accuracy"]).all():
        del columns["accuracy"]
    table = pd.DataFrame(columns)
    table.attrs["dims"] = ["variant"]
    return table


def _of_trajectories(result: xr.Dataset) -> dict[str, Any]:
    """Columns of the latents' likeness, and intervals of means over images."""
    cosine = result["latent_cosine"].transpose("image", "latent_step", "variant").values
    means = {
        "cosine": bootstrap(cosine.mean(axis=1)),
        "latent_error": bootstrap(result["latent_error"].transpose("image", "variant").values),
        "psnr": bootstrap(result["psnr"].transpose("image", "variant").values),
    }
    ends = {f"{name}_{end}": getattr(found, end) for name, found in means.items()
            for end in ("lower", "upper")}  # fmt: skip
    each = np.moveaxis(cosine, 2, 0)
    bifurcated = [int((first_below(one, MIN_COSINE) >= 0).sum()) for one in each]
    return {
        "cosine": means["cosine"].mean,
        "worst_cosine": cosine.min(axis=(0, 1)),
        "bifurcated": bifurcated,
        "psnr": means["psnr"].mean,
        **ends,
    }


_BY = {
    "step": ["denoiser_error"],
    "block": ["sqnr", "quantized"],
    "image": ["latent_error", "psnr"],
    "latent_step": ["latent_cosine"],
}
"""Tables that are written beside the summary, ``by_<dim>.csv``, and what they hold."""


def write_evaluation(found: Evaluation, folder: Path) -> tuple[list[Path], list[str]]:
    """Write tables, then the figure, then a contact sheet where there are pictures.

    `evaluation.csv` is `summary`; `by_step.csv`, `by_block.csv` and `by_image.csv` are the Dataset.

    Returns
    -------
    Paths of what was written, and a line for each picture that could not be had.
    """
    tables = {"evaluation": summary(found.result)}
    tables |= {f"by_{dim}": to_table(found.result[names]) for dim, names in _BY.items()}
    written, notes = [], list[str]()
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_table(table, written[-1], force=True)
    with extra("the figure", notes):
        written.append(_write_figure(found, folder / "evaluation.png"))
    with extra("the figure of trajectories", notes):
        written.append(_write_trajectories(found, folder / "trajectories.png"))
    if found.model is not None:
        with extra("the contact sheet", notes):
            written.append(_write_sheet(found, folder / "contact_sheet.png"))
    return written, notes


def _write_figure(found: Evaluation, path: Path) -> Path:
    from taqstore.plot.evaluation import evaluation_figure
    from taqstore.plot.render import write_picture

    return write_picture(evaluation_figure(found.result), path)


def _write_trajectories(found: Evaluation, path: Path) -> Path:
    from taqstore.plot.parts.trajectories import trajectory_figure
    from taqstore.plot.render import write_picture

    result = found.result.isel(variant=slice(1, None))
    cosine = result["latent_cosine"].transpose("variant", "image", "latent_step").values
    names = [str(name) for name in result["variant"].values]
    return write_picture(trajectory_figure(dict(zip(names, cosine, strict=True))), path)


def _write_sheet(found: Evaluation, path: Path) -> Path:
    names = [str(name) for name in found.result["variant"].values]
    captions = [found.prompts, *[[]] * (len(names) - 1)]
    pictures = found.pictures
    assert pictures is not None
    contact_sheet(list(pictures), path, captions=captions, labels=names)
    return path


def _of_store(found: Trajectories, model: LoadedModel, schedule: Schedule, place: int) -> Sampled:
    """An image of the store, sampled by the model as it is."""
    image = found.images[place]
    return sample(
        model,
        found.prepare(model, image, schedule),
        schedule,
        seed=found.seeds[place],
        latent_size=found.latent_shape[:2],
        where=f"image {image}",
    )


def _record(beside: Judged, count: int, prompts: str | os.PathLike[str] | None) -> None:
    """What was kept in the store; nothing where all of it was there."""
    record_run(
        beside.writer,
        "evaluate",
        beside.kept.outcome,
        parameters={"held_out": count, **beside.run},
        inputs=[] if prompts is None else [Path(prompts)],
        libraries=LIBRARIES,
        resume=True,
    )


def _claims(result: xr.Dataset) -> list[str]:
    others = result.isel(variant=slice(1, None))
    return claims([str(name) for name in others["variant"].values], others["latent_error"].values)


def _dataset(
    measures: Sequence[Measure], ways: Sequence[Variant], job: Measurer, planner: Planner
) -> xr.Dataset:
    figures = [joined(measure.rows) for measure in measures]
    with np.errstate(divide="ignore"):  # the model as it is: no error, infinite SQNR
        sqnr = [
            [10 * np.log10(np.divide(m.block_power[b], m.block_error[b])) for b in job.chosen]
            for m in measures
        ]
    weights, packed = np.array([planner.packed(way) for way in ways], np.int64).T
    share = packed / np.where(weights, 2.0 * weights, np.nan)
    return xr.Dataset(
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
        },
    )


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
