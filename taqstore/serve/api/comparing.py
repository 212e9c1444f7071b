"""Two stores compared: `taqstore diff` over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.asked import word_of
from taqstore.errors import MisuseError
from taqstore.serve.api.analyses import weights_of
from taqstore.serve.api.bounds import check_rows
from taqstore.serve.http.endpoint import Endpoint, Tables
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import Code, command_line, opened, python_call

if TYPE_CHECKING:
    from taqstore.store.reader import Store


def _text(name: str, help: str) -> Option:
    return Option(name, help, str)


COMPARING = (
    _text("source", "Group prefix [default: first that both have]."),
    _text("analysis", "Compare the group with this analysis of the other store."),
    Option(
        "option",
        "NAME=VALUE of the analysis, like strength=0.7. Repeatable.",
        "word",
        (),
        many=True,
    ),
    _text("weights", "Weight set of the other store, for the analysis [default: the only one]."),
    _text("by", "Column to order by [default: jensen_shannon, where there is one]."),
    _text("layer", "Glob over layers, or any spelling of one."),
    _text("step", "Step index, or A:B:S."),
)
"""Of `taqstore diff`."""
_GROUP = _text("group", "One group, instead of all statistics of a source.")
_COMPARED = _text("variable", "Variable of the group, compared label by label; or theirs=ours.")


def endpoints() -> list[Endpoint]:
    """Diff."""
    path, doc = "/stores/{store}/diff/{other}", "Two stores compared, biggest movers first."
    options = (_GROUP, _COMPARED, *COMPARING)
    return [Endpoint(path, doc, f"{__name__}:diff", "tables", options)]


def diff(
    service: Service,
    *,
    store: str,
    other: str,
    group: str | None = None,
    variable: str | None = None,
    source: str | None = None,
    analysis: str | None = None,
    option: tuple[str, ...] = (),
    weights: str | None = None,
    by: str | None = None,
    layer: str | None = None,
    step: str | None = None,
) -> Tables:
    """Two stores compared, as `taqstore diff` prints them.

    Raises
    ------
    TaqError
        As of `query.diff`; options that do not go together; or the table would be too large.
    """
    from taqstore.names import site_of
    from taqstore.query.diff import diff as compare
    from taqstore.query.diff import diff_analysis, movers
    from taqstore.query.notes import nonfinite_notes
    from taqstore.query.sites import choose_groups, slices

    _check_diff(group, variable, source, analysis, option, weights)
    stores = service.store(store), service.store(other)
    selection = {"layer": layer, "step": step}
    if analysis is None:
        asked: dict[str, Any] = {"source": source, "group": group, "variable": variable}
        results = compare(*stores, selection=selection, **asked)
    else:
        options, weights = _options(stores[1], analysis, option, weights)
        results = diff_analysis(*stores, group=str(group), variable=str(variable),
                                analysis=analysis, selection=selection, **options)  # fmt: skip
    check_rows(results.values())
    heard = [list(results), list(results)]
    if analysis is not None:
        heard[1] = choose_groups(stores[1], None, sites=[site_of(str(group))])
    notes = [
        f"{name}: {note}"
        for name, one, paths in zip((store, other), stores, heard, strict=True)
        for note in nonfinite_notes(slices(one, paths, selection))
    ]
    said = {"source": source, "analysis": analysis, "option": option, "weights": weights,
            "by": by, "layer": layer, "step": step}  # fmt: skip
    named = [part for part in (group, variable) if part is not None]
    addresses = service.address(store), service.address(other)
    line = command_line("diff", addresses, rows=COMPARING, values=said, after=named)
    code = _diff_code(addresses, {**said, "group": group, "variable": variable})
    return Tables([movers(results, by=by)], tuple(notes), line, code)


def _check_diff(
    group: str | None,
    variable: str | None,
    source: str | None,
    analysis: str | None,
    option: tuple[str, ...],
    weights: str | None,
) -> None:
    """Refuse what does not go together, as the command does."""
    wrong = (
        (group and source, "source chooses among statistics: it does not go with a group"),
        (variable and not group, "variable is one of a group: name it"),
        (option and not analysis, "option is one of an analysis: name it"),
        (weights and not analysis, "weights is for an analysis: name it"),
        (analysis and not variable, "analysis compares one variable: give group and variable"),
        (analysis and source, "analysis compares one group: leave source out"),
    )
    for is_so, text in wrong:
        if is_so:
            raise MisuseError(text)


def _options(
    second: Store, analysis: str, given: tuple[str, ...], weights: str | None
) -> tuple[dict[str, Any], str | None]:
    from taqstore.query.texts import read_options

    word_of(analysis, ANALYSES, "analysis")
    options = read_options(analysis, dict(text.partition("=")[::2] for text in given))
    if any(option.type == "weights" for option in ANALYSES[analysis].options):
        options["weights"], weights = weights_of(second, weights)
    elif weights is not None:
        raise MisuseError(f"{analysis} takes no weights")
    return options, weights


def _diff_code(addresses: tuple[str, str], said: Mapping[str, Any]) -> str:
    selection = {k: v for k in ("layer", "step") if (v := said[k]) is not None}
    values = {k: said[k] for k in ("source", "group", "variable")}
    lines = ["import taqstore", "", opened(addresses[0], "a"), opened(addresses[1], "b")]
    call = "taqstore.query.diff"
    if said["analysis"]:
        lines.insert(1, "from taqstore.query.diff import diff_analysis")
        lines.insert(2, "from taqstore.query.texts import read_options")
        values = {k: said[k] for k in ("group", "variable", "analysis")}
        call = "diff_analysis"
    values |= {"selection": selection}
    if said["weights"]:
        lines.insert(1, "from taqstore.kinds.quantized_linears import weight_groups_of")
        values["weights"] = Code(f"weight_groups_of(b, {said['weights']!r})")
    made = python_call(call, ["a", "b"], values, result="results")
    if said["option"]:
        texts = dict(text.partition("=")[::2] for text in said["option"])
        made = f"{made[:-1]}, **read_options({said['analysis']!r}, {texts!r}))"
    order = python_call("taqstore.query.movers", ["results"], {"by": said["by"]}, result="table")
    return "\n".join([*lines, made, order])
