"""What may be typed where: vocabularies of options, asked of a table or of the store.

Each is a function of what was typed so far. None of them is a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module

from taqstore.analysis.table import ANALYSES
from taqstore.cli import MODELS_TABLE, VARIANT_NAMES
from taqstore.cli.completed import Asked
from taqstore.errors import TaqError
from taqstore.kinds.statistics_sources import STATISTICS, preferred
from taqstore.kinds.weight_sets import FORMATS, set_folders
from taqstore.names import (
    EVERY_SITE,
    SITES,
    STREAMS,
    WEIGHTS,
    Block,
    kind_of,
    site_of,
    split_group,
)
from taqstore.query.columns import BY
from taqstore.query.reduction import WAYS

# Of a label of the dimension `layer`.
_LAYER, _BLOCK = "layer", "block"


def groups(asked: Asked) -> Iterable[str]:
    """Groups of the store."""
    return asked.store.groups


def variables(asked: Asked) -> Iterable[str]:
    """Variables and coordinates of the group that was named; those that were not typed yet."""
    typed = asked.given("variable") or ()
    names = asked.store.arrays(str(asked.given("group")).strip("/"))
    return [name for name in names if name not in typed]


def dimensions(asked: Asked) -> Iterable[str]:
    """Dimensions of the group that was named."""
    return asked.store.dimensions(str(asked.given("group")).strip("/"))


def sources(asked: Asked) -> Iterable[str]:
    """Prefixes of the groups of statistics that the store has."""
    there = {split_group(path)[0] for path in asked.store.groups}
    return [prefix for prefix in STATISTICS if prefix in there]


def _statistics(asked: Asked) -> list[str]:
    """Groups that are asked: the one named, those of the source named, or of the preferred one."""
    paths = asked.store.groups
    if group := asked.given("group"):
        return [path for path in paths if path == str(group).strip("/")]
    there = {split_group(path)[0] for path in paths}
    source = asked.given("source") or next((p for p in preferred("analyses") if p in there), "")
    sites = set(asked.given("sites") or ())
    return [
        path
        for path in paths
        if split_group(path)[0] == source and (not sites or site_of(path) in sites)
    ]


def layers(asked: Asked) -> Iterable[str]:
    """Layers of the groups that are asked; of all, where none of these has any."""
    store = asked.store
    asked_of = store.every_label(_statistics(asked), _LAYER)
    return asked_of or store.every_label(store.groups, _LAYER)


def sites(asked: Asked) -> Iterable[str]:
    """Sites of the statistics that are asked."""
    return map(site_of, _statistics(asked))


def every_site(asked: Asked) -> Iterable[str]:
    """Sites of the store's statistics, or of any model before there are statistics."""
    return [site for site in sites(asked) if site in EVERY_SITE] or EVERY_SITE


def sites_of_blocks(asked: Asked) -> Iterable[str]:
    """Sites that a block has."""
    return [site for site in every_site(asked) if site in SITES]


def blocks(asked: Asked) -> Iterable[str]:
    """Transformer blocks of which the store has anything."""
    labels = asked.store.every_label(asked.store.groups, _BLOCK)
    return [label for label in labels if _is_block(label)]


def _is_block(label: str) -> bool:
    try:
        Block.parse(label)
    except TaqError:
        return False
    return True


def streams(asked: Asked) -> Iterable[str]:
    """Streams of blocks."""
    return STREAMS


def linears(asked: Asked) -> Iterator[str]:
    """Linears of the model that was observed, by their full names."""
    store = asked.store
    for path in store.groups:
        attributes = store.documents.get(path, {}).get("attributes", {})
        found = attributes.get("linears", {})
        for names in found.values() if isinstance(found, dict) else ():
            yield from (name for name in names if name.replace(".", "").replace("_", "").isalnum())


def weight_sets(asked: Asked) -> Iterable[str]:
    """Weight sets of the store."""
    return set_folders(path for path in asked.store.groups if kind_of(path) == WEIGHTS)


def roundings(asked: Asked) -> Iterator[str]:
    """Ways to round weights, and weight sets of the store."""
    yield from FORMATS
    yield from weight_sets(asked)


def _inputs() -> tuple[str, ...]:
    found: tuple[str, ...] = import_module(VARIANT_NAMES).INPUTS
    return found


def variants(asked: Asked) -> Iterator[str]:
    """Variants: ways to round, and behind a slash formats of inputs."""
    weights, slash, _ = asked.typed.partition("/")
    if slash:
        return (f"{weights}/{format}" for format in _inputs())
    return roundings(asked)


def formats(asked: Asked) -> Iterator[str]:
    """Formats of one side of a variant: of weights, or of inputs."""
    yield from (name for name in roundings(asked) if name not in ("float", "mixed"))
    learned = import_module(VARIANT_NAMES).LEARNED
    yield from (name for name in _inputs() if "-" in name and not name.endswith(learned))


def measured_formats(asked: Asked) -> Iterable[str]:
    """Formats that the store has sensitivities in."""
    paths = (path for path in asked.store.groups if kind_of(path) in ("sensitivity", "scores"))
    return dict.fromkeys(map(site_of, paths))


def models(asked: Asked) -> Iterable[str]:
    """Models of the table."""
    found: Iterable[str] = import_module(MODELS_TABLE).MODELS
    return found


def site_analyses(asked: Asked) -> Iterable[str]:
    """Analyses of one site."""
    return [name for name, row in ANALYSES.items() if not row.whole]


def columns_of_diff(asked: Asked) -> Iterable[str]:
    """Columns that order what moved."""
    return BY


def reductions(asked: Asked) -> Iterator[str]:
    """``DIM=HOW``: a dimension of the group, then how."""
    return _pairs(asked, dimensions(asked), lambda dim: WAYS)


def widths(asked: Asked) -> Iterator[str]:
    """``SITE=``: a site, and bits behind it."""
    return _pairs(asked, every_site(asked), lambda site: ())


def settings(asked: Asked) -> Iterator[str]:
    """``NAME=VALUE``: an option of the analysis that was named, then its words."""
    row = ANALYSES.get(str(asked.given("analysis")))
    known = {option.name: option for option in (row.options if row else ())}
    return _pairs(asked, known, lambda name: known[name].words if name in known else ())


def _pairs(
    asked: Asked, firsts: Iterable[str], seconds: Callable[[str], Iterable[str]]
) -> Iterator[str]:
    first, equals, _ = asked.typed.partition("=")
    if equals:
        return (f"{first}={second}" for second in seconds(first))
    return (f"{name}=" for name in firsts)
