"""Ways to quantize a model, by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from taqstore.asked import nearest
from taqstore.errors import MisuseError, problem
from taqstore.kinds.weight_sets import ADAROUND, FORMATS
from taqstore.names import ACTIVATIONS, SITES, Block

if TYPE_CHECKING:
    from taqstore.store.reader import Store

FLOAT, MLX, LEARNED, CONFIG = "float", "mlx", "learned", "config"
NEAREST = ("rtn", "clipped")
COMFY, COMFY_GPTQ, MIXED = "comfy", "comfy-gptq", "mixed"
STEPS = ("static", "step", "grouped", LEARNED)
_WIDTHS = (8, 6, 4)
INPUTS = ("a16", *(f"a{bits}-{steps}" for bits in _WIDTHS for steps in STEPS), CONFIG)
"""What may follow the slash, for shells that complete it; other widths may, too."""
_FORMATS = "|".join(FORMATS)
_PATTERN = re.compile(
    rf"(?:(?P<weights>{_FORMATS})(?:-w(?P<width>[2-8]))?(?:-g(?P<size>[1-9]\d{{0,5}}))?"
    rf"|(?!(?:{_FORMATS})(?![a-z0-9_]))(?P<set>[a-z][a-z0-9_-]{{0,31}}))"
    rf"(?:/(?P<whole>a16)|/a(?P<bits>\d{{1,2}})-(?P<steps>{'|'.join(STEPS)})"
    rf"(?P<mse>-mse)?(?P<shift>-shift)?|/(?P<config>{CONFIG}))?"
    r"(?:@(?P<blocks>[^@]+))?"
)
_NUMBER = re.compile(r"\d{1,4}")


@dataclass(frozen=True)
class Rounded:
    """Weights that were rounded before: a weight set of the store, or a file.

    Parameters
    ----------
    blocks
        Which blocks they are of.
    bits, group_size
        Of the weights; 0 bits: not known, no group size: one step for each output channel.
    activation_bits
        Of the learned steps of their inputs; 0: there are none.
    name
        What variants call them: the weight set.
    """

    blocks: Collection[str]
    bits: int = 0
    group_size: int | None = None
    activation_bits: int = 0
    name: str = ADAROUND


@dataclass(frozen=True)
class Variant:
    """One way; `Variant.parse` makes it of its name.

    Parameters
    ----------
    weights
        `float` (as they are), `rtn` (to nearest, absmax), `clipped` (to nearest, bound of least
        squared error), `mlx` (as MLX quantizes by itself: affine), `comfy` (as ComfyUI's
        `asym_w4a8_int8` does), `comfy-gptq` (the same with codes by GPTQ from the second moments of
        the store), `mixed` (each linear by its own of these, as an allocation says) or a weight set
        of the store.
    bits
        Of inputs; 0: not quantized.
    steps
        `static`: one step size for all steps; `step`: one for each; `grouped`: one for each group
        of steps; `learned`: what AdaRound learned; `config`: those of a config file, bits included.
    mse
        Clip bounds of least expected error instead of the absmax.
    shift
        Shift the channels of post-GELU inputs.
    weight_bits, group_size
        Of weights that are rounded for it; 0: those of `Options`.
    blocks
        Blocks to quantize; none: all that are chosen.
    said
        Whether the name says that inputs are left as they are: `/a16`.
    """

    weights: str
    bits: int = 0
    steps: str = ""
    mse: bool = False
    shift: bool = False
    weight_bits: int = 0
    group_size: int = 0
    blocks: tuple[str, ...] = ()
    said: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Understand `rtn`, `gptq/a16`, `adaround/a8-static`, `float/a4-grouped-shift`, ….

        Raises
        ------
        MisuseError
            It is no such name, or what it says does not go together.
        """
        match = _PATTERN.fullmatch(name)
        if match is None:
            remedy = "write it like rtn, adaround/a8-static, float/a6-step-mse or rtn/a4-step-shift"
            if near := _near(name):
                remedy = f"did you mean {near}? Else {remedy}"
            raise MisuseError(problem(f"variant {name!r} is not known", remedy=remedy))
        rounded, width, size, own, whole, bits, steps, mse, shift, config, where = match.groups()
        weights = rounded or own
        found = cls(
            weights,
            int(bits or 0),
            steps or config or "",
            bool(mse),
            bool(shift),
            int(width or 0),
            int(size or 0),
            parse_blocks(where) if where else (),
            bool(whole),
        )
        if (width or size) and weights in (FLOAT, COMFY, COMFY_GPTQ, MIXED):
            what = f"{name}: only weights that are rounded have bits and groups to choose"
            what += ", and ComfyUI's are 4 and 16" * (weights in (COMFY, COMFY_GPTQ))
            raise MisuseError(problem(what, remedy="write it like rtn-w4-g32"))
        if steps == LEARNED and (not found.is_set or mse or shift):
            what = f"{name}: learned steps go with adaround, and their shifts with them"
            raise MisuseError(problem(what, remedy=f"adaround/a{bits}-{LEARNED}"))
        if bits and not 2 <= found.bits <= 16:
            raise MisuseError(problem("inputs have 2 to 16 bits", where=name, found=bits))
        return found

    @classmethod
    def of_weights(cls, format: str) -> Variant:
        """The weights of one linear, by the format that an allocation gives it.

        Raises
        ------
        MisuseError
            It is no such format, or says more than weights.
        """
        found = cls.parse(format)
        if found != cls(found.weights, weight_bits=found.weight_bits, group_size=found.group_size):
            raise MisuseError(problem(f"{format!r} says more than how weights are rounded"))
        if found.weights == MIXED:
            raise MisuseError(problem("a linear of an allocation is not mixed itself"))
        return found

    @property
    def is_set(self) -> bool:
        """Whether its weights are a weight set, of the store or of a file."""
        return self.weights not in FORMATS

    @property
    def name(self) -> str:
        """What `parse` understands."""
        weights = self.weights
        weights += f"-w{self.weight_bits}" if self.weight_bits else ""
        weights += f"-g{self.group_size}" if self.group_size else ""
        flags = "-mse" * self.mse + "-shift" * self.shift
        inputs = f"/a{self.bits}-{self.steps}{flags}" if self.bits else "/a16" * self.said
        inputs = f"/{CONFIG}" if self.steps == CONFIG else inputs
        return weights + inputs + (f"@{blocks_text(self.blocks)}" if self.blocks else "")


def _near(name: str) -> str:
    """The name that is like one that is none: in how weights are rounded, or in the inputs."""
    weights, slash, inputs = name.partition("/")
    if _PATTERN.fullmatch(weights) is None:
        return f"{near}{slash}{inputs}" if (near := nearest(weights, FORMATS)) else ""
    return f"{weights}/{near}" if (near := nearest(inputs, INPUTS)) else ""


def parse_blocks(text: str) -> tuple[str, ...]:
    """Blocks written as `mm0-5,uni3`.

    Raises
    ------
    MisuseError
        A part is no block and no run of blocks.
    """
    found: list[str] = []
    for part in text.split(","):
        name, dash, end = part.strip().partition("-")
        first = Block.parse(name)
        last = int(end) if _NUMBER.fullmatch(end) else first.index - bool(dash)
        if last < first.index:
            what = f"{part!r} names no blocks"
            raise MisuseError(problem(what, remedy="write them like mm0-5,uni3"))
        found += [Block(first.kind, index).name for index in range(first.index, last + 1)]
    return tuple(dict.fromkeys(found))


def blocks_text(names: Sequence[str]) -> str:
    """Blocks in the order they run, as `parse_blocks` understands them.

    >>> blocks_text(["mm0", "mm1", "mm2", "uni3"])
    'mm0-2,uni3'
    """
    runs: list[list[Block]] = []
    for block in map(Block.parse, names):
        if runs and (block.kind, block.index) == (runs[-1][-1].kind, runs[-1][-1].index + 1):
            runs[-1].append(block)
        else:
            runs.append([block])
    return ",".join(
        run[0].name if len(run) == 1 else f"{run[0].name}-{run[-1].index}" for run in runs
    )


def default_variants(
    store: Store,
    *,
    chosen: Sequence[str],
    rounded: Rounded | None = None,
    sets: Sequence[str] = (),
    bits: int = 4,
    group_size: int | None = None,
    config: bool = False,
) -> list[Variant]:
    """A table worth having: weights alone, inputs alone from 8 to 4 bits, and both together.

    Rounded weights stand beside weights rounded to nearest over the same blocks, with the same bits
    and groups; where those are not the plain ones, the names say it. With `config`, inputs by a
    config file stand at the end.

    Parameters
    ----------
    chosen
        Blocks that are quantized unless a variant names its own.
    rounded
        Weights that were rounded before, if they are of one set or file.
    sets
        Weight sets, of several: each is shown with inputs as they are.
    bits, group_size
        Of weights rounded to nearest whose name does not say them.
    """
    plain = [Variant("rtn"), Variant("clipped")]
    covered = tuple(b for b in chosen if rounded is not None and b in rounded.blocks)
    beside: list[Variant] = []
    if rounded is not None and covered:
        where = () if covered == tuple(chosen) else covered
        width = rounded.bits if rounded.bits not in (0, bits) else 0
        size = (rounded.group_size or 0) if rounded.group_size != group_size else 0
        beside = [replace(v, weight_bits=width, group_size=size, blocks=where) for v in plain]
        beside.append(Variant(rounded.name, blocks=where))
    found = [Variant(FLOAT), *plain, *beside, *map(Variant, sets)]
    # Over the same blocks with other bits, one rounding to nearest suffices with inputs.
    pairs = [*([] if beside and not beside[0].blocks else plain[:1]), *beside[::2]]
    if f"{ACTIVATIONS}/{SITES[0]}" not in store:
        pairs = [Variant(FLOAT)]
    else:
        found += [replace(v, bits=8, steps=s) for v in pairs for s in ("static", "step")]
        if rounded is not None and beside:
            found += _of_rounded(beside[-1], rounded.activation_bits)
        for width in _WIDTHS:
            names = ("static", "grouped", "step", "step-shift")
            found += [Variant.parse(f"float/a{width}-{s}") for s in names]
        found += [Variant.parse(f"float/a4-{s}-mse") for s in ("static", "step")]
    if config:
        found += [replace(v, steps=CONFIG) for v in pairs]
    return list(dict.fromkeys(found))


def _of_rounded(own: Variant, bits: int) -> list[Variant]:
    """What rounded weights are shown with: learned steps, where there are any, and 4 bits."""
    learned = [replace(own, bits=bits, steps=LEARNED)] if bits else []
    return learned + [
        replace(own, bits=4, steps=s, mse=True) for s in ("static", "grouped", "step")
    ]
