"""SmoothQuant's `act_scales`: the absmax of every linear's input channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.analysis.ranges.rules import Rule
from taqstore.errors import MisuseError, problem
from taqstore.export.peers.static import by_linear, sites_of
from taqstore.files.safetensors import write_safetensors
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, save_npz, summarize
from taqstore.quantization.search import Scheme
from taqstore.query.sites import Groups

_NAME = "act-scales"
_SYMMETRIC = Scheme(8, symmetric=True)
_SUFFIXES = (".npz", ".safetensors")


def act_scales(
    store: Groups,
    out: Path,
    *,
    clip: Rule = "absmax",
    momentum: float | None = None,
    order: Sequence[int] | None = None,
    source: str | None = None,
    force: bool = False,
) -> Summary:
    """Write float32 (channel,) per linear: ``max |x|`` over all steps and batches.

    What SmoothQuant's `get_act_scales` gives (github.com/mit-han-lab/smoothquant), under the full
    names of linears. Its own `.pt` is a pickle that only torch writes and reads; `.npz` and
    `.safetensors` hold the same names and values.

    Parameters
    ----------
    store
        Group path -> Dataset.
    out
        FILE.npz or FILE.safetensors.
    clip, momentum, order
        Another rule than the largest ``|x|``, one that works on extrema: per channel and for all
        steps together, as `analysis.scales` does it.
    source
        Group prefix; by default observations, else pooled statistics (averaged extrema for
        `pooled/timestep_stats`, below the true ones).

    Raises
    ------
    MissingError
        There are no extrema per channel.
    MisuseError
        The suffix is another, or the rule needs histograms.
    """
    if out.suffix not in _SUFFIXES:
        remedy = f"write {' or '.join(_SUFFIXES)}; torch turns either into a .pt"
        raise MisuseError(problem("act_scales of an unknown kind", where=out.name, remedy=remedy))
    rule = Clip(clip, None, momentum, order, "channel")
    tensors: dict[str, np.ndarray] = {}
    for site, dataset in sites_of(store, source).items():
        absmax = clip_range(dataset, rule, _SYMMETRIC, static=True, analysis=_NAME).upper
        for name, (row,) in by_linear(site, dataset, [absmax]):
            tensors[name] = row.astype(np.float32)
    ordered = dict(sorted(tensors.items()))
    with whole_file(out, force=force) as fresh:
        if out.suffix == ".npz":
            save_npz(fresh, ordered, compressed=False)
        else:
            write_safetensors(fresh, ordered, format="pt", content="act_scales")
    return summarize(out)
