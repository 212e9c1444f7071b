"""`taqstore analyze` over HTTP: an endpoint for every row of `ANALYSES`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option, bundled
from taqstore.analysis.shared.row import Analysis
from taqstore.analysis.table import ANALYSES
from taqstore.errors import MisuseError, problem
from taqstore.serve.api.bounds import check_rows
from taqstore.serve.http.endpoint import Endpoint, File, Tables
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import CHOOSING, analysis_shown

if TYPE_CHECKING:
    from taqstore.store.reader import Store

_OTHER = Option("other", "Name of the second store, of those that are served.", "word")


def endpoints() -> list[Endpoint]:
    """One for each analysis, with the options of its command."""
    return [
        Endpoint(
            f"/stores/{{store}}/analyze/{name}",
            row.doc,
            f"{__name__}:analysis",
            "tables",
            options=(*_around(row), *row.options),
            fixed={"name": name},
            raw=True,
        )
        for name, row in ANALYSES.items()
    ]


def _around(row: Analysis) -> list[Option]:
    choosing = [option for option in CHOOSING if option.parameter in row.takes]
    paste = Option("paste", "Answer with the text that another tool takes.", str)
    return [
        *([_OTHER] if row.second else []),
        *choosing,
        *([paste.but(choices=row.pastes)] if row.pastes else []),
    ]


def analysis(
    service: Service,
    *,
    store: str,
    name: str,
    other: str | None = None,
    paste: str | None = None,
    **given: Any,
) -> Tables | File:
    """Tables of an analysis, as `taqstore analyze` prints them; or the text that is pasted.

    Raises
    ------
    TaqError
        As of `query.analyze`; or the tables would be too large.
    """
    beside = service.version(other) if other is not None else ""
    key = "analyze", name, other, beside, paste, *sorted(given.items())
    # The same tables are asked for in several formats, and by several people.
    return service.kept(store, key, partial(_made, service, store, name, other, paste, given))


def _made(
    service: Service,
    store: str,
    name: str,
    other: str | None,
    paste: str | None,
    asked_for: Mapping[str, Any],
) -> Tables | File:
    from taqstore.query.analyze import analyze, site_tables, whole_tables

    row, opened, given = ANALYSES[name], service.store(store), dict(asked_for)
    part = {o.parameter: v for o in CHOOSING if (v := given.pop(o.name, None)) is not None}
    second = _second(service, row, other, name)
    values, said = _options(opened, row, given)
    asked = _asked(part)
    results = analyze(name, opened, other=second, **asked, **values)
    check_rows(results.values())
    shown = analysis_shown(
        name,
        service.address(store),
        other=None if second is None or other is None else service.address(other),
        chosen=part,
        options=said,
    )
    if paste is not None:
        from taqstore.export.pasted.table import PASTES, pasted

        text = pasted(name, paste, opened, results)
        kind = "application/json" if PASTES[name][paste].suffix == ".json" else "text/plain"
        return File(text.encode(), kind, cli=f"{shown['cli']} --paste {paste}")
    tables = (whole_tables if row.whole else site_tables)(results)
    notes = _notes([opened] if second is None else [opened, second], row, results, asked)
    return Tables(tables, tuple(notes), **shown)


def _second(service: Service, row: Analysis, other: str | None, name: str) -> Store | None:
    if not row.second:
        return None
    if other is None:
        remedy = f"give other, one of {', '.join(service.names)}"
        raise MisuseError(problem(f"{name} compares two stores", remedy=remedy))
    return service.store(other)


def _asked(part: dict[str, Any]) -> dict[str, Any]:
    selection = {word: part.get(word) for word in ("layer", "step", "batch")}
    return {"source": part.get("source"), "sites": part.get("site", ()), "selection": selection}


def _options(
    opened: Store, row: Analysis, given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options as the function takes them, and as the command line is told them.

    Weights are a set of the store: a path would be one of the server's disk, and nobody's business.
    """
    said = dict(given)
    defaults = {
        option.name: option.default
        for option in row.options
        if option.when is None and option.default is not None
    }
    values = {**defaults, **given}
    for option in row.options:
        if option.type == "weights":
            values[option.name], said[option.name] = weights_of(opened, given.get(option.name))
    return bundled(row.options, row.bundles, values), said


def weights_of(opened: Store, asked: str | None) -> tuple[Any, str | None]:
    """Groups of a weight set and its name; of no set, nothing: the analysis says what it lacks."""
    from taqstore.kinds.quantized_linears import weight_groups_of
    from taqstore.kinds.weight_sets import chosen_set, set_folders

    if asked is None and not set_folders(opened):
        return {}, None
    name = chosen_set(opened, asked)
    return weight_groups_of(opened, name), name


def _notes(stores: list[Store], row: Analysis, results: Any, asked: dict[str, Any]) -> list[str]:
    from taqstore.query.notes import nonfinite_notes, statistics_of

    notes = [
        note
        for store in stores
        for note in nonfinite_notes(statistics_of(store, row, results, asked))
    ]
    attributes = [result.attrs for result in results.values()]
    return [*notes, *(a[k] for k in ("note", "failure") for a in attributes if a.get(k))]
