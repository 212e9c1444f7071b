"""One linear over the steps: extrema, a rule's bounds, fits of these, and groups of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taqstore.analysis.ranges.options import BITS, CLIP, MOMENTUM, PERCENTILE, SYMMETRIC
from taqstore.analysis.ranges.rules import RULES
from taqstore.analysis.shared.option import Option
from taqstore.errors import MissingError
from taqstore.names import site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.views.asking import Part, one_layer, steps_of
from taqstore.serve.views.layer import LINEAR, over_steps

COUNT = Option("count", "Groups of steps [default: the fewest that cost 5 % more].", int, least=1)
OPTIONS = (*LINEAR, BITS, SYMMETRIC, CLIP, PERCENTILE, MOMENTUM, COUNT)
_FIT = ("alpha", "fitted", "coefficient", "degree", "r2", "cv")
_GROUPS = ("group", "lower", "upper", "group_count", "optimal_error")


def trajectory(
    service: Service,
    *,
    store: str,
    bits: int,
    symmetric: bool,
    clip: str,
    site: str | None = None,
    layer: str | None = None,
    source: str | None = None,
    batch: str | None = None,
    count: int | None = None,
    **rule: Any,
) -> dict[str, Any]:
    """Bounds of one linear over the steps, with the fits of `schedule` and groups of steps.

    Returns
    -------
    ``site``, ``layer``, ``steps``, ``sigma``, ``asked``; ``lower``, ``upper`` of the rule;
    ``series``: ``name`` and ``values`` over the steps of extrema and of the rule's bounds;
    ``fits``: ``name``, ``sigma``, ``values``, ``coefficients`` (of sigma to the powers from 0, None
    above the degree), ``degree`` (-1: not fitted), ``r2`` and ``cv`` of the polynomial of the
    absmax of the rule's range; none without sigma. ``groups``: ``steps``, ``lower``, ``upper`` of
    each group of neighbouring steps that share the range of least error, and ``group_error``, the
    least error of 1 to n groups; empty without histograms. ``left_out``: a line on each part that
    cannot be told. ``cli``, ``python`` of the schedule, and the same as ``groups_cli``,
    ``groups_python`` of the groups.

    Raises
    ------
    MissingError
        There is no such source, site or layer, or the group lacks what the rule needs.
    """
    part = Part(service, store, batch)
    path, name, _, _ = one_layer(part, source, site, layer)
    group = part.group(path)
    given = {key: value for key, value in rule.items() if value is not None}
    asked = {"bits": bits, "symmetric": symmetric, "clip": clip, **given}
    bounds = part.answer("scales", path, ("lower", "upper"), layer=name, **asked)
    steps = group.sizes["step"]
    ends = {key: over_steps(bounds[key], steps) for key in ("lower", "upper")}
    left_out: list[str] = []
    schedule = {"clip": clip, **given, **({"bits": bits} if RULES[clip].by_bits else {})}
    groups = {"bits": bits, "symmetric": symmetric, "count": count}
    return {
        "site": site_of(path),
        "layer": name,
        **steps_of(group),
        "asked": asked,
        **ends,
        "series": _series(part, path, name, steps, clip, ends),
        "fits": _fits(part, path, name, group, schedule, left_out),
        **_groups(part, path, name, group, groups, left_out),
        "left_out": left_out,
        **_shown(part, "schedule", path, name, schedule),
        **{f"groups_{k}": v for k, v in _shown(part, "groups", path, name, groups).items()},
    }


def _shown(
    part: Part, analysis: str, path: str, name: str, options: Mapping[str, Any]
) -> dict[str, str]:
    source = split_group(path)[0]
    return part.shown(analysis, options, source=source, sites=(site_of(path),), layer=name)


def _series(
    part: Part, path: str, name: str, steps: int, clip: str, ends: Mapping[str, Any]
) -> list[dict[str, Any]]:
    extrema: dict[str, Any] = {"symmetric": False, "clip": "absmax"}
    series = []
    try:
        found = part.answer("scales", path, ("lower", "upper"), layer=name, **extrema)
        series = [
            {"name": label, "values": over_steps(found[key], steps)}
            for label, key in (("smallest value", "lower"), ("largest value", "upper"))
        ]
    except MissingError:
        pass  # a table of clip bounds has no extrema
    named = ((f"{clip}, {key}", key) for key in ("lower", "upper"))
    return [*series, *({"name": label, "values": ends[key]} for label, key in named)]


def _fits(
    part: Part,
    path: str,
    name: str,
    group: Any,
    options: Mapping[str, Any],
    left_out: list[str],
) -> list[dict[str, Any]]:
    try:
        found = part.answer("schedule", path, _FIT, layer=name, **options)
    except MissingError as error:
        left_out.append(str(error))
        return []
    one = found.isel(layer=0)
    fits = []
    for label, fit in _projections(one):
        fits.append(
            {
                "name": f"polynomial of the absmax{label}",
                "sigma": group["sigma"].values,
                "values": fit["fitted"].values,
                "coefficients": fit["coefficient"].values,
                **{key: fit[key].item() for key in ("degree", "r2", "cv")},
            }
        )
    return fits


def _projections(one: Any) -> list[tuple[str, Any]]:
    if "projection" not in one.dims:
        return [("", one)]
    labels = one["projection"].values
    return [(f" of {label}", one.isel(projection=i)) for i, label in enumerate(labels)]


def _groups(
    part: Part,
    path: str,
    name: str,
    group: Any,
    options: Mapping[str, Any],
    left_out: list[str],
) -> dict[str, Any]:
    asked = {key: value for key, value in options.items() if value is not None}
    try:
        found = part.answer("groups", path, _GROUPS, layer=name, **asked).isel(layer=0)
    except MissingError as error:
        left_out.append(str(error))
        return {"groups": [], "group_error": []}
    if "projection" in found.dims:
        found = found.isel(projection=0)
    labels, member = group["step"].values.tolist(), found["group"].values
    groups = []
    for number in range(int(member.max(initial=-1)) + 1):
        at = [place for place, of in enumerate(member) if of == number]
        groups.append(
            {
                "steps": [labels[place] for place in at],
                "lower": found["lower"].values[at[0]],
                "upper": found["upper"].values[at[0]],
            }
        )
    return {"groups": groups, "group_error": found["optimal_error"].values}
