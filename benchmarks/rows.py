"""Rows of the report: what was asked, the ratio, the target and whether it is reached."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from .measure import Ratio

Unit = Literal["s", "B"]

_MEASURED_PACKAGES = (
    "numpy", "xarray", "zarr", "dask", "orjson", "isal", "h5py", "tensorstore",
    "torch", "onnxruntime", "mlx",
)  # fmt: skip
_JUDGED = ("question", "ours", "against", "ratio", "spread", "of", "target", "reached")
_TITLES = (*_JUDGED, "peak", "ours", "theirs")


@dataclass(frozen=True)
class Target:
    """What the ratio has to be.

    Parameters
    ----------
    bound
        The ratio to reach.
    at_least
        True: how many times faster we are, theirs / ours. False: how many times slower, larger or
        heavier we may be, ours / theirs.
    """

    bound: float
    at_least: bool = True

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def reached(self, value: float) -> bool:
        """Whether a ratio fulfils the target."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Row:
    """One comparison.

    Parameters
    ----------
    question, ours, against
        What was asked, our way of answering it, and the way it is compared with.
    ratio
        theirs / ours, or ours / theirs if `inverse`.
    target
        None: for information only.
    our_value, their_value, unit
        Median seconds per call, or bytes: for information, they mean nothing on another machine.
    peak_bytes
        Peak resident memory of a fresh process that only answers our way.
    inverse
        The ratio is a cost, ours / theirs, as it is wherever the target is an upper bound.
    """

    question: str
    ours: str
    against: str
    ratio: Ratio
    target: Target | None
    our_value: float
    their_value: float
    unit: Unit = "s"
    peak_bytes: int | None = None
    inverse: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the median fulfils the target; None without one."""
        return None if self.target is None else self.target.reached(self.ratio.middle)

    def as_json(self) -> dict[str, Any]:
        """All fields, the verdict included."""
        target = None if self.target is None else str(self.target)
        return {**asdict(self), "target": target, "reached": self.reached}

    def cells(self) -> tuple[str, ...]:
        """Columns of the table."""
        spread = f"{_number(self.ratio.low)}..{_number(self.ratio.high)}"
        verdict = {True: "yes", False: "NO", None: ""}[self.reached]
        return (
            self.question,
            self.ours,
            self.against,
            _number(self.ratio.middle),
            "" if self.ratio.low == self.ratio.high else spread,
            "ours/theirs" if self.inverse else "theirs/ours",
            "" if self.target is None else str(self.target),
            verdict,
            "" if self.peak_bytes is None else _quantity(self.peak_bytes, "B"),
            _quantity(self.our_value, self.unit),
            _quantity(self.their_value, self.unit),
        )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _quantity(value: float, unit: Unit) -> str:
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def table(rows: Sequence[Row]) -> str:
    """Aligned text; a question is named once."""
    lines = [_TITLES, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
    texts, last = [], ""
    for line in lines:
        shown = ("" if line[0] == last else line[0], *line[1:])
        last = line[0]
        texts.append("  ".join(c.ljust(w) for c, w in zip(shown, widths, strict=True)).rstrip())
    return "\n".join(texts)


def summary(rows: Sequence[Row]) -> str:
    """How many targets are reached, and the names of those that are not."""
    judged = [row for row in rows if row.target is not None]
    missed = [f"{r.question} ({r.ours} against {r.against})" for r in judged if not r.reached]
    head = f"{len(judged) - len(missed)} of {len(judged)} targets reached"
    return head + "".join(f"\n  not reached: {text}" for text in missed)


def environment() -> dict[str, Any]:
    """Interpreter, machine, BLAS and versions of what was measured."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "blas": _blas(),
        "packages": {name: found for name in _MEASURED_PACKAGES if (found := _version(name))},
    }


def _blas() -> dict[str, str]:
    """Who multiplies for NumPy and for MLX."""
    import numpy as np
    from taqstore.pipelines.machine.blas import load_blas

    config: Any = np.show_config(mode="dicts")
    numpy = config["Build Dependencies"]["blas"]
    return {"numpy": f"{numpy['name']} {numpy['version']}", "mlx": load_blas().name}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
