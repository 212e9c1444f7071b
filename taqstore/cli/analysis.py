"""What subcommands of `taqstore analyze` share: options, the run, and the output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from taqstore.cli import MODEL_WEIGHTS
from taqstore.cli.common import say, say_nonfinite, store_argument
from taqstore.cli.output import Output, table_output
from taqstore.cli.scheduler import computing, scheduler_option

if TYPE_CHECKING:
    from taqstore.store.reader import Store

SHARED: tuple[Callable[[Any], Any], ...] = (
    store_argument,
    click.option("--source", help="Group prefix [default: first of those in the store]."),
    click.option("--site", "sites", multiple=True, help="attn.qkv, mlp.fc2, … Repeatable."),
    click.option("--layer", help="Glob over layers, or any spelling of one."),
    click.option("--step", help="Step index, or A:B:S."),
    click.option("--batch", help="Observed batches to use: A:B:S."),
    table_output(),
    scheduler_option,
)


def run(name: str, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Select, analyse site by site, print or write.

    Parameters
    ----------
    given
        Values of `SHARED`.
    options
        Those of the analysis.
    """
    from taqstore.query.analyze import analyze, site_tables, write_results
    from taqstore.query.sites import slices
    from taqstore.store.reader import open_store

    output: Output = given["output"]
    selection = {key: given[key] for key in ("layer", "step", "batch")}
    opened = open_store(given["store"])
    results = analyze(
        name,
        opened,
        source=given["source"],
        sites=given["sites"],
        selection=selection,
        **options,
    )
    say_nonfinite(slices(opened, results, selection))
    with computing(given["scheduler"], given["store"]):
        output.give(partial(site_tables, results), partial(write_results, results))


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
