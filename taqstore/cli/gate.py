"""`taqstore gate`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.cli import EVALUATE_PIPELINE, GATE_PIPELINE, vocabulary
from taqstore.cli.common import complain, say, say_nonfinite, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import (
    allocation_option,
    config_option,
    local_ckpt_option,
    model_option,
    nearest_bits_option,
    time_groups_option,
    weight_group_size_option,
)
from taqstore.cli.output import (
    Source,
    check_force,
    json_option,
    output_option,
    print_json,
    print_rows,
    replace_option,
    replacing,
)
from taqstore.cli.progress import progress_bar
from taqstore.run.outcome import Outcome

_OPEN = ("bits", "group_size", "groups", "config", "allocation")
_BOUNDS = ("min_cosine", "max_bifurcated", "min_psnr")


@click.command("gate", cls=LongCommand)
@store_argument
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=Named(vocabulary.variants),
    metavar="NAME",
    help="What is judged, as taqstore evaluate names it: gptq/a8-static, rtn, …; repeatable.",
)
@click.option(
    "--packed",
    multiple=True,
    type=Source(folders=True),
    help="Folder of export mlx to judge, its linears packed; repeatable.",
)
@click.option(
    "--seeds",
    "count",
    type=click.IntRange(1),
    default=25,
    show_default=True,
    help="How many images, each with a seed that STORE does not have.",
)
@click.option(
    "--prompts",
    type=Source(Path),
    help="Text or CSV file with their prompts [default: the model's own, else those of STORE].",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(-1, 1),
    default=0.95,
    show_default=True,
    help="Least mean cosine of latents; an image with a step below it is bifurcated.",
)
@click.option(
    "--max-bifurcated",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="How many images may be bifurcated.",
)
@click.option("--min-psnr", type=float, help="Least mean PSNR of final latents, dB.")
@nearest_bits_option
@weight_group_size_option
@time_groups_option
@config_option
@allocation_option
@click.option("--pictures", is_flag=True, help="PSNR of pictures also where it takes a VAE.")
@click.option(
    "--against",
    type=Source(Path),
    help="Record of an earlier gate: fail where a variant is worse than in it.",
)
@dry_run_option
@output_option(help="Record of the gate, a JSON file.", only="file")
@replace_option
@json_option
@model_option
@local_ckpt_option
def command(
    store: str,
    variants: tuple[str, ...],
    output: Path | None,
    force: bool,
    against: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Pass or fail variants of STORE's model by their trajectories.

    The same prompts and seeds are sampled by the model as it is and by each variant. A variant
    passes if the mean cosine of its latents with those of the model, over images and steps, is at
    least --min-cosine, and no more than --max-bifurcated images have a step below it. Exit code 0:
    all pass; 1: one does not, its worst prompt and step are named on stderr.

    Prints a row for each variant: means over images with their 95 % intervals (paired bootstrap
    over seeds), of the latents' cosine, the least cosine of a step, the final latent's relative
    error and PSNR; bifurcated images. -o writes a record with every step of every image; --against
    compares with one, and fails a variant whose mean cosine is lower by more than chance explains.

    Trajectories are kept in STORE, in trajectories/float and by what runs: none is sampled twice,
    and a gate that was stopped goes on by itself. A store that cannot be written works, and keeps
    none.

    \b
    Examples:
      taqstore gate run.zarr --variant gptq/a8-static -o record.json
      taqstore gate run.zarr --packed packed --min-psnr 30
      taqstore gate run.zarr --variant gptq/a8-static --against record.json
    """
    check_force(force, output)
    if dry_run and (output is not None or against is not None):
        raise click.UsageError("--dry-run writes and compares nothing")
    from taqstore.files.staged import check_file
    from taqstore.names import ACTIVATIONS
    from taqstore.query.sites import paths_of
    from taqstore.store.reader import open_store

    if output is not None:
        check_file(output, force=force)
    pipeline, evaluate = import_module(GATE_PIPELINE), import_module(EVALUATE_PIPELINE)
    ways = [evaluate.Variant.parse(name) for name in variants]
    opened = open_store(store)
    asked = {
        "variants": ways,
        "options": evaluate.Options(**{name: options.pop(name) for name in _OPEN}),
        "bounds": pipeline.Bounds(**{name: options.pop(name) for name in _BOUNDS}),
        **options,
    }
    if dry_run:
        print_plan(Outcome(plan=pipeline.gate_costs(opened, **asked)), as_json=as_json)
        return
    before = None if against is None else pipeline.read_record(against)
    with progress_bar("loading the model", unit="forwards") as progress:
        found = pipeline.gate(opened, **asked, against=before, progress=progress)
    if as_json:
        print_json(found.record)
    else:
        print_rows(_HEADER, [_row(verdict) for verdict in found.verdicts])
    for change in found.changes:
        say(_change(change))
    for note in found.notes:
        say(f"note: {note}")
    say_nonfinite(opened, paths_of(opened, ACTIVATIONS))
    if output is not None:
        from taqstore.files.documents import write_document

        with replacing(output, force=force):
            write_document(output, "gate-record", found.record, force=force)
        say(f"wrote {output}")
    for verdict in found.verdicts:
        if not verdict.passes:
            complain(f"failed: {found.reason(verdict)}")
    if not found.passes:
        sys.exit(1)


_HEADER = ("variant", "gate", "cosine", "cosine_interval", "worst_cosine", "bifurcated",
           "latent_error", "error_interval", "psnr", "psnr_interval", "picture_psnr")  # fmt: skip


def _row(verdict: Any) -> tuple[str, ...]:
    means = verdict.intervals
    cosine, error, psnr = (means[name] for name in ("cosine", "latent_error", "psnr"))
    return (
        verdict.name,
        "passes" if verdict.passes else "fails",
        f"{cosine.mean:.6f}",
        _ends(cosine, ".6f"),
        f"{verdict.figures.worst_cosine.min():.6f}",
        f"{verdict.bifurcated}/{len(verdict.bifurcation)}",
        f"{error.mean:.5f}",
        _ends(error, ".5f"),
        f"{psnr.mean:.2f}",
        _ends(psnr, ".2f"),
        f"{means['picture_psnr'].mean:.2f}",
    )


def _ends(interval: Any, form: str) -> str:
    return f"{interval.lower:{form}}..{interval.upper:{form}}"


def _change(change: Any) -> str:
    cosine, error = change.cosine, change.latent_error
    word = "worse: " if change.worse else "better: " if cosine.lower > 0 else "no worse: "
    name = change.name if change.name == change.before else f"{change.name} ({change.before})"
    return (
        f"{word}{name}: cosine {cosine.mean:+.3g} ({cosine.lower:+.3g}..{cosine.upper:+.3g}), "
        f"latent_error {error.mean:+.3g} ({error.lower:+.3g}..{error.upper:+.3g})"
    )
