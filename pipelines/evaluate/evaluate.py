"""Evaluate: sample a store's prompts and seeds quantized in several ways; tell what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import xarray as xr

from taqstore.asked import meant
from taqstore.errors import MisuseError, problem
from taqstore.kinds.weight_sets import ADAROUND, FORMATS, set_folders, weight_sets
from taqstore.run.mode import Mode
from taqstore.run.progress import SILENT, Progress
from taqstore.store.reader import Store, open_store

from ..judge.judged import Judged, judged, sample, whole_schedule
from ..judge.kept import Sampled
from ..judge.spool import Spool
from ..models.backend import LIBRARIES
from ..models.load import LoadedModel
from ..models.sampling import Schedule
from ..run.record import record_run
from ..run.trajectories import Trajectories, load_model_of, read_trajectories
from .claims import claims
from .held_out import held_out as with_held_out
from .held_out import judged_text, observed_images
from .linears_of_variant import Options, Planner
from .measurement import Measurer
from .result import Evaluation, result_of
from .summary import summary as summary
from .variants import Variant, default_variants
from .written import write_evaluation as write_evaluation


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
    result = result_of(measures, ways, job, planner)
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
    strange = [way for way in variants if way.is_set and way.weights not in known]
    if strange:
        what = f"variant {strange[0].name!r} is not known"
        remedy = meant(strange[0].weights, (*FORMATS, *weight_sets(store)))
        raise MisuseError(problem(what, remedy=remedy))


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
