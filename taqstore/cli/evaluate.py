"""`taqstore evaluate`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.cli import EVALUATE_PIPELINE, vocabulary
from taqstore.cli.common import say, say_nonfinite, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import (
    allocation_option,
    config_option,
    images_option,
    local_ckpt_option,
    model_option,
    nearest_bits_option,
    parse_names,
    time_groups_option,
    weight_group_size_option,
)
from taqstore.cli.output import (
    SetOrSource,
    Source,
    csv_option,
    json_option,
    output_option,
    print_tables,
)
from taqstore.cli.progress import progress_bar
from taqstore.run.outcome import Outcome


@click.command("evaluate", cls=LongCommand)
@store_argument
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=Named(vocabulary.variants),
    metavar="NAME",
    help="WEIGHTS, WEIGHTS/a16, WEIGHTS/aBITS-STEPS[-mse][-shift] or WEIGHTS/config, each with"
    " @BLOCKS or not; repeatable [default: a table of them].",
)
@click.option(
    "--blocks",
    "chosen",
    type=Named(vocabulary.blocks, commas=True),
    callback=parse_names,
    help="Blocks to quantize, like mm0,mm5 [default: all].",
)
@nearest_bits_option
@weight_group_size_option
@time_groups_option
@images_option
@click.option(
    "--stride",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Every how many steps the denoiser and its blocks are compared.",
)
@click.option(
    "--digits",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Pictures sampled besides to judge the reference model's accuracy; 0: STORE's images.",
)
@click.option(
    "--held-out",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Judge so many further images, sampled once and kept; 0: images of STORE.",
)
@click.option(
    "--prompts",
    type=Source(Path),
    help="Text or CSV file with prompts of --held-out images [default: the model's own].",
)
@click.option(
    "--weights",
    type=SetOrSource(),
    metavar="SET|FILE",
    help="Weight set of STORE, whose linears rtn, clipped and mlx round too; or a file of export"
    " safetensors for adaround [default: sets that variants name].",
)
@config_option
@allocation_option
@output_option(
    help="Folder for the contact sheet, the figure and tables by step, block and image.",
    only="folder",
)
@dry_run_option
@csv_option
@json_option
@model_option
@local_ckpt_option
def command(
    store: str,
    variants: tuple[str, ...],
    output: Path | None,
    dry_run: bool,
    as_csv: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Sample STORE's prompts and seeds quantized, and say what each way of it costs.

    WEIGHTS: float (as they are), rtn (to nearest), clipped (to nearest, bound of least squared
    error), mlx (as MLX quantizes by itself), comfy (as ComfyUI's asym_w4a8_int8 does by itself),
    comfy-gptq (its codes by GPTQ from STORE's second moments), mixed (each linear by its own of
    these, as --allocation says), or a weight set of STORE: gptq, adaround, …; rtn-w3-g32 has 3 bits
    and a step for 32 inputs. /a16 or nothing: inputs as they are. STEPS of the inputs: static, step
    (one for each step), grouped, learned (with adaround).
    -mse: clip bounds of least expected error; -shift: shifted post-GELU channels. @mm0-5,uni2:
    these blocks alone. The model as it is always comes first.

    rtn, clipped and mlx round the same linears as the weight sets beside them, adaLN and embedders
    included; mlx with their bits and groups. of_float16 are bytes of packed codes, scales and
    biases by those of the same weights in float16. Which images were judged, and whether any of
    them was observed, is said on stderr.

    All blocks of the model are quantized, or those of --blocks. Rounded weights that are not of all
    of them stand, by name, beside weights rounded to nearest over the same blocks.

    \b
    Examples:
      taqstore evaluate run.zarr -o evaluation
      taqstore evaluate run.zarr --variant rtn/a8-static --variant adaround/a8-learned --digits 100
      taqstore evaluate run.zarr --variant gptq/a16 --variant mlx/a16 --held-out 8
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    if dry_run and as_csv:
        raise click.UsageError("--dry-run prints a table, or --json")
    from taqstore.files.tables import to_tables
    from taqstore.names import ACTIVATIONS
    from taqstore.query.sites import paths_of
    from taqstore.store.reader import open_store

    pipeline = import_module(EVALUATE_PIPELINE)
    ways = [pipeline.Variant.parse(name) for name in variants] or None
    opened = open_store(store)
    named = isinstance(options["weights"], str)
    options |= {"set": options["weights"], "weights": None} if named else {"set": None}
    names = ("chosen", "bits", "group_size", "groups", "weights", "set", "config", "allocation")
    open_ends = pipeline.Options(**{name: options.pop(name) for name in names})
    if dry_run:
        plan = pipeline.evaluate_costs(opened, variants=ways, options=open_ends, **options)
        print_plan(Outcome(plan=plan), as_json=as_json)
        return
    with progress_bar("loading the model", unit="forwards") as progress:
        found = pipeline.evaluate(
            opened,
            variants=ways,
            options=open_ends,
            pictures=output is not None,
            progress=progress,
            **options,
        )
    details = to_tables(found.result) if as_json else []
    print_tables([pipeline.summary(found.result), *details], as_csv=as_csv, as_json=as_json)
    say(f"note: {found.result.attrs['judged']}")
    for note in found.result.attrs["notes"]:
        say(f"note: {note}")
    if output is not None:
        written, notes = pipeline.write_evaluation(found, output)
        for path in written:
            say(f"wrote {path}")
        for note in notes:
            say(f"note: {note}")
    say_nonfinite(opened, paths_of(opened, ACTIVATIONS))
