"""What second moments cost beside the statistics of the same forwards, on a wide model.

python -m benchmarks.second_moments [--repeats N]    hidden 1536, float32, as `benchmarks.live`

Forwards with statistics alone, with second moments of blocks of 64 channels and with full ones
take turns, so that whatever else runs slows all; ratios of wall time and of CPU time are told.
Peak memory is that of a process of its own for each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_inputs
from taqstore.pipelines.models.load import LoadedModel, load_pipeline, to_numpy
from taqstore.pipelines.models.reducers import default_reducer
from taqstore.pipelines.models.table import MODELS

from benchmarks.live import WIDE, ready, row
from taqstore.names import MODEL_SITES, SITES
from taqstore.statistics.observation import MANTISSA_BITS
from taqstore.statistics.second_moment import SecondMoment
from taqstore.testing.checkpoint import make_checkpoint

KINDS: dict[str, int | None] = {"statistics": 0, "block 64": 64, "full": None}
LIMITS = {"block 64": 1.2, "full": 1.6}


def observed(model: LoadedModel, block_size: int | None) -> Callable[[], None]:
    """A forward with statistics of all sites, and second moments unless `block_size` is 0."""
    x, schedule, prompt = ready(model)
    reducer = default_reducer()
    sums: dict[tuple[str, str], SecondMoment] = {}
    if block_size != 0:
        for one in model.inputs():
            sums[one.site, one.layer] = SecondMoment(one.channels, block_size)

    def take(inputs: Any) -> None:
        reducer([tensor for _, tensor in inputs], MANTISSA_BITS)
        for one, tensor in inputs if sums else ():
            sums[one.site, one.layer].add(to_numpy(tensor))

    def run() -> None:
        with watching_inputs(model, (*SITES, *MODEL_SITES), take):
            done = model.denoise(x, schedule.timesteps[1], schedule.sigmas[1], prompt)
            backend().mx.eval(done)

    return run


def cpu_seconds() -> float:
    """User time of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def side_by_side(checkpoint: Path, repeats: int) -> None:
    """Print medians of each kind and their ratios."""
    model = load_pipeline("wide", local_ckpt=checkpoint)
    runs = {name: observed(model, size) for name, size in KINDS.items()}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            started, used = time.perf_counter(), cpu_seconds()
            run()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(cpu_seconds() - used)
    for name in runs:
        line = f"{name}: {median(wall[name]):.2f} s, {median(cpu[name]):.2f} CPU-s"
        if name in LIMITS:
            ratios = [median(t[name]) / median(t["statistics"]) for t in (wall, cpu)]
            line += f", ratio {ratios[0]:.2f} (CPU {ratios[1]:.2f}, at most {LIMITS[name]} is due)"
        print(line)


def peak(checkpoint: str, name: str) -> None:
    """Print the largest resident set of a process that runs two such forwards, in bytes."""
    MODELS["wide"] = row("wide", 32)
    run = observed(load_pipeline("wide", local_ckpt=checkpoint), KINDS[name])
    run(), run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def memory(checkpoint: Path) -> None:
    """Print peaks, above that of statistics alone."""
    peaks = {}
    for name in KINDS:
        code = f"from benchmarks.second_moments import peak; peak({str(checkpoint)!r}, {name!r})"
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
        peaks[name] = int(done.stdout)
    plain = peaks["statistics"]
    print("; ".join(f"{name}: {value / 1e6:.0f} MB ({(value - plain) / 1e6:+.0f})"
                    for name, value in peaks.items()))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        MODELS["wide"] = row("wide", 32)
        checkpoint = make_checkpoint(Path(name) / "wide.safetensors", shape=WIDE)
        memory(checkpoint)  # first: a child begins with the peak of its parent
        side_by_side(checkpoint, options.repeats)


if __name__ == "__main__":
    main()
