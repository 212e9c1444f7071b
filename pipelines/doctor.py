"""What is wrong with a machine, or missing from it: `taqstore doctor`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taqstore.errors import TaqError, printable
from taqstore.place.sizes import format_bytes

from .machine.blas import CHOICE, used_blas
from .machine.check import Check
from .machine.packages import installed, package_checks
from .machine.place import memory_check, place_checks
from .models.backend import INSTALL, backend
from .models.load import load_pipeline
from .models.table import MODELS, ModelRow

MODEL = "reference"
_FORWARDS = 7
_HUB_SECONDS = 5.0
_CHILD = "from taqstore.pipelines.doctor import forward_seconds; print(forward_seconds())"


def examine(place: str | os.PathLike[str] = ".") -> Iterator[Check]:
    """Look at everything that a user of taqstore may stumble on, one check after another.

    Parameters
    ----------
    place
        Folder in which stores are to lie; a few files are written there and removed.
    """
    yield from package_checks()
    yield from place_checks(Path(place).resolve())
    yield memory_check()
    yield from model_checks()


def model_checks() -> Iterator[Check]:
    """DiffusionKit, MLX's device, a forward of the reference model, and models within reach."""
    try:
        libraries = backend()
    except TaqError as error:
        yield Check("running models", printable(str(error)), "absent", INSTALL)
        return
    yield Check("diffusionkit", installed("diffusionkit") or "found, of no known version")
    device = str(libraries.mx.default_device())
    yield Check("MLX", f"{installed('mlx')}, {device}")
    yield from _speed()
    for row in MODELS.values():
        yield _reachable(row, libraries.model_io)


def forward_seconds() -> float:
    """Least seconds of a forward of the reference model, 2 rows of 8x8 latents and 77 tokens."""
    mx, model = backend().mx, load_pipeline(MODEL)
    conditioning = model.encode_text("the handwritten digit three", cfg_weight=model.row.cfg_weight)
    sigmas, timesteps = model.levels(2)
    x = model.noise(sigmas, seed=1, latent_size=model.row.latent_size)
    prompt, seconds = model.prepare(conditioning, timesteps), []
    for _ in range(_FORWARDS + 1):
        begun = time.perf_counter()
        mx.eval(model.denoise(x, timesteps[0], sigmas[0], prompt))
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def _speed() -> Iterator[Check]:
    """A forward with the BLAS that is used and, where it is another, with the one that MLX has."""
    own, blas = forward_seconds(), used_blas()
    told = f"a forward of {MODEL} takes {own * 1000:.0f} ms"
    yield Check("BLAS", blas.name, "slow" if blas.remedy else "ok", blas.remedy)
    if blas.remedy or sys.platform != "linux":
        yield Check("speed", told)
        return
    words = [sys.executable, "-c", _CHILD]
    done = subprocess.run(
        words, env=os.environ | {CHOICE: "mlx"}, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        told += f"; {float(done.stdout) * 1000:.0f} ms with the BLAS that MLX brings"
    yield Check("speed", told)


def _reachable(row: ModelRow, model_io: Any) -> Check:
    what = f"model {row.name}"
    if row.checkpoint:
        return Check(what, "comes with taqstore")
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    name = model_io._MMDIT.get(row.hub, {}).get(row.hub)
    if name is None:
        return Check(what, "weights are those of --local-ckpt FILE")
    cached = try_to_load_from_cache(row.hub, name)
    if isinstance(cached, str):
        return Check(what, f"weights in the cache of the hub: {cached}")
    remedy = "set HF_HOME to where it was fetched to, or --local-ckpt FILE"
    try:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        told = get_hf_file_metadata(hf_hub_url(row.hub, name), timeout=_HUB_SECONDS)
    except Exception as error:  # whatever a network, a proxy or a hub may answer
        said = printable(str(error).strip() or type(error).__name__, longest=80)
        return Check(
            what, f"not in the cache, and {row.hub} is not reached: {said}", "absent", remedy
        )
    size = format_bytes(told.size or 0)
    return Check(what, f"{row.hub} is reached; {size} are fetched at first use")
