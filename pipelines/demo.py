"""`python -m taqstore.pipelines.demo TOUR FOLDER`: a tour, command by command.

`live` starts from the reference model, `ingest` from a synthetic run folder of the old scripts.
Each runs the commands a user would type and echoes them; tables go to the screen and into the
folder.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taqstore.errors import TaqError, problem
from taqstore.testing import RunShape, make_postgelu, make_run_folder

_MARKER = ".taqstore-demo"
_SHAPE = RunShape(images=5, steps=12, blocks=4, stats_stride=1)
_FC2 = "pooled/timestep_stats/mlp.fc2"
_VARIANTS = (
    *("rtn/a8-static", "adaround/a8-static", "adaround/a8-learned"),
    *("adaround/a4-static", "adaround/a4-step", "adaround/a4-step-shift"),
)
_FIVE = ("range", "heatmap", "negative", "histogram", "channels")


@dataclass(frozen=True)
class Tour:
    """Inputs and commands of one tour.

    Parameters
    ----------
    prepare
        Makes the inputs in a folder.
    commands
        ``(what follows taqstore, file its output is also kept in)``; a leading ``python`` runs that
        instead. A line without words is a remark.
    """

    prepare: Callable[[Path], None]
    commands: tuple[tuple[str, str], ...]


def _prepare_live(folder: Path) -> None:
    from .machine.blas import load_blas
    from .models.reference import digit_prompts

    print(f"MLX multiplies with {load_blas().name}.")
    text = "\n".join(digit_prompts(8, seed=1)) + "\n"
    (folder / "prompts.txt").write_text(text, encoding="utf-8")
    print(f"prompts.txt:\n{text}", end="", flush=True)


def _prepare_ingest(folder: Path) -> None:
    print(f"A run folder of the old scripts, synthetic: {_SHAPE}", flush=True)
    make_run_folder(folder / "run/calibration_data", shape=_SHAPE, seed=1)
    make_postgelu(folder / "run/activation_stats_postgelu.npz", shape=_SHAPE, seed=1)


_LIVE = (
    (
        "generate store.zarr --model reference --prompts prompts.txt --num-images 8 --steps 16"
        " --save-images images",
        "",
    ),
    ("cache store.zarr --images 0-3 --stride 5", ""),
    ("collect store.zarr --second-moment full", ""),
    ("info store.zarr", "info.txt"),
    ("analyze scales store.zarr --site mlp.fc2 --limit 8", "scales.txt"),
    ("# Another momentum, percentile and bit width: each was a new run of the model once.", ""),
    ("analyze shifts store.zarr --momentum 0.5 --layer mm_00_img --limit 4", "shifts.txt"),
    ("analyze scales store.zarr --bits 4 --clip percentile --percentile 99.99 --limit 8", ""),
    ("export quant-config store.zarr -o quant_config.json --outliers", ""),
    ("export quant-config-multitier store.zarr -o quant_config_multitier.json", ""),
    ("profile store.zarr -o plots", "summary.txt"),
    *((f"plot {kind} store.zarr -o plots", "") for kind in ("sqnr", "groups", "bits")),
    ("report store.zarr -o report.html", ""),
    ("# The weight track, in the same store: 4-bit weights, and what they cost.", ""),
    (
        "adaround store.zarr --iterations 200 --learning-rate 0.02 --batch-size 8",
        "adaround.txt",
    ),
    ("export safetensors store.zarr -o weights.safetensors", ""),
    ("verify store.zarr", ""),
    (
        "evaluate store.zarr --images 0-3 --stride 2 --digits 20 -o evaluation"
        + "".join(f" --variant {name}" for name in _VARIANTS),
        "evaluation.txt",
    ),
    ("# Weights from second moments alone, no forward; packed for MLX, and run packed.", ""),
    ("gptq store.zarr", "gptq.txt"),
    ("export mlx store.zarr --weights gptq -o packed", ""),
    (
        "evaluate store.zarr --weights gptq --held-out 8 --stride 4 -o packed_evaluation"
        + "".join(f" --variant {name}/a16" for name in ("rtn-g64", "mlx", "gptq")),
        "packed.txt",
    ),
    ("# Good enough? Trajectories beside the model's own, and which linears are to blame.", ""),
    ("gate store.zarr --variant gptq/a8-static --seeds 4 -o gate.json", "gate.txt"),
    ("sensitivity store.zarr --sites mlp.fc2 --seeds 1", "sensitivity.txt"),
    *((f"plot {kind} store.zarr -o plots", "") for kind in ("gate", "sensitivity")),
    (
        "generate packed.zarr --model reference --local-ckpt packed --prompts prompts.txt"
        " --num-images 8 --steps 16 --save-images packed_images",
        "",
    ),
)
_INGEST = (
    ("ingest run/calibration_data run/activation_stats_postgelu.npz store.zarr", "ingest.txt"),
    ("info store.zarr", "info.txt"),
    (
        f"query store.zarr {_FC2} avg_min avg_max --layer mm_00_img --reduce channel=max",
        "query.txt",
    ),
    ("query store.zarr latents x --image 0 --step 0:3 -o latents.nc", ""),
    ("analyze scales store.zarr --site mlp.fc2 --bits 4 --limit 8", ""),
    ("analyze scales store.zarr --bits 4 -o scales_w4.csv", ""),
    ("analyze temporal store.zarr --site attn.o_proj --limit 6", "temporal.txt"),
    ("analyze schedule store.zarr --site mlp.fc1 --limit 6", "schedule.txt"),
    ("export quant-config store.zarr -o quant_config.json --outliers", ""),
    ("export quant-config-multitier store.zarr -o quant_config_multitier.json", ""),
    ("plot summary store.zarr -o plots", "summary.txt"),
    *((f"plot {kind} store.zarr -o plots --layer mm_00_img,mm_00_txt", "") for kind in _FIVE),
    ("verify store.zarr", ""),
)
TOURS = {"live": Tour(_prepare_live, _LIVE), "ingest": Tour(_prepare_ingest, _INGEST)}


def main(name: str, folder: Path) -> None:
    """Make the inputs, run every command, say where everything is."""
    _clear(folder)
    TOURS[name].prepare(folder)
    for line, kept in TOURS[name].commands:
        _run(folder, line, kept)
    print(f"\nThe store, configs, tables and pictures are in {folder.resolve()}")


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise TaqError(problem("is not a demo of ours; not touched", where=str(folder)))
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()


def _run(folder: Path, line: str, kept: str) -> None:
    if line.startswith("#"):
        print(f"\n{line}", flush=True)
        return
    words = shlex.split(line)
    python = words[0] == "python"
    print(f"\n$ {line if python else f'taqstore {line}'}", flush=True)
    command = [sys.executable, *(words[1:] if python else ["-m", "taqstore", *words])]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    print(done.stdout, end="", flush=True)
    if kept:
        (folder / kept).write_text(done.stdout, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
