"""`taqstore cache --plan`: options, and what cached blocks take as a table or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from taqstore.cli import CACHE_PLAN, vocabulary
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.dry_run import format_seconds
from taqstore.cli.model_options import MODEL, known_model
from taqstore.cli.output import print_json, print_rows
from taqstore.place.sizes import format_bytes

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_REQUESTS = ("put", "get", "list", "delete")
_OF_PLAN = (
    "num_images",
    "steps",
    "size",
    "frames",
    "forward_seconds",
    "bandwidth",
    "workers",
    "put_price",
    "get_price",
)


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = _SIZE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write height and width like 480x832")
    return int(match[1]), int(match[2])


def _model(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A model that runs; with --plan, one whose sizes are known."""
    if value is None or not ctx.params.get("plan"):
        return known_model(ctx, param, value)
    return str(import_module(CACHE_PLAN).find_shape(value).name)


optional_store = click.argument("store", type=StoreAddress(), required=False)
planned_model = click.option(
    "--model",
    type=Named(vocabulary.models),
    metavar=MODEL,
    callback=_model,
    help="Model that made ingested latents or samples, which do not say it; with --plan, any whose "
    "sizes are known, such as flux-dev or wan2.2-a14b.",
)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--plan",
        is_flag=True,
        is_eager=True,
        help="Say what blocks of --model would take (none: of all that are known); no STORE.",
    ),
    click.option("--num-images", type=click.IntRange(1), help="With --plan [default: 1000]."),
    click.option("--steps", type=click.IntRange(1), help="With --plan: of an image [default: 50]."),
    click.option(
        "--size",
        callback=_size,
        metavar="HxW",
        help="With --plan: height and width in pixels [default: the model's].",
    ),
    click.option("--frames", type=click.IntRange(1), help="With --plan: of a video."),
    click.option(
        "--forward-seconds",
        type=click.FloatRange(0, min_open=True),
        help="With --plan: what a forward takes, to tell the time.",
    ),
    click.option(
        "--bandwidth",
        type=click.FloatRange(0, min_open=True),
        metavar="MB/S",
        help="With --plan: what a worker can write, to tell the time.",
    ),
    click.option("--workers", type=click.IntRange(1), help="With --plan [default: 1]."),
    click.option(
        "--put-price",
        type=click.FloatRange(0),
        help="With --plan: of a million PUT and LIST requests.",
    ),
    click.option(
        "--get-price", type=click.FloatRange(0), help="With --plan: of a million GET requests."
    ),
)


def plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--plan` and those that go with it."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def taken_out(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `--plan`, which are no longer among `options`; refused without it."""
    found = {name: options.pop(name) for name in ("plan", *_OF_PLAN)}
    given = [name for name in _OF_PLAN if found[name] is not None]
    if given and not found["plan"]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for --plan")
    return found


def print_cache_plan(
    found: dict[str, Any],
    *,
    model: str | None,
    chosen: tuple[str, ...] | None,
    stride: int,
    as_json: bool,
) -> None:
    """Print what blocks of a model, or of all models, would take."""
    pipeline = import_module(CACHE_PLAN)
    shapes = pipeline.SHAPES
    # Frames of no model in particular are those of videos.
    every = [name for name in shapes if found["frames"] is None or shapes[name].frames > 1]
    models = every if model is None else [model]
    asked = {"images": found["num_images"], "steps": found["steps"]}
    wanted = pipeline.Wanted(
        **{name: value for name, value in asked.items() if value is not None},
        stride=stride,
        chosen=chosen,
        size=found["size"],
        frames=found["frames"],
    )
    plans = [pipeline.plan_cache(shapes[name], wanted) for name in models]
    prices = {"put": found["put_price"], "get": found["get_price"]}
    documents = [
        {**pipeline.document(plan, prices), "seconds": _seconds(plan, found)} for plan in plans
    ]
    if as_json:
        print_json(documents if model is None else documents[0])
    else:
        print_rows(*_table(documents, priced=any(p is not None for p in prices.values())))


def _seconds(plan: Any, found: dict[str, Any]) -> float | None:
    """Of forwards and of writing, one after another; None where no rate is known."""
    forward, bandwidth = found["forward_seconds"], found["bandwidth"]
    if forward is None and bandwidth is None:
        return None
    writing = plan.whole.bytes / (bandwidth * 1e6) if bandwidth else 0.0
    return float((plan.forwards * (forward or 0.0) + writing) / (found["workers"] or 1))


def _table(
    documents: list[dict[str, Any]], *, priced: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row for each model and way of keeping its boundaries."""
    timed = any(document["seconds"] is not None for document in documents)
    header = ["model", "kept", "bytes", "objects", *_REQUESTS]
    header += ["cost"] * priced + ["time"] * timed
    return tuple(header), [
        _row(document, way, priced=priced, timed=timed)
        for document in documents
        for way in ("whole", "rolling")
    ]


def _row(document: dict[str, Any], way: str, *, priced: bool, timed: bool) -> tuple[str, ...]:
    kept, seconds = document[way], document["seconds"] if way == "whole" else None
    row = [document["model"], way, format_bytes(kept["bytes"]), str(kept["objects"])]
    row += [str(kept["requests"][name]) for name in _REQUESTS]
    row += [f"{kept['cost']:.2f}"] if priced else []
    row += ["" if seconds is None else format_seconds(seconds)] * timed
    return tuple(row)
