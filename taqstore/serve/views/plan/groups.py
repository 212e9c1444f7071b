"""Groups of steps cut by hand: what sharing a clip range over them costs, beside the best ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.analysis.ranges.options import BITS, CUTS, SYMMETRIC
from taqstore.analysis.ranges.steps import Cuts
from taqstore.analysis.shared.option import Option
from taqstore.errors import MissingError, problem
from taqstore.export.formats import FORMATS
from taqstore.names import BINS
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import analysis_shown, command_line
from taqstore.serve.views.plan.widths import SOURCE
from taqstore.statistics.bins import Floats

if TYPE_CHECKING:
    import xarray as xr

SITE = Option("site", "attn.qkv, mlp.fc2, … [default: the first there is].", "word")
LAYER = Option("layer", "Cut for this layer alone, in any spelling of it.", "word")
OPTIONS = (
    BITS,
    SYMMETRIC,
    CUTS.but(help="One group (static), or groups that begin at these: 7,14 [default: the best]."),
    Option("count", "Groups, where no cuts are given.", int, least=1, unless="cuts"),
    SITE,
    LAYER,
    SOURCE,
)

CONFIG = "quant-config"
_TOLERANCE = 0.05


def group_plan(
    service: Service,
    *,
    store: str,
    bits: int,
    symmetric: bool,
    cuts: Cuts = None,
    count: int | None = None,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
) -> dict[str, Any]:
    """Groups of steps between cuts, priced as `analysis.groups` prices them, for a whole site.

    Costs are means over the layers of the site of the expected squared error as a share of
    mean(x^2): those of `taqstore analyze groups --shared`.

    Returns
    -------
    ``steps``, ``sigma``, ``site``, ``layer``, the ``sites`` and ``layers`` there are; ``cuts``,
    labels of the steps that begin a group after the first; ``error`` of these groups and ``parts``,
    what each adds, ``{"first", "last", "error"}``; ``best``: ``cuts`` and ``error`` of the best of
    as many groups; ``curve``, the least error of 1 to n groups; ``enough``, the fewest that cost
    5 % more than a range for every step; ``config``, the command line that writes a config of these
    groups.

    Raises
    ------
    MissingError
        There are no histograms, no such site or layer, or a cut is no step after the first.
    TaqError
        More groups than steps.
    """
    path, dataset = _asked(service, store, site, layer, source)
    key = ("plan runs", path, layer, bits, symmetric)
    runs: xr.DataArray = service.kept(store, key, partial(_runs, dataset, bits, symmetric))
    curve, partitions = _best(runs.values)
    labels = [int(step) for step in dataset["step"].values]
    begins = _begins(dataset, runs, labels, partitions, cuts, count, curve)
    ends = [*begins[1:], len(labels)]
    parts = [
        {"first": labels[a], "last": labels[b - 1], "error": float(runs.values[a, b - 1])}
        for a, b in zip(begins, ends, strict=True)
    ]
    given = [labels[place] for place in begins[1:]]
    options = _options(bits, symmetric, given)
    best = _starts(partitions[len(begins) - 1])
    return {
        "site": _site(path),
        "group": path,
        "layer": layer,
        "sites": _sites(service.store(store), source),
        "layers": [str(name) for name in service.store(store)[path]["layer"].values],
        "bits": bits,
        "symmetric": symmetric,
        "steps": labels,
        "sigma": dataset["sigma"].values.tolist() if "sigma" in dataset.coords else None,
        "cuts": given,
        "error": _priced(dataset, runs, given),
        "parts": parts,
        "best": {
            "cuts": [labels[place] for place in best[1:]],
            "error": float(curve[len(begins) - 1]),
        },
        "curve": curve.tolist(),
        "enough": _enough(curve, _TOLERANCE) + 1,
        "config": _config(service.address(store), options, source),
        **analysis_shown(
            "groups",
            service.address(store),
            chosen={"source": source, "site": (_site(path),), "layer": layer},
            options={**options, "method": "given", "shared": True},
        ),
    }


def _site(path: str) -> str:
    from taqstore.names import site_of

    return site_of(path)


def _asked(
    service: Service, store: str, site: str | None, layer: str | None, source: str | None
) -> tuple[str, xr.Dataset]:
    """Path of the group, and its part that is asked of."""
    from taqstore.query.select import select
    from taqstore.query.sites import choose_groups

    opened = service.store(store)
    paths = choose_groups(opened, source, sites=[site] if site else (), layer=layer)
    path = paths[0] if site or layer else _first_counted(opened, paths)
    return path, select(service.held(store, path), site=_site(path), layer=layer)


def _sites(groups: Any, source: str | None) -> list[str]:
    """Sites that can be priced."""
    from taqstore.analysis.shared.inputs import first_complete
    from taqstore.query.sites import choose_groups

    paths = choose_groups(groups, source)
    return [_site(path) for path in paths if first_complete(groups[path], BINS)]


def _first_counted(groups: Any, paths: Sequence[str]) -> str:
    """The first group with histograms: others cannot be priced."""
    from taqstore.analysis.shared.inputs import first_complete

    return next((path for path in paths if first_complete(groups[path], BINS)), paths[0])


def _runs(dataset: xr.Dataset, bits: int, symmetric: bool) -> xr.DataArray:
    """Cost of every run of steps, (first, last)."""
    from taqstore.analysis.costs.group_costs import Histograms, run_costs
    from taqstore.analysis.ranges.known import known_values
    from taqstore.analysis.scales import checked_scheme
    from taqstore.analysis.shared.pooled_bins import common_bins

    histograms = Histograms(*common_bins(dataset, analysis="groups"), known_values(dataset))
    cost, _ = run_costs(histograms, checked_scheme(bits, symmetric, False), shared=True)
    return cost.transpose("first", "last").compute()


def _best(cost: Floats) -> tuple[Floats, Any]:
    from taqstore.quantization.partition import optimal

    return optimal(cost)


def _begins(
    dataset: xr.Dataset,
    runs: xr.DataArray,
    labels: Sequence[int],
    partitions: Any,
    cuts: Cuts,
    count: int | None,
    curve: Floats,
) -> list[int]:
    """Places of the steps that begin groups."""
    from taqstore.analysis.groups import price_cuts

    if cuts is not None:
        group, _ = price_cuts(dataset, runs, cuts)
        return _starts(group.values)
    number = _enough(curve, _TOLERANCE) + 1 if count is None else count
    if number > len(labels):
        what = f"{len(labels)} steps make 1 to {len(labels)} groups"
        raise MissingError(problem(what, found=str(number)))
    return _starts(partitions[number - 1])


def _starts(group: Any) -> list[int]:
    found: list[int] = np.flatnonzero(np.diff(group, prepend=-1)).tolist()
    return found


def _priced(dataset: xr.Dataset, runs: xr.DataArray, cuts: Sequence[int]) -> float:
    from taqstore.analysis.groups import price_cuts

    return float(price_cuts(dataset, runs, cuts or "static")[1])


def _enough(curve: Floats, tolerance: float) -> int:
    """As `analysis.groups` chooses a number without a count."""
    return int((curve <= curve[-1] * (1 + tolerance)).argmax())


def _options(bits: int, symmetric: bool, cuts: Sequence[int]) -> dict[str, Any]:
    return {"bits": bits, "symmetric": symmetric, "cuts": tuple(cuts) or "static"}


def _config(address: str, options: dict[str, Any], source: str | None) -> dict[str, str]:
    """What writes a config of these groups, with the range of least error in each."""
    if not options["symmetric"]:
        return {"cli": "", "note": "configs hold symmetric ranges"}
    rows = FORMATS[CONFIG].options
    told = {"bits": options["bits"], "clip": "mse", "cuts": options["cuts"], "source": source}
    line = command_line(
        f"export {CONFIG}", address, rows=rows, values=told, after=["-o", "quant_config.json"]
    )
    return {"cli": line, "note": "all sites of blocks, cut at these steps, least-error ranges"}
