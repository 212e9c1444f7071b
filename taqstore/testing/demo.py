"""`python -m taqstore.testing.demo FOLDER`: the two-minute tour, command by command.

Makes a synthetic run folder, then runs the commands a user would type on it and echoes each.
Tables go to the screen and into the folder.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from taqstore.errors import TaqError, problem
from taqstore.testing import RunShape, make_lut_schedule, make_postgelu, make_run_folder

SHAPE = RunShape(images=5, steps=12, blocks=4, stats_stride=1)
RUN = "run"
STORE = "store.zarr"
FC2 = "pooled/timestep_stats/mlp.fc2"
_MARKER = ".taqstore-demo"

# Command line, and the file its standard output is kept in beside the screen.
COMMANDS: tuple[tuple[str, str], ...] = (
    (f"ingest {RUN}/calibration_data {RUN}/activation_stats_postgelu.npz {STORE}", "ingest.txt"),
    (f"info {STORE}", "info.txt"),
    (f"query {STORE} {FC2} avg_min avg_max --layer mm_00_img --reduce channel=max", "query.txt"),
    (f"query {STORE} latents x --image 0 --step 0:3 -o latents.nc", ""),
    (f"analyze scales {STORE} --site mlp.fc2 --bits 4 --limit 8", ""),
    (f"analyze scales {STORE} --bits 4 -o scales_w4.csv", ""),
    (f"analyze temporal {STORE} --site attn.o_proj --limit 6", "temporal.txt"),
    (f"analyze schedule {STORE} --site mlp.fc1 --limit 6", "schedule.txt"),
    (f"export quant-config {STORE} -o quant_config.json --outliers", ""),
    (f"export quant-config-multitier {STORE} -o quant_config_multitier.json", ""),
    (f"plot summary {STORE} -o plots", "summary.txt"),
    *((f"plot {kind} {STORE} -o plots", "") for kind in ("range", "heatmap", "negative")),
    *(
        (f"plot {kind} {STORE} -o plots --layer mm_00_img", "")
        for kind in ("histogram", "channels")
    ),
    (f"verify {STORE}", ""),
)


def main(folder: Path) -> None:
    """Make the inputs, run every command, say where everything is."""
    _prepare(folder)
    run = folder / RUN
    print(f"A run folder of the old scripts, synthetic: {SHAPE}", flush=True)
    make_run_folder(run / "calibration_data", shape=SHAPE, seed=1)
    make_postgelu(run / "activation_stats_postgelu.npz", shape=SHAPE, seed=1)
    make_lut_schedule(run / "lut_schedule.json", shape=SHAPE, seed=1)
    for line, kept in COMMANDS:
        _run(folder, line, kept)
    print(f"\nThe store, both configs, tables and plots are in {folder.resolve()}")


def _prepare(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise TaqError(problem("is not a demo of ours; not touched", where=str(folder)))
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()


def _run(folder: Path, line: str, kept: str) -> None:
    print(f"\n$ taqstore {line}", flush=True)
    command = [sys.executable, "-m", "taqstore", *shlex.split(line)]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    print(done.stdout, end="", flush=True)
    if kept:
        (folder / kept).write_text(done.stdout, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
