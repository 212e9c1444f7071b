"""A row of the table of analyses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taqstore.analysis.shared.option import Option
from taqstore.faces import named

SELECTION = ("source", "site", "layer", "step", "batch")
"""Words that choose a part of a store."""


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Parameters
    ----------
    doc
        What it tells, one line.
    function
        ``module:function`` taking one group and options, and `site` where it matters; see `whole`.
    options
        In the order of the help.
    joint
        ``module:function`` for all sites together, where they must be seen so: Datasets by path ->
        results by path.
    apart
        Of a `joint` one: ``module:function`` that answers for one group what is then weighed
        together; `joint` takes such answers in the place of the groups.
    by_layer
        Whether the answer for a layer, or that of `apart`, needs no other layer.
    across
        Option with which it does.
    wide
        Whether it makes several float64 of every channel, so that fewer layers fit in memory.
    source
        Group prefix that it is asked of unless another is named; empty: what analyses prefer.
    whole
        Whether it is asked of a whole store: the function takes all groups by path and gives
        results by a name of its own. They have no site.
    late
        Of a whole store: whether the function leaves it to others to put what is read behind dask,
        a site at a time and in blocks of their own.
    second
        Of a whole store: whether the function takes the groups of a second store after them.
    fails
        Whether results have the attribute `failure`, one line or nothing, and the command
        ``--fail``, which makes it the exit code.
    selects
        Of a whole store: those of `source`, `site`, `layer`, `step`, `batch` that it takes, all
        others are refused. With `source` the function is given statistics already sliced, those
        of the source alone; without, what was given as `sites`, `layer`, `step`, `batch`.
    pastes
        Words of ``--paste``, the texts that its answer can be printed as; see
        `export.pasted.table`, which has what they are.
    bundles
        Parameter of the function -> ``module:class``, made of the options that name the parameter
        as their `bundle`.
    """

    doc: str
    function: str
    options: tuple[Option, ...] = ()
    joint: str = ""
    apart: str = ""
    by_layer: bool = False
    across: str = ""
    wide: bool = False
    source: str = ""
    whole: bool = False
    late: bool = False
    second: bool = False
    fails: bool = False
    selects: tuple[str, ...] = ()
    pastes: tuple[str, ...] = ()
    bundles: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Any:
        """The function."""
        return named(self.function)

    def is_by_layer(self, options: Mapping[str, Any]) -> bool:
        """Whether, with these options, layers are told one without the others."""
        return self.by_layer and not options.get(self.across)

    @property
    def takes(self) -> tuple[str, ...]:
        """Which of `SELECTION` it takes."""
        return self.selects if self.whole else SELECTION

    @property
    def of_statistics(self) -> bool:
        """Whether it is made of the statistics of a source."""
        return "source" in self.takes
