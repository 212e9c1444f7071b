"""Requests and memory of a store in a bucket: `PYTHONPATH=.:tests python -m benchmarks.remote`.

The bucket is moto's, on loopback, which counts. Counts and memory hold for any bucket; seconds
would not, and are not told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from taqstore import create_store, open_store
from taqstore.kinds import iter_batches, open_block
from taqstore.layout.template import Array, Template
from taqstore.store import group_writer
from taqstore.testing import RunShape, make_run_folder, make_store

from .wanted import HEAD, Row

_SERVER: Any = import_module("support.s3_server")
_UPLOADED: Any = import_module("support.uploaded")
_BLOCKS: Any = import_module("support.block_store")
_PIECES = 16


@dataclass(frozen=True)
class Bench:
    """Where everything is done.

    Parameters
    ----------
    server
        The S3 server.
    bucket
        A bucket of it, as an address.
    folder
        For what is made on this disk first.
    items
        How many flags the store of flags has.
    """

    server: Any
    bucket: str
    folder: Path
    items: int

    def uploaded(self, folder: Path) -> str:
        """A store of this disk, put into the bucket."""
        address: str = _UPLOADED.uploaded(folder, f"{self.bucket}/{folder.name}")
        return address

    def count(self, ask: Callable[[], Any]) -> Any:
        """Requests that something takes."""
        with self.server.counted() as count:
            ask()
        return count


def questions(bench: Bench) -> Iterator[Row]:
    """Opening a store of one batch of observations, and asking it."""
    address = bench.uploaded(make_store(bench.folder / "s.zarr", shape=RunShape(images=1)))
    site = "activations/mlp.fc2"
    yield Row("open root + a group", bench.count(lambda: open_store(address)[site]).total, 8)
    asked: dict[str, Callable[[Any], Any]] = {
        "one layer over all steps": lambda group: group[["min", "max"]].isel(layer=1),
        "one step over all layers": lambda group: group[["min", "max"]].isel(step=0),
        "absmax from the rollup": lambda group: abs(group[["tensor_min", "tensor_max"]]).max(),
    }
    for name, ask in asked.items():
        group = open_store(address)[site]
        yield Row(name, bench.count(ask(group).load).total, 2)


def minibatches(bench: Bench) -> Iterator[Row]:
    """Samples of a block, at random."""
    address = bench.uploaded(_BLOCKS.write_blocks(bench.folder / "blocks.zarr"))
    found = bench.count(lambda: open_block(address, "mm0", staging=0).read([0, 3, 5, 7]))
    yield Row("open + minibatch of 4", found.total, 20)

    def draw(iterations: int) -> int:
        there = _UPLOADED.uploaded(
            bench.folder / "blocks.zarr", f"{bench.bucket}/{iterations}.zarr"
        )
        with closing(iter_batches(there, "mm0", batch_size=3)) as batches:
            total: int = bench.count(lambda: list(islice(batches, iterations))).total
            return total

    few, many = draw(20), draw(2000)
    yield Row(f"minibatches of 2,000 iterations, beside those of 20 ({few})", many, few)


def configs(bench: Bench) -> Iterator[Row]:
    """A whole document of a run of the old scripts, and bringing that run in."""
    from taqstore.pipelines.ingest import ingest

    from taqstore.export import export

    run = make_run_folder(bench.folder / "run")
    address = f"{bench.bucket}/run.zarr"
    found = bench.count(lambda: ingest([run], address))
    puts = found["PUT"] + found["PART"]
    size = sum(request.received for request in found.log if request.what in ("PUT", "PART"))
    yield Row(f"ingest of {size / 1e6:.1f} MB in {puts} PUTs: requests per PUT",
              round(found.total / puts, 2), 2, "requests")  # fmt: skip
    out = bench.folder / "quant.json"
    found = bench.count(lambda: export("quant-config", open_store(address), out))
    yield Row("quant-config of that store", found.total, 60)


def flags(bench: Bench) -> Iterator[Row]:
    """Opening items that were flagged one by one, and were not closed by their writer."""
    dims = {"image": bench.items, "step": 1, "height": 1, "width": 1, "latent_channel": 1}
    template = Template(
        "latents", "latents", dims, (Array("x", tuple(dims), "float32", split="step"),),
        {"image": (("image",), np.arange(bench.items)), "step": (("step",), np.arange(1))},
        ("image",),
    )  # fmt: skip
    address = f"{bench.bucket}/flags.zarr"
    before, group_writer._CLOSED_AFTER = group_writer._CLOSED_AFTER, 2 * bench.items
    try:
        group = create_store(address).group(template)
        for number in range(bench.items):
            group.put("x", (number, 0, 0, 0, 0), np.zeros((1, 1, 1, 1, 1), np.float32))
            group.commit([(number,)])
    finally:
        group_writer._CLOSED_AFTER = before
    found = bench.count(lambda: open_store(address, chunks=None)["latents"])
    yield Row(f"opening {bench.items:,} flagged items", found.total, 200)


def memory(bench: Bench) -> Iterator[Row]:
    """Writing a shard of 256 MB in pieces of 16 MB, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.remote", "--shard", f"{bench.bucket}/shard.zarr"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    yield Row("memory added by a shard of 256 MB", float(done.stdout), 64, "MB")


def write_shard(address: str) -> None:
    """Print the MB that writing the large shard adds to what a small one takes."""
    from .memory import peak_resident_bytes

    dims = {"image": 2, "step": _PIECES, "height": 1024, "width": 1024, "latent_channel": 4}
    template = Template(
        "latents", "latents", dims, (Array("x", tuple(dims), "float32", split="step"),),
        {"image": (("image",), np.arange(2)), "step": (("step",), np.arange(_PIECES))},
        ("image",),
    )  # fmt: skip
    tiny = replace(template, path="tiny", sizes={**dims, "height": 1, "width": 1})
    piece = np.ones((1, 1, 1024, 1024, 4), np.float32)  # the caller's, and there before
    with create_store(address) as store:
        values = np.zeros((1, _PIECES, 1, 1, 4), np.float32)
        store.group(tiny).put("x", (0, 0, 0, 0, 0), values)
        group = store.group(template)
        before = peak_resident_bytes()
        group.put("x", (0, 0, 0, 0, 0), (piece for _ in range(_PIECES)))
        group.commit([(0,)])
        print((peak_resident_bytes() - before) / 1e6)


ROWS = {f.__name__: f for f in (questions, minibatches, configs, flags, memory)}


def main() -> None:
    """Print the table; exit code 1 where something wanted was not found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="may be repeated")
    parser.add_argument("--items", type=int, default=100_000, help="flags to open [100,000]")
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.shard:
        write_shard(given.shard)
        return
    server = _SERVER.S3Server()
    os.environ.update(server.environment())
    rows: list[Row] = []
    print(HEAD, flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in given.only or ROWS:
                bucket = f"s3://{server.make_bucket()}"
                for row in ROWS[name](Bench(server, bucket, Path(folder), given.items)):
                    print(row.line, flush=True)
                    rows.append(row)
    finally:
        server.close()
    sys.exit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
