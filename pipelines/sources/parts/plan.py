"""What a source hands to the ingest pipeline: templates, units of work, what was found wrong.

A *plan* says everything before the first byte is written. A *unit* is what one resume step repeats:
an image, a sample, a site. Its *parts* may run in parallel; each writes whole shards through `Put`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from taqstore.errors import SourceError
from taqstore.kinds.weight_sets import ADAROUND
from taqstore.layout.template import Template

Item = tuple[int, ...]


class Put(Protocol):
    """Writes one shard: `start` is aligned to the template's shard shape.

    `values` is the shard's region (clipped to the array, full number of dims), or an iterable of
    its inner chunks in order along the array's `split` dim, each of extent 1 there.
    """

    def __call__(
        self,
        group: str,
        name: str,
        start: tuple[int, ...],
        values: np.ndarray | Iterable[np.ndarray],
    ) -> None:
        """Write the shard of `group`/`name` that begins at `start`."""
        ...


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: a ready line, and the item that must stay unflagged, if any."""

    text: str
    group: str = ""
    item: Item | None = None


Part = Callable[[Put], list[Problem]]


@dataclass(frozen=True)
class Unit:
    """Work that is flagged together.

    Parameters
    ----------
    label
        What the user calls it: `image 3`, `mlp.fc2`.
    items
        ``{group path: items}`` to flag once every part has run and the data is on disk, minus the
        items that problems name.
    nbytes
        Bytes of the input files, for progress.
    parts
        Independent callables. One raises `SourceError` when the whole unit is bad.
    """

    label: str
    items: Mapping[str, tuple[Item, ...]]
    nbytes: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Plan:
    """All of one source: what to create, what to write, what was found wrong while scanning.

    Parameters
    ----------
    source, path
        Kind of source and the folder or file it was planned from.
    templates, units
        Groups to create, and the work that fills them.
    problems
        What the scan found; the items they name are in no unit.
    inputs
        Documents, files and folders of data, for provenance.
    notes
        Lines for the summary: what is not stored, what was kept twice.
    parameters
        JSON values for provenance.
    unread
        Keys of files that no variable is made of: parts add to it as they find them.
    """

    source: str
    templates: tuple[Template, ...] = ()
    units: tuple[Unit, ...] = ()
    problems: tuple[Problem, ...] = ()
    inputs: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    path: Path = Path()
    unread: set[str] = field(default_factory=set)

    def late_notes(self) -> list[str]:
        """What was found out while the units ran."""
        return [f"keys not stored: {', '.join(sorted(self.unread)[:8])}"] if self.unread else []


@dataclass(frozen=True)
class Options:
    """What a user or the pipeline may ask of any source.

    Parameters
    ----------
    prompts
        Text or CSV file that stands in for pickled prompts.
    widen
        ``(group, variable)`` pairs to keep in the source's dtype, see `Inexact`; with the variable
        `output`, to keep block outputs apart although they equal the next inputs.
    set, folder
        Weight set that quantized weights become, and where it lies in the store; None: where new
        ones do.
    """

    prompts: Path | None = None
    widen: frozenset[tuple[str, str]] = frozenset()
    set: str = ADAROUND
    folder: str | None = None


class Inexact(SourceError):  # noqa: N818 - a signal to plan again, not an end
    """A value does not fit the narrow dtype its variable was planned with.

    The plan looks at the first step only. Whoever runs it drops the (unflagged) group, adds
    ``(group, variable)`` to `Options.widen` and plans again; without that the unit is refused.
    """

    def __init__(self, text: str, *, group: str, variable: str) -> None:
        super().__init__(text)
        self.group = group
        self.variable = variable


@dataclass(frozen=True)
class PutWhole:
    """A part that writes small arrays, each of which is one shard at the origin."""

    group: str
    arrays: Mapping[str, np.ndarray]

    def __call__(self, put: Put) -> list[Problem]:
        """Write every array."""
        for name, values in self.arrays.items():
            put(self.group, name, (0,) * values.ndim, values)
        return []
