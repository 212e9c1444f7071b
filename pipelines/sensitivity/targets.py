"""Targets of a model: what can be quantized alone, and what a format cannot be of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as matching
from fnmatch import fnmatchcase

from taqstore.asked import meant, word_of, words_of
from taqstore.errors import MisuseError, TaqError, problem
from taqstore.kinds.second_moments import tensors
from taqstore.names import ACTIVATIONS, EVERY_SITE, SITES
from taqstore.quantization.comfy.rotation import rotation_size
from taqstore.quantization.integer_grid import MLX_BITS, MLX_GROUPS

from ..evaluate.linears_of_variant import Planner
from ..evaluate.variants import COMFY, COMFY_GPTQ, MLX, Variant
from ..models.inputs import Reader
from .formats import Format


@dataclass(frozen=True)
class Target:
    """What is quantized alone.

    Parameters
    ----------
    name
        `mm0.img.attn.q_proj`, `mm0`, `attn.qkv` or `12`.
    readers
        Its linears.
    step
        The only step at which it is quantized; None: all.
    refused
        Why it cannot be in this format; empty: it can.
    """

    name: str
    readers: tuple[Reader, ...] = field(repr=False)
    step: int | None = None
    refused: str = ""

    @property
    def weights(self) -> int:
        """Weights of its linears."""
        return sum(out * into for out, into in (reader.shape for reader in self.readers))

    @property
    def channels(self) -> int:
        """Channels of inputs, over its linears."""
        return sum(reader.shape[1] for reader in self.readers)


def targets_of(unit: str, format: Format, planner: Planner, steps: int) -> list[Target]:
    """Every target that a model has for a format, those that are refused too, in store order."""
    readers = [
        reader
        for name, reader in planner.weights.readers.items()
        if not format.of_inputs or name.site in SITES
    ]
    reason = _reasons(format, planner)
    if unit == "step":
        why = next(filter(None, map(reason, readers)), "")
        return [Target(str(step), tuple(readers), step, why) for step in range(steps)]
    groups: dict[str, list[Reader]] = {}
    for reader in readers:
        groups.setdefault(_KEYS[unit](reader), []).append(reader)
    groups.pop("", None)
    if unit == "site":
        groups = {site: groups[site] for site in EVERY_SITE if site in groups}
    return [
        Target(name, tuple(of), refused=next(filter(None, map(reason, of)), ""))
        for name, of in groups.items()
    ]


_KEYS: Mapping[str, Callable[[Reader], str]] = {
    "linear": lambda reader: reader.name.full,
    "block": lambda reader: reader.name.block if reader.name.in_block else "",
    "site": lambda reader: reader.name.site,
}


@dataclass(frozen=True)
class Asked:
    """Which targets are asked for.

    Parameters
    ----------
    names
        Names or patterns (`mm0.*`); none: all.
    sites, blocks
        Of linears at these sites and in these blocks alone; of unit `site`, or `block`, the same as
        names. None: all.
    """

    names: Sequence[str] = ()
    sites: Sequence[str] | None = None
    blocks: Sequence[str] | None = None

    def check(self, unit: str) -> None:
        """Refuse what does not choose among targets of a unit.

        Raises
        ------
        MisuseError
            Sites or blocks are given where they do not.
        """
        for option, given, units in (
            ("sites", self.sites, ("linear", "site")),
            ("blocks", self.blocks, ("linear", "block")),
        ):
            if given is not None and unit not in units:
                what = f"--{option} does not choose among targets of --unit {unit}"
                raise MisuseError(problem(what, remedy=f"leave --{option} out"))
        for site in self.sites or ():
            word_of(site, EVERY_SITE, "site")

    def takes(self, target: Target) -> bool:
        """Whether a target is asked for."""
        names = [reader.name for reader in target.readers]
        named = not self.names or any(fnmatchcase(target.name, text) for text in self.names)
        at_site = self.sites is None or all(name.site in self.sites for name in names)
        in_block = self.blocks is None or all(name.block in self.blocks for name in names)
        return named and at_site and in_block


def chosen_targets(targets: Sequence[Target], asked: Asked) -> list[Target]:
    """Targets that are asked for, in store order.

    Raises
    ------
    MisuseError
        A name or pattern is of none, or no target is all that is asked for.
    """
    names = [one.name for one in targets]
    blocks = {reader.name.block for one in targets for reader in one.readers}
    idle = [text for text in asked.names if not matching(names, text)]
    if idle:
        raise MisuseError(problem(f"no target {idle[0]!r}", remedy=meant(idle[0], names)))
    words_of(asked.blocks or (), sorted(blocks), "block")
    found = [one for one in targets if asked.takes(one)]
    if not found:
        what = "no target is of these names, sites and blocks"
        raise MisuseError(problem(what, found=f"{len(names)}: {names[0]} to {names[-1]}"))
    return found


def _reasons(format: Format, planner: Planner) -> Callable[[Reader], str]:
    """Why a linear cannot be quantized in a format; empty where it can."""
    store, variant, weights = planner.store, format.variant, planner.weights
    if format.of_inputs:
        return lambda r: "" if f"{ACTIVATIONS}/{r.name.site}" in store else "never observed"
    if variant.is_set:
        there = {*weights.names(variant.weights)}
        return lambda r: "" if r.name in there else f"not in the weight set {variant.weights}"
    if variant.weights == COMFY_GPTQ:
        seen = {*tensors(store)}
        return lambda r: _of_comfy(r) or _unseen(r, seen)
    if variant.weights == COMFY:
        return _of_comfy
    return lambda r: _of_grid(r, variant, planner)


def _unseen(reader: Reader, seen: set[tuple[str, str]]) -> str:
    read = reader.name.input
    return "" if (read.layer, read.site) in seen else f"no second moments of {read.full}"


def _of_comfy(reader: Reader) -> str:
    try:
        rotation_size(reader.shape[1])
    except TaqError as error:
        return str(error)
    return ""


def _of_grid(reader: Reader, variant: Variant, planner: Planner) -> str:
    grid, into = planner.weights.grid(variant, reader), reader.shape[1]
    if variant.weights == MLX and (grid.bits not in MLX_BITS or grid.group_size not in MLX_GROUPS):
        return f"MLX has no {grid.bits} bits in groups of {grid.group_size}"
    if grid.group_size is not None and into % grid.group_size:
        return f"{into} inputs are no groups of {grid.group_size}"
    return ""
