"""What any clip range costs one linear: the answer to a slider."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.ranges.options import RANGE
from taqstore.analysis.shared.option import Option
from taqstore.errors import MisuseError, problem
from taqstore.names import site_of
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import Shown, command_line, opened, python_call
from taqstore.serve.views.asking import STEP, Part, one_layer, step_place, steps_of
from taqstore.serve.views.layer import LINEAR, PRICES, at_step, rule_prices, shown_of_rule

if TYPE_CHECKING:
    import xarray as xr

LOWER = Option("lower", "Lower bound, in place of a rule's [default: -upper].")
UPPER = Option("upper", "Upper bound, in place of a rule's.")
OPTIONS = (*LINEAR, STEP, *RANGE, LOWER, UPPER)


def price(
    service: Service,
    *,
    store: str,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
    batch: str | None = None,
    step: int | None = None,
    lower: float | None = None,
    upper: float | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """Error, SQNR, clip loss and clipped share of a rule's range, or of one that is given.

    Returns
    -------
    ``site``, ``layer``, ``step``; ``lower``, ``upper``, ``step_size``, ``zero_point``, ``error``,
    ``sqnr``, ``clip_loss``, ``clipped_share`` at the step; ``steps``, ``sigma`` and ``by_step``,
    the same over all steps; ``asked``; ``cli``, ``python``.

    Raises
    ------
    MissingError
        There is no such source, site, layer or step, or nothing to price with.
    MisuseError
        A lower bound above the upper one, or without it.
    """
    part = Part(service, store, batch)
    path, name, _, _ = one_layer(part, source, site, layer)
    group = part.group(path)
    place = step_place(group, step)
    label = int(group["step"].values[place])
    options = {key: value for key, value in asked.items() if value is not None}
    if upper is None:
        if lower is not None:
            raise MisuseError(problem("a lower bound needs an upper one", remedy="give upper"))
        found = rule_prices(part, path, name, options)
        shown = shown_of_rule(part, path, name, label, options)
    else:
        low = -upper if lower is None else lower
        options = {k: options[k] for k in ("bits", "symmetric", "narrow_range") if k in options}
        found = _of_bounds(part, path, name, (low, upper), options)
        shown = _shown(part, path, name, label, (low, upper), options)
        options |= {"lower": low, "upper": upper}
    told = {key: found[key] for key in PRICES if key in found}
    return {
        "site": site_of(path),
        "layer": name,
        **steps_of(group),
        "step": label,
        "asked": options,
        **{key: at_step(array, place) for key, array in told.items()},
        "by_step": {key: array.isel(layer=0).values for key, array in told.items()},
        **shown,
    }


def _of_bounds(
    part: Part, path: str, name: str, bounds: tuple[float, float], options: dict[str, Any]
) -> xr.Dataset:
    return part.answer("error", path, PRICES, layer=name, bounds=bounds, **options)
