"""Profile: post-GELU diagnostics of a store, collected first where they are missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.files.remote import output_path
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import ACTIVATIONS, LATENTS, parse_layer, split_group
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.query.select import select
from taqstore.query.sites import answers
from taqstore.run.extras import extra
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.run.progress import SILENT, Progress
from taqstore.statistics.observation import MANTISSA_BITS
from taqstore.store.reader import Store, open_store

from .collect.collect import collect
from .run.inputs import takes_samples
from .run.space import free_bytes

KINDS = ("summary", "range", "histogram", "channels", "heatmap", "negative")
# Figures with a page for every layer; the others show all layers at once.
LAYERED = ("histogram", "channels")
SITE = "mlp.fc2"
GROUP = f"{ACTIVATIONS}/{SITE}"


@takes_storage_options
def profile(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: Iterable[int] | None = None,
    stride: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    layers: Sequence[str] = (),
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
    dry_run: bool = False,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Print the summary table of post-GELU tensors and draw the five figures into `out`.

    Parameters
    ----------
    store, images, stride, num_samples, seed, model, local_ckpt
        As of `collect`, which runs only for latents, or samples, that have no statistics yet.
    layers
        Layers that get a page of their own, in any spelling or as globs; none: as
        `plot.draw.spread` chooses. What shows all layers at once shows all.
    progress
        Told how far collecting is.
    dry_run
        Draw and write nothing: `Outcome.plan` says what would be collected.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MissingError
        There is no such layer.
    TaqError
        There is nothing to draw, or statistics are missing and the model cannot run; no layer is
        called like one of `layers`, which is said before anything is collected or drawn.
    """
    outcome, opened = Outcome(), open_store(store)
    _check_names(layers)
    chosen = None if images is None else tuple(images)
    if _lacking(opened, chosen, num_samples):
        collected = collect(
            opened,
            images=chosen,
            stride=stride,
            num_samples=num_samples,
            seed=seed,
            sites=[SITE],
            histogram_bits=_histogram_bits(opened),
            images_per_batch=_images_per_batch(opened, num_samples),
            model=model,
            local_ckpt=local_ckpt,
            mode=Mode(resume=True, progress=progress, dry_run=dry_run),
        )
        outcome.notes += collected.notes
        outcome.plan = collected.plan
    if dry_run:
        outcome.plan = outcome.plan or Plan(free=free_bytes(opened.location))
        return outcome
    group = GROUP if GROUP in opened else None
    _check_layers(opened, group, layers)
    for kind in KINDS:
        with extra(f"figure {kind}", outcome.notes):
            _draw(kind, opened, output_path(out), group, layers, outcome)
    if not outcome.files:
        raise TaqError(problem("nothing could be drawn", found=outcome.notes[-1]))
    # Figures are drawn from what was collected, and say so again.
    outcome.notes[:] = dict.fromkeys(outcome.notes)
    return outcome


def _check_names(layers: Sequence[str]) -> None:
    """Refuse what is no layer's name, before the model runs."""
    for part in ",".join(layers).split(",") if layers else ():
        if not set(part) & set("*?["):
            parse_layer(part.strip())


def _check_layers(store: Store, group: str | None, layers: Sequence[str]) -> None:
    """Refuse a layer that no group has of those that can be drawn, before anything is drawn."""
    paths = [group] if group else [path for path in store if split_group(path)[0] in STATISTICS]

    def found(layer: str, path: str) -> Any:
        return select(store[path], layer=layer, site=split_group(path)[1])

    for layer in layers:
        answers(partial(found, layer), paths)


def _draw(
    kind: str, store: Store, out: Path, group: str | None, layers: Sequence[str], outcome: Outcome
) -> None:
    from taqstore.plot.draw import draw, spread

    shown = (list(layers) or spread(kind, store, group=group)) if kind in LAYERED else None
    written, notes = draw(kind, store, out, group=group, layers=shown)
    outcome.files += written
    outcome.notes += notes


def _lacking(store: Store, images: tuple[int, ...] | None, num_samples: int | None) -> bool:
    """Whether post-GELU statistics of what is asked for are not complete.

    Samples that are not asked for are run where nothing else can be drawn.
    """
    if num_samples is not None:
        return True
    if LATENTS not in store:
        return takes_samples(store, None) and not _drawable(store)
    wanted = store[LATENTS]["image"].values if images is None else np.array(images)
    if GROUP not in store:
        return True
    return not np.isin(wanted, store[GROUP]["image"].values).all()


def _drawable(store: Store) -> bool:
    """Whether a store holds statistics, all that were begun complete."""
    if GROUP in store:
        return bool(store.mask(GROUP).all())
    return any(split_group(path)[0] in STATISTICS for path in store)


def _images_per_batch(store: Store, num_samples: int | None) -> int:
    """As statistics that are there have it; samples at one step share a batch as they come."""
    if GROUP not in store or takes_samples(store, num_samples):
        return 1
    return int(store[GROUP].sizes["slot"])


def _histogram_bits(store: Store) -> int:
    if GROUP not in store:
        return MANTISSA_BITS
    return int(store[GROUP]["histogram"].attrs["mantissa_bits"])
