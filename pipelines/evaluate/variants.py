"""Ways to quantize a model, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taqstore.errors import MisuseError, problem
from taqstore.names import ACTIVATIONS, SITES
from taqstore.store.reader import Store

FLOAT, ADAROUND, LEARNED, CONFIG = "float", "adaround", "learned", "config"
_PATTERN = re.compile(
    r"(?P<weights>float|rtn|clipped|adaround)"
    r"(?:/a(?P<bits>\d{1,2})-(?P<steps>static|step|grouped|learned)(?P<mse>-mse)?(?P<shift>-shift)?"
    rf"|/(?P<config>{CONFIG}))?"
)


@dataclass(frozen=True)
class Variant:
    """One way; `Variant.parse` makes it of its name.

    Parameters
    ----------
    weights
        `float` (as they are), `rtn` (to nearest, absmax), `clipped` (to nearest, bound of least
        squared error) or `adaround` (from the store).
    bits
        Of inputs; 0: not quantized.
    steps
        `static`: one step size for all steps; `step`: one for each; `grouped`: one for each group
        of steps; `learned`: what AdaRound learned; `config`: those of a config file, bits included.
    mse
        Clip bounds of least expected error instead of the absmax.
    shift
        Shift the channels of post-GELU inputs.
    """

    weights: str
    bits: int = 0
    steps: str = ""
    mse: bool = False
    shift: bool = False

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Understand `rtn`, `adaround/a8-static`, `float/a4-grouped-shift`, `rtn/a6-step-mse`, ….

        Raises
        ------
        TaqError
            It is no such name, or what it says does not go together.
        """
        match = _PATTERN.fullmatch(name)
        if match is None:
            remedy = "write it like rtn, adaround/a8-static, float/a6-step-mse or rtn/a4-step-shift"
            raise MisuseError(problem(f"variant {name!r} is not known", remedy=remedy))
        weights, bits, steps, mse, shift, config = match.groups()
        found = cls(weights, int(bits or 0), steps or config or "", bool(mse), bool(shift))
        if steps == LEARNED and (weights != ADAROUND or mse or shift):
            what = f"{name}: learned steps go with adaround, and their shifts with them"
            raise MisuseError(problem(what, remedy=f"adaround/a{bits}-{LEARNED}"))
        if bits and not 2 <= found.bits <= 16:
            raise MisuseError(problem("inputs have 2 to 16 bits", where=name, found=bits))
        return found

    @property
    def name(self) -> str:
        """What `parse` understands."""
        if self.steps == CONFIG:
            return f"{self.weights}/{CONFIG}"
        flags = "-mse" * self.mse + "-shift" * self.shift
        return f"{self.weights}/a{self.bits}-{self.steps}{flags}" if self.bits else self.weights


def default_variants(
    store: Store, *, run: Mapping[str, Any] | None = None, config: bool = False
) -> list[Variant]:
    """A table worth having: weights alone, inputs alone from 8 to 4 bits, and both together.

    Parameters
    ----------
    run
        Settings of quantized weights; None: there are none.
    config
        Whether inputs by a config file stand at the end.
    """
    names = ["float", "rtn", "clipped"]
    both = ["rtn"]
    if run is not None:
        names.append(ADAROUND)
        both.append(ADAROUND)
    if f"{ACTIVATIONS}/{SITES[0]}" not in store:
        return [Variant.parse(name) for name in [*names, *[f"{FLOAT}/{CONFIG}"] * config]]
    names += [f"{w}/a8-{s}" for w in both for s in ("static", "step")]
    if run is not None:
        bits = int(run.get("activation_bits", 0))
        names += [f"{ADAROUND}/a{bits}-{LEARNED}"] if bits else []
        names += [f"{ADAROUND}/a4-{s}" for s in ("static-mse", "grouped-mse", "step-mse")]
    for width in (8, 6, 4):
        names += [f"float/a{width}-{s}" for s in ("static", "grouped", "step", "step-shift")]
    names += ["float/a4-static-mse", "float/a4-step-mse"]
    return [Variant.parse(name) for name in [*names, *[f"{w}/{CONFIG}" for w in both] * config]]
