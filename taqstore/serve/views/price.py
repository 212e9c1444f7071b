"""What any clip range costs one linear: the answer to a slider."""

from __future__ import annotations

from typing import Any

from taqstore.analysis.table import ANALYSES
from taqstore.names import site_of
from taqstore.serve.served.service import Service
from taqstore.serve.views.asking import STEP, Part, one_layer, step_place, steps_of
from taqstore.serve.views.layer import LINEAR, PRICES, at_step, rule_prices, shown_of_rule

OPTIONS = (*LINEAR, STEP, *ANALYSES["error"].options)
_OF_BOUNDS = ("bits", "symmetric", "narrow_range", "lower", "upper")


def price(
    service: Service,
    *,
    store: str,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
    batch: str | None = None,
    step: int | None = None,
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
    if options.keys() & {"lower", "upper"}:
        options = {key: options[key] for key in _OF_BOUNDS if key in options}
    found = rule_prices(part, path, name, options)
    told = {key: found[key] for key in PRICES if key in found}
    return {
        "site": site_of(path),
        "layer": name,
        **steps_of(group),
        "step": label,
        "asked": options,
        **{key: at_step(array, place) for key, array in told.items()},
        "by_step": {key: array.isel(layer=0).values for key, array in told.items()},
        **shown_of_rule(part, path, name, label, options),
    }
