"""`python -m benchmarks.layout`: what the choice of chunks, shards and codecs costs three readers.

The extrema of SD3-Medium's widest site (50 steps x 47 layers x 6144 channels, float32) are written
in several layouts through the same templates and writer, and read through the same lazy arrays:
one layer over all steps, one step over all layers, everything for a reduction.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from taqstore.layout.template import Array, Template, rows_per_shard
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import create_store

STEPS, LAYERS, CHANNELS = 50, 47, 6144
DIMS = ("step", "layer", "channel")
GROUP = "pooled/layout/mlp.fc2"
ROUNDS = 7


@dataclass(frozen=True)
class Layout:
    """One way to lay the array out: what inner chunks split, shard extents, zstd or not."""

    name: str
    split: str | None
    shard: dict[str, int]
    compress: bool = False


_ROWS = rows_per_shard(STEPS * CHANNELS * 4, LAYERS)
LAYOUTS = (
    Layout("chunk = layer, shard 32 MB (chosen)", "layer", {"layer": _ROWS}),
    Layout("chunk = layer, shard 32 MB, zstd", "layer", {"layer": _ROWS}, compress=True),
    Layout("chunk = layer, one shard", "layer", {"layer": LAYERS}),
    Layout("chunk = step, shard 32 MB", "step", {"layer": _ROWS}),
    Layout("chunk = step, shard = step", "step", {"step": 1}),
    Layout("one chunk file per layer", None, {"layer": 1}),
    Layout("one chunk file per step", None, {"step": 1}),
)
READERS: dict[str, Callable[[Store, int], np.ndarray]] = {
    "one layer": lambda store, i: np.array(store[GROUP]["avg_max"][:, i % LAYERS]),
    "one step": lambda store, i: np.array(store[GROUP]["avg_max"][i % STEPS]),
    "max of all": lambda store, i: np.asarray(store[GROUP]["avg_max"].max(skipna=False)),
}


def write(folder: Path, layout: Layout, values: np.ndarray) -> tuple[float, float, int]:
    """Write one layout; seconds, bytes in MB, files."""
    template = Template(
        GROUP,
        "pooled",
        dict(zip(DIMS, values.shape, strict=True)),
        (Array("avg_max", DIMS, "float32", split=layout.split, compress=layout.compress),),
        {"step": (("step",), np.arange(STEPS))},
        ("step",),
        item_size={"step": STEPS},
        shard={"step": STEPS, **layout.shard},
    )
    started = perf_counter()
    with create_store(folder) as writer:
        group = writer.group(template)
        extent = [template.shard_extent(dim) for dim in DIMS]
        for step in range(0, STEPS, extent[0]):
            for layer in range(0, LAYERS, extent[1]):
                part = values[step : step + extent[0], layer : layer + extent[1]]
                group.put("avg_max", (step, layer, 0), np.ascontiguousarray(part))
        group.commit([(step,) for step in range(STEPS)])
    seconds = perf_counter() - started
    files = [path for path in (folder / GROUP / "avg_max/c").rglob("*") if path.is_file()]
    return seconds, sum(path.stat().st_size for path in files) / 1e6, len(files)


def main() -> None:
    """Write every layout, then read them in turn; milliseconds are medians over rounds."""
    rng = np.random.default_rng(0)
    spread = rng.lognormal(0, 1, (1, LAYERS, CHANNELS))
    values = (rng.normal(1, 0.05, (STEPS, LAYERS, CHANNELS)) * spread).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        written = {
            layout.name: write(Path(folder) / str(number), layout, values)
            for number, layout in enumerate(LAYOUTS)
        }
        stores = [open_store(Path(folder) / str(n), chunks=None) for n in range(len(LAYOUTS))]
        times: dict[tuple[int, str], list[float]] = {}
        for turn in range(ROUNDS):
            for number, store in enumerate(stores):
                for name, read in READERS.items():
                    started = perf_counter()
                    read(store, turn)
                    times.setdefault((number, name), []).append(perf_counter() - started)
    print(f"{'layout':38}{'one layer':>11}{'one step':>11}{'max of all':>12}  write    MB  files")
    for number, layout in enumerate(LAYOUTS):
        one, step, everything = (1000 * median(times[number, name]) for name in READERS)
        seconds, size, files = written[layout.name]
        print(
            f"{layout.name:38}{one:8.2f} ms{step:8.2f} ms{everything:9.1f} ms"
            f"{seconds:5.1f} s{size:6.1f}{files:7}"
        )


if __name__ == "__main__":
    main()
