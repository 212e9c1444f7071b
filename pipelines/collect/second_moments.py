"""Second moments on their way into `second_moments/<site>`: what is asked, its cost, its sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.kinds.second_moments import (
    equal_step_groups,
    put_moments,
    second_moments_template,
)
from taqstore.layout.template import Template, nbytes
from taqstore.names import split_group
from taqstore.place.location import Location
from taqstore.statistics.second_moment import SecondMoment
from taqstore.store.group_writer import GroupWriter

from ..models.inputs import Input
from ..models.load import Tensor, to_numpy
from ..run.groups import RUN
from ..run.space import check_fits

# Images summed into one batch: what a kill loses, and how often the matrices are on the disk.
IMAGES = 8
# Groups of steps: small matrices are kept for each quarter of the steps, so that noise levels can
# be weighed later; a full one of SD3-Medium takes 8.4 GB.
STEP_GROUPS, FULL_STEP_GROUPS = 4, 1
MEMORY = 4 << 30


@dataclass(frozen=True)
class SecondMoments:
    """What is asked of second moments.

    Parameters
    ----------
    block_size
        Channels of a block; None: one block of all.
    step_groups
        Into how many equal groups the steps go, each with sums of its own; None: `STEP_GROUPS`,
        or `FULL_STEP_GROUPS` of full ones, and no more than there are steps.
    images
        Images summed into one batch: a multiple of those that statistics are merged of.
    memory
        Bytes that sums may take. Where those of one group of steps do not fit, the model runs its
        steps several times, some layers at a time.
    """

    block_size: int | None
    step_groups: int | None = None
    images: int = IMAGES
    memory: int = MEMORY

    def groups_of(self, steps: int) -> np.ndarray:
        """Group (step,) of each step.

        Raises
        ------
        TaqError
            More groups than steps are asked for.
        """
        usual = FULL_STEP_GROUPS if self.block_size is None else STEP_GROUPS
        groups = min(usual, steps) if self.step_groups is None else self.step_groups
        if not 1 <= groups <= steps:
            what = f"{groups} groups of steps are asked for, of {steps} steps"
            raise TaqError(problem(what, remedy="choose --second-moment-groups"))
        return equal_step_groups(steps, groups)

    def batches_of(self, images_per_batch: int) -> int:
        """How many batches of statistics make one of second moments.

        Raises
        ------
        MisuseError
            A batch of statistics would belong to two.
        """
        if self.images % images_per_batch:
            what = f"second moments of {self.images} images are no whole batches of statistics"
            remedy = f"make --second-moment-images a multiple of {images_per_batch}"
            raise MisuseError(problem(what, remedy=remedy))
        return self.images // images_per_batch

    def template(
        self, observed: Template, site: str, batches: np.ndarray, group_of: np.ndarray
    ) -> Template:
        """Of a site's group, of the layers and steps that its statistics have."""
        labels = {name: values for name, (_, values) in observed.coords.items()}
        return second_moments_template(
            site,
            layers=[str(layer) for layer in labels["layer"]],
            channels=observed.sizes["channel"],
            block_size=self.block_size,
            steps=labels["step"],
            sigmas=labels["sigma"],
            timesteps=labels["timestep"],
            step_group_of=group_of,
            images=batches,
            attrs={RUN: observed.attrs[RUN]},
        )


def joined_batches(batches: np.ndarray, number: int) -> np.ndarray:
    """Image ids (batch, slot) of so many batches in a row each; -1 where one is smaller."""
    found = np.full((-(-len(batches) // number), number * batches.shape[1]), -1, np.int64)
    for place, start in enumerate(range(0, len(batches), number)):
        images = batches[start : start + number].ravel()
        images = images[images >= 0]
        found[place, : len(images)] = images
    return found


@dataclass(frozen=True)
class Unit:
    """Layers of a site that lie in one shard, and the bytes that their sums take."""

    site: str
    start: int
    layers: tuple[str, ...]
    memory: int


def passes_of(templates: Iterable[Template], memory: int) -> list[tuple[Unit, ...]]:
    """The tensors of each run over the steps of a group: as many as fit, one unit at least."""
    found: list[list[Unit]] = []
    left = -1
    for unit in (unit for template in templates for unit in _units(template)):
        if unit.memory > left:
            found.append([])
            left = memory
        found[-1].append(unit)
        left -= unit.memory
    return [tuple(units) for units in found]


def _units(template: Template) -> Iterable[Unit]:
    site, run = split_group(template.path)[1], template.shard_extent("layer")
    layers = [str(layer) for layer in template.coords["layer"][1]]
    size = template.sizes["channel_row"]
    each = SecondMoment.memory(template.sizes["channel"], size)
    for start in range(0, len(layers), run):
        some = tuple(layers[start : start + run])
        yield Unit(site, start, some, each * len(some))


@dataclass(frozen=True)
class MomentSpace:
    """What second moments will take.

    Parameters
    ----------
    needed, free
        Bytes that will be written, and bytes free there (None: not known).
    memory
        Bytes that sums will hold at once.
    passes
        How often the model runs the same steps.
    """

    needed: int
    free: int | None
    memory: int
    passes: int


def check_space(space: MomentSpace, location: Location) -> None:
    """Refuse what does not fit.

    Raises
    ------
    StoreError
        More would be written than is free.
    """
    remedy = (
        "choose smaller blocks, fewer --second-moment-groups, more --second-moment-images or "
        "fewer --sites"
    )
    what = "bytes of second moments"
    check_fits(space.needed, space.free, location, what=what, remedy=remedy)


def item_bytes(templates: Iterable[Template]) -> int:
    """Bytes of one item of all these groups."""
    return sum(
        nbytes(tuple(template.sizes[dim] for dim in array.dims[2:]), array.dtype)
        for template in templates
        for array in template.arrays
    )


class Sums:
    """Sums of some tensors over the images of a batch at the steps of a group."""

    def __init__(self, groups: Mapping[str, GroupWriter], units: Sequence[Unit]) -> None:
        self._groups, self._units = groups, units
        self._held: dict[tuple[str, str], SecondMoment] = {}
        for unit in units:
            sizes = groups[unit.site].template.sizes
            for layer in unit.layers:
                self._held[unit.site, layer] = SecondMoment(sizes["channel"], sizes["channel_row"])

    @property
    def sites(self) -> set[str]:
        """Sites of the tensors."""
        return {unit.site for unit in self._units}

    def take(self, inputs: Iterable[tuple[Input, Tensor]]) -> None:
        """Add those of the tensors ``(..., channel)`` that are summed here."""
        for one, tensor in inputs:
            sums = self._held.get((one.site, one.layer))
            if sums is not None:
                sums.add(to_numpy(tensor))

    def write(self, batch: int, step_group: int) -> Counter[str]:
        """Write them; returns bytes written by path."""
        found = Counter[str]()
        for unit in self._units:
            group = self._groups[unit.site]
            some = [self._held.pop((unit.site, layer)) for layer in unit.layers]
            found[group.template.path] += put_moments(group, batch, step_group, unit.start, some)
        return found
