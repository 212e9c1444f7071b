"""The report: one HTML page about a store, without anything outside it.

`build` answers from one source of statistics what was calibrated, whether there is asymmetry, drift
and outliers, which layers are worst, what configurations cost, and which groups of steps and bit
widths to choose; every verdict is by a stated threshold.
"""

from __future__ import annotations

from taqstore.report.assembly import BITS, BUDGET, build

__all__ = ["BITS", "BUDGET", "build"]
