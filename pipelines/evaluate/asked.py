"""What is asked of `evaluate`: images, the model as it is, variants; refused where it cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from taqstore.asked import listed, nearest
from taqstore.errors import MisuseError, problem
from taqstore.kinds.weight_sets import ADAROUND, FORMATS, set_folders, weight_sets
from taqstore.store.reader import Store

from ..judge.judged import whole_schedule
from ..models.load import LoadedModel
from ..models.sampling import Schedule
from ..run.trajectories import Trajectories, load_model_of, read_trajectories
from .linears_of_variant import Options, Planner
from .variants import Variant, default_variants


@dataclass(frozen=True)
class Asked:
    """What is evaluated: images, the model as it is, variants."""

    found: Trajectories
    model: LoadedModel
    schedule: Schedule
    planner: Planner
    ways: list[Variant]


def ask(
    opened: Store,
    ways: list[Variant],
    options: Options,
    *,
    images: Iterable[int] | None,
    stride: int,
    model: str | None,
    local_ckpt: str | os.PathLike[str] | None,
) -> Asked:
    """Read the images, load the model, and refuse variants that cannot be made."""
    found = read_trajectories(opened, images=images, stride=stride, model=model)
    use = replace(found.use, seeds=found.seeds)
    loaded = load_model_of(found.run, local_ckpt=local_ckpt, use=use)
    planner = Planner(loaded, opened, options)
    ways = list(dict.fromkeys([Variant("float"), *(ways or defaults(planner))]))
    planner = replace(planner, beside=tuple(dict.fromkeys(v.weights for v in ways if v.is_set)))
    for variant in ways:
        planner.check(variant)
    return Asked(found, loaded, whole_schedule(found, loaded), planner, ways)


def check(
    store: Store,
    variants: Sequence[Variant] | None,
    options: Options,
    *,
    images: Iterable[int] | None,
    held_out: int,
    prompts: str | os.PathLike[str] | None,
) -> None:
    """Refuse what does not go together, before anything is loaded."""
    if variants:
        options.check(variants)
        check_sets([part for way in variants for part in options.parts(way)], store)
    if prompts is not None and not held_out:
        raise MisuseError("--prompts is for --held-out images: give both")
    if held_out and images is not None:
        raise MisuseError("--held-out makes images, --images chooses those there are: give one")


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
        name, weights = strange[0].name, strange[0].weights
        what, sets = f"variant {name!r} is not known", weight_sets(store)
        words = dict.fromkeys((*FORMATS, *sets))
        remedy = listed(words)
        if near := nearest(weights, words):
            remedy = f"did you mean {name.replace(weights, near, 1)}? Weights are {remedy}"
        if not sets:
            remedy += "; the store holds no weight set yet; taqstore gptq STORE makes one"
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
