"""What subcommands of `taqstore analyze` share: options, the run, and the output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import click

from taqstore.analysis.shared.row import Analysis
from taqstore.analysis.table import ANALYSES
from taqstore.cli import MODEL_WEIGHTS, vocabulary
from taqstore.cli.common import say, say_nonfinite, store_argument
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.output import Output, table_output
from taqstore.cli.scheduler import computing, dealing, in_process, scheduler_option
from taqstore.cli.several import addresses, open_asked, with_others
from taqstore.cli.words import Word
from taqstore.errors import TaqError
from taqstore.files.targets import DATASETS

if TYPE_CHECKING:
    from taqstore.store.reader import Store

_SELECTING: dict[str, Callable[[Any], Any]] = {
    "source": click.option(
        "--source",
        type=Named(vocabulary.sources),
        help="Group prefix [default: first of those in the store].",
    ),
    "site": click.option(
        "--site",
        "sites",
        multiple=True,
        type=Named(vocabulary.sites),
        help="attn.qkv, mlp.fc2, … Repeatable.",
    ),
    "layer": click.option(
        "--layer",
        type=Named(vocabulary.layers, commas=True),
        help="Glob over layers, or any spelling of one.",
    ),
    "step": click.option("--step", help="Step index, or A:B:S."),
    "batch": click.option("--batch", help="Observed batches to use: A:B:S."),
}
_FAIL = click.option("--fail", is_flag=True, help="Exit with 1 where the answer is bad.")


def shared_options(row: Analysis) -> list[Callable[[Any], Any]]:
    """Arguments and options of an analysis that its own come after."""
    return [
        store_argument,
        *([click.argument("other", type=StoreAddress())] if row.second else []),
        *(_SELECTING[word] for word in row.takes),
        with_others,
        table_output(suffixes=(*DATASETS, *_text_suffixes(row))),
        *([_paste_option(row)] if row.pastes else []),
        *([_FAIL] if row.fails else []),
        scheduler_option,
    ]


def _text_suffixes(row: Analysis) -> list[str]:
    return [".json", ".py"] if row.pastes else []


def _paste_option(row: Analysis) -> Callable[[Any], Any]:
    return click.option(
        "--paste",
        type=Word(row.pastes),
        help=f"Print, or write with -o, what other tools take [default with -o FILE.json:"
        f" {row.pastes[0]}].",
    )


def _pasted_word(name: str, given: dict[str, Any]) -> str | None:
    """Which text is asked for; None: tables are.

    Raises
    ------
    click.UsageError
        It goes with none of the tables, or is of another kind than the file.
    """
    word, output = given.get("paste"), given["output"]
    suffix = output.path.suffix if output.path else ""
    if word and (output.as_csv or output.as_json):
        raise click.UsageError("--paste is a text of its own: leave --csv and --json out")
    if not word and suffix not in (".json", ".py"):
        return None
    from taqstore.export.pasted.table import PASTES

    known = PASTES[name]
    first = next((w for w, paste in known.items() if paste.suffix == suffix), None)
    word = word or (first if suffix == ".json" else None)
    if word is None:
        raise click.UsageError(f"-o FILE{suffix} needs --paste {'|'.join(known)}")
    if suffix and suffix != known[word].suffix:
        raise click.UsageError(f"--paste {word} is written as FILE{known[word].suffix}")
    return word


def run(name: str, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Select, analyse site by site or the whole store, print or write.

    Parameters
    ----------
    given
        Values of `shared_options`.
    options
        Those of the analysis.

    Raises
    ------
    TaqError
        The analysis says that the store fails, and ``--fail`` was given.
    """
    from taqstore.query.analyze import analyze, site_tables, whole_tables, write_results
    from taqstore.store.reader import open_store

    row, output = ANALYSES[name], cast("Output", given["output"])
    word = _pasted_word(name, given) if row.pastes else None
    selection = {key: given.get(key) for key in ("layer", "step", "batch")}
    chosen = {"source": given.get("source"), "sites": given.get("sites", ()),
              "selection": selection}  # fmt: skip
    opened = open_asked(given["store"])
    other = open_store(given["other"]) if row.second else None
    refuse = None if word else _refusal(output)
    told = _told(name, opened, given, {"check": refuse, **chosen, **options})
    lazy = told is None
    with computing(given["scheduler"], *addresses(given["store"])) if lazy else nullcontext():
        results = (
            told if told is not None else analyze(name, opened, other=other, **chosen, **options)
        )
        _tell(opened, row, results, chosen)
        if other is not None:
            _tell(other, row, results, chosen, where=given["other"])
        tables = whole_tables if row.whole else site_tables
        write = partial(write_results, results, whole=row.whole)
        if word is None:
            output.give(partial(tables, results), write)
        else:
            from taqstore.export.pasted.table import pasted

            output.give_text(pasted(name, word, opened, results))
    for text in filter(None, (result.attrs.get("note") for result in results.values())):
        say(f"note: {text}")
    failures = [text for result in results.values() if (text := result.attrs.get("failure"))]
    if given.get("fail") and failures:
        raise TaqError(failures[0])
    for text in failures:
        say(f"note: {text}")


def _refusal(output: Output) -> Any:
    """What refuses tables that are too large; None where the answer is no table."""
    from taqstore.files.tables import check_rows

    tables = output.path is None or output.path.suffix in (".csv", ".parquet")
    return check_rows if tables else None


def _told(name: str, opened: Store, given: dict[str, Any], asked: dict[str, Any]) -> Any:
    """Answers told layer by layer, by threads of this process; None where the others are needed."""
    from taqstore.query.by_layers import told

    if not in_process(given["scheduler"]) or not ANALYSES[name].by_layer:
        return None
    with dealing(given["scheduler"], least=1) as each:
        return told(name, opened, each, **asked)


def _tell(
    store: Store, row: Analysis, results: Any, chosen: dict[str, Any], *, where: str = ""
) -> None:
    """Talk of values of the statistics asked of that are no numbers."""
    from taqstore.query.notes import statistics_of

    say_nonfinite(statistics_of(store, row, results, chosen), where=where)


def weights_of_store(opened: Store, asked: str | None = None) -> Any:
    """Weights for an analysis that needs them: rounded ones in the store, or those of its model.

    The model's are taken where rounded ones are not there of every layer that was observed. Of
    several weight sets one must be asked for.
    """
    from taqstore.kinds.quantized_linears import weight_groups_of
    from taqstore.kinds.weight_sets import set_folders
    from taqstore.names import ACTIVATIONS
    from taqstore.query.sites import site_groups

    there = asked is not None or bool(set_folders(opened))
    stored = weight_groups_of(opened, asked) if there else {}
    observed = site_groups(opened, ACTIVATIONS)
    if asked is not None:
        return stored
    if stored and all(_has(stored.get(site), layers) for site, layers in observed.items()):
        return stored
    models = import_module(MODEL_WEIGHTS)
    model = models.named_model(opened)
    if model is None:
        return stored  # the analysis says what it lacks
    say(f"note: weights are those of {model}, the model that the store names")
    return models.model_weight_absmax(opened)


def _has(weights: Any, observed: Any) -> bool:
    """Whether weights are there of every layer that was observed."""
    return weights is not None and bool(observed["layer"].isin(weights["layer"]).all())
