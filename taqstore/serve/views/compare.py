"""Two stores, or two subsets of one store's images, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.serve.served.service import Service
from taqstore.serve.views.asking import LAYERS, SITES, SOURCE, Part
from taqstore.serve.views.map import NUMBER, STREAM, laid_out, offered_by, values_of
from taqstore.serve.views.quantities import QUANTITIES, SENSITIVITY

if TYPE_CHECKING:
    import numpy as np

OTHER = Option("other", "Name of the second store [default: the same].", str)
FIRST_BATCH = Option("batch", "Batches of the first: A:B:S [default: all].", str)
SECOND_BATCH = Option("other_batch", "Batches of the second: A:B:S [default: all].", str)
OPTIONS = (
    *(row for row in NUMBER if row.name not in ("format", "unit")),
    OTHER,
    FIRST_BATCH,
    SECOND_BATCH,
    SOURCE,
    SITES,
    LAYERS,
    STREAM,
)


def compare(
    service: Service,
    *,
    store: str,
    quantity: str,
    other: str | None = None,
    batch: str | None = None,
    other_batch: str | None = None,
    source: str | None = None,
    site: Sequence[str] = (),
    layer: str | None = None,
    stream: str | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """A quantity of two stores, or of two batch subsets, and its ratio, where both have it.

    Returns
    -------
    What `Quantity.document` tells, ``asked``; ``first`` and ``second``: ``store``, ``batch``,
    ``cli``, ``python``; ``steps`` that both have, ``sigma`` of the first; ``rows``: ``site``,
    ``layer``, ``projection``, ``block``, ``number``, ``stream``, and over the steps ``first``,
    ``second``, ``difference`` (second less first), ``ratio`` (second by first, None where that is
    no number) and ``log2`` of it (None also of what is not above 0). Of decibels the difference is
    what compares. ``by``: which of these compares best. ``left_out``: lines on sites, layers and
    steps that one side lacks. ``quantities``, ``rules``, ``sources`` that both can be asked for.
    ``cli`` and ``python``: of the first, then of the second.

    Raises
    ------
    MissingError
        There is no such store, or nothing that both have.
    MisuseError
        The two are the same.
    """
    row = QUANTITIES[quantity]
    if row.analysis == SENSITIVITY:
        raise MisuseError(problem("sensitivities are not compared", remedy="see taqstore ranks"))
    sides = (Part(service, store, batch), Part(service, other or store, other_batch))
    if (sides[0].store, batch) == (sides[1].store, other_batch):
        remedy = "name other, or batches in batch and other_batch"
        raise MisuseError(problem("a store is compared with itself", remedy=remedy))
    options = {name: asked[name] for name in row.takes if asked.get(name) is not None}
    left_out: list[str] = []
    told, laid = [], []
    for part, word in zip(sides, ("first", "second"), strict=True):
        values, lacking = values_of(part, row, options, source, site, layer)
        told.append(values)
        left_out += [f"{word}: {line}" for line in lacking]
        laid.append(laid_out(row, values, layer, stream))
    rows, steps = _matched(laid, left_out)
    if not rows or not steps["steps"]:
        what = "the two have no layer and step in common"
        raise MissingError(problem(what, found="; ".join(left_out)))
    shown = [
        part.shown(row.analysis, {**row.fixed, **options}, source=source, sites=site, layer=layer)
        for part in sides
    ]
    return {
        **row.document(quantity),
        "asked": options,
        **{
            word: {"store": part.store, "batch": part.batch, **lines}
            for word, part, lines in zip(("first", "second"), sides, shown, strict=True)
        },
        **steps,
        "rows": rows,
        "by": "difference" if row.unit == "dB" or row.scale == "diverging" else "log2",
        "left_out": left_out,
        **_offered(service, [part.store for part in sides]),
        **{key: "\n".join(lines[key] for lines in shown) for key in ("cli", "python")},
    }


def _offered(service: Service, names: Sequence[str]) -> dict[str, Any]:
    first, second = (offered_by(service, name) for name in names)
    compared = [row for row in first["quantities"] if row["quantity"] != SENSITIVITY]
    return {
        "quantities": [row for row in compared if row in second["quantities"]],
        "rules": first["rules"],
        "sources": [source for source in first["sources"] if source in second["sources"]],
    }


_Laid = tuple[list[dict[str, Any]], dict[str, Any]]
_KEY = ("site", "layer", "projection")


def _matched(laid: Sequence[_Laid], left_out: list[str]) -> _Laid:
    """Rows and steps that both have; what one of them lacks is told."""
    (first, steps), (second, others) = laid
    both = [step for step in steps["steps"] if step in others["steps"]]
    left_out += list(_lacking(steps["steps"], others["steps"], "step"))
    keys = [[tuple(row[key] for key in _KEY) for row in rows] for rows, _ in laid]
    names = [[" ".join(filter(None, key)) for key in side] for side in keys]
    left_out += list(_lacking(names[0], names[1], "layer"))
    by_key = dict(zip(keys[1], second, strict=True))
    at = [steps["steps"].index(step) for step in both]
    beside = [others["steps"].index(step) for step in both]
    rows = [
        {**row, **_sides(row.pop("values")[at], by_key[key]["values"][beside])}
        for key, row in zip(keys[0], first, strict=True)
        if key in by_key
    ]
    sigma = None if steps["sigma"] is None else steps["sigma"][at]
    return rows, {"steps": both, "sigma": sigma}


def _lacking(first: Sequence[Any], second: Sequence[Any], what: str) -> Iterator[str]:
    from taqstore.asked import listed

    for word, some, others in (("first", first, second), ("second", second, first)):
        known = set(others)
        alone = [str(one) for one in some if one not in known]
        if alone:
            yield f"{what}s of the {word} alone: {listed(alone)}"


def _sides(first: np.ndarray, second: np.ndarray) -> Mapping[str, np.ndarray]:
    import numpy as np

    a, b = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, b / a)
        # Of a quantity that fell to nothing or came from it the logarithm is infinite.
        log2 = np.where(ratio >= 0, np.log2(np.abs(ratio)), np.nan)
        difference = np.where(a == b, 0.0, b - a)
    return {"first": first, "second": second, "difference": difference,
            "ratio": ratio, "log2": log2}  # fmt: skip
