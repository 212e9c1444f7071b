"""Evaluate: sample a store's prompts and seeds quantized in several ways; tell what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import xarray as xr

from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.mode import Mode
from taqstore.run.progress import SILENT, Progress
from taqstore.store.reader import Store, open_store

from ..judge.judged import Judged, judged, sample
from ..judge.kept import Sampled
from ..judge.spool import Spool
from ..models.backend import LIBRARIES
from ..models.load import LoadedModel
from ..models.sampling import Schedule
from ..run.record import record_run
from ..run.trajectories import Trajectories
from .asked import ask, check
from .asked import defaults as defaults
from .claims import claims
from .held_out import held_out as with_held_out
from .held_out import judged_text, observed_images
from .linears_of_variant import Options
from .measurement import Measurer
from .planned import evaluate_costs as evaluate_costs
from .result import Evaluation, result_of
from .summary import summary as summary
from .variants import Variant
from .written import write_evaluation as write_evaluation


@takes_storage_options
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
    storage_options: StorageOptions | None = None,
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
    storage_options
        As of `taqstore.open_store`.

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
    check(opened, variants, options, images=images, held_out=held_out, prompts=prompts)
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
    asked = ask(
        opened, ways, options, images=images, stride=stride, model=model, local_ckpt=local_ckpt
    )
    found, loaded, planner, ways = asked.found, asked.model, asked.planner, asked.ways
    schedule = asked.schedule
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
