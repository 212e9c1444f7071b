"""What the name of a format of inputs says: `a4-static`, `a8-step-mse`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from taqstore.asked import nearest
from taqstore.errors import MisuseError, problem

_STEPS = ("static", "step", "grouped")
_NAME = re.compile(
    rf"a(?P<bits>\d{{1,2}})-(?P<steps>{'|'.join(_STEPS)})(?P<mse>-mse)?(?P<shift>-shift)?"
)


@dataclass(frozen=True)
class InputFormat:
    """How inputs of linears are quantized.

    Parameters
    ----------
    bits
        2 to 16.
    steps
        `static`, `step` or `grouped`, as `taqstore evaluate --variant` has them.
    mse
        Clip bounds of least expected error instead of the absmax.
    shift
        Channels of post-GELU inputs are shifted.
    """

    bits: int
    steps: str
    mse: bool = False
    shift: bool = False

    @classmethod
    def parse(cls, name: str) -> InputFormat:
        """Understand `a4-static`, `a8-step-mse`.

        Raises
        ------
        MisuseError
            It is no such format.
        """
        match = _NAME.fullmatch(name)
        if match is None or not 2 <= int(match["bits"]) <= 16:
            what, remedy = f"{name!r} is no format of inputs", "write it like a4-static or a8-step"
            near = nearest(name, [f"a{bits}-{steps}" for bits in range(2, 17) for steps in _STEPS])
            remedy = f"did you mean {near}? Else {remedy}" if near else remedy
            raise MisuseError(problem(what, remedy=remedy))
        return cls(int(match["bits"]), match["steps"], bool(match["mse"]), bool(match["shift"]))

    @property
    def name(self) -> str:
        """What `parse` understands."""
        return f"a{self.bits}-{self.steps}" + "-mse" * self.mse + "-shift" * self.shift

    def with_bits(self, bits: int) -> str:
        """Name of the same with other bits."""
        return replace(self, bits=bits).name
