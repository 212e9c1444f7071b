"""`collect --until-enough`: how many batches there are at a time, and whether they are enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from typing import Any

import numpy as np

from taqstore.analysis.ranges.rules import Rule
from taqstore.asked import number
from taqstore.names import ACTIVATIONS
from taqstore.query.analyze import analyze
from taqstore.query.sites import each_able
from taqstore.store.reader import Store

# Fewer batches tell too little of what four times as many would change.
FIRST = 8


@dataclass(frozen=True)
class UntilEnough:
    """When statistics are enough.

    Parameters
    ----------
    tolerance
        The move that is small enough, see `taqstore.analysis.enough`.
    clip
        Rule whose clip bounds are to settle, in every site.

    Raises
    ------
    MisuseError
        The tolerance is not above 0.
    """

    tolerance: float
    clip: Rule = "percentile"

    def __post_init__(self) -> None:
        number(self.tolerance, "until_enough", least=0, above=True)


@dataclass(frozen=True)
class Portion:
    """Batches (batch, slot) that there are before the next look; `first` of a run."""

    batches: np.ndarray
    first: bool


@dataclass
class Stop:
    """Portions of a run, and the look after each.

    Parameters
    ----------
    asked
        None: all batches at once, and no look.
    batches
        All (batch, slot).
    """

    asked: UntilEnough | None
    batches: np.ndarray
    total: int = field(default=0)

    @property
    def portions(self) -> list[Portion]:
        """The first 8, 12, 16, 24, 32, ... batches, and all."""
        ends = {len(self.batches)}
        if self.asked is not None:
            size = FIRST
            while size < len(self.batches):
                ends |= {size, min(size * 3 // 2, len(self.batches))}
                size *= 2
        ordered = sorted(ends)
        return [Portion(self.batches[:end], end == ordered[0]) for end in ordered]

    def said(self, store: Store, sites: Sequence[str], part: Portion) -> dict[str, Any]:
        """What a look finds: whether these batches are enough, in which site they are least so.

        The same batches give the same answer, in a resumed run as in one that was not stopped.
        """
        if self.asked is None:
            return {}
        taken, every = len(part.batches), len(self.batches)
        found = {"tolerance": self.asked.tolerance, "clip": self.asked.clip, "batches": taken,
                 "of": every}  # fmt: skip
        moves = self._moves(store, sites, taken)
        known = {site: move for site, (move, _) in moves.items() if not isnan(move)}
        if not known:
            note = f"until enough: {taken} of {every} batches, too few to tell"
            return {**found, "enough": False, "note": note}
        worst = max(known, key=lambda site: known[site])
        move, wanted = moves[worst]
        enough = move < self.asked.tolerance
        many = f"about {wanted:.0f}" if isfinite(wanted) else "far more"
        text = (
            f"until enough: {taken} of {every} batches taken; 4 times as many would move "
            f"{self.asked.clip} of {worst} by {move:.3g}, "
        )
        limit = f"{self.asked.tolerance:g}"
        text += f"less than {limit}" if enough else f"not less than {limit}: {many} would do"
        note = f"{text}"
        return {**found, "enough": enough, "site": worst, "move": move, "note": note}

    def _moves(
        self, store: Store, sites: Sequence[str], taken: int
    ) -> dict[str, tuple[float, float]]:
        """Expected move and enough batches, by site; none of sites that cannot tell."""
        asked = self.asked
        assert asked is not None
        selection = {"batch": f"0:{taken}"}

        def ask(site: str) -> list[tuple[str, tuple[float, float]]]:
            options: dict[str, Any] = {"clip": asked.clip, "tolerance": asked.tolerance}
            (result,) = analyze(
                "enough", store, source=ACTIVATIONS, sites=[site], selection=selection, **options
            ).values()
            return [(site, (float(result["site_move"]), float(result["site_enough"])))]

        if taken < FIRST:
            return {}
        return dict(each_able(ask, sites))
