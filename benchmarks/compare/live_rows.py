"""`collect` and `cache` of the reference model beside its bare forwards, in one process."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from .. import live


def measured(command: str, images: int, steps: int) -> dict[str, float]:
    """Seconds of bare forwards, of a command and of a raw write, the best of two in turn.

    Returns
    -------
    ``ratio``: of the command's time to that of forwards, with a raw write of what `cache` keeps.
    """
    from taqstore.pipelines.cache import cache
    from taqstore.pipelines.collect.collect import collect
    from taqstore.pipelines.generate import Request, generate

    run: Any = {"cache": cache, "collect": collect}[command]
    group = {"cache": "blocks", "collect": "activations"}[command]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store, prompts = folder / "run.zarr", folder / "prompts.txt"
        prompts.write_text("a handwritten seven")
        generate(store, Request("reference", prompts, images, steps=steps, dtype="float32"))
        live.replayed(store, None)
        bare, ours = [], []
        for number in range(2):
            copy = Path(shutil.copytree(store, folder / f"{number}.zarr"))
            bare.append(live.replayed(store, None))
            ours.append(live.timed(partial(run, copy, stride=1)))
        size = sum(live.sizes(copy / group)) if command == "cache" else 0
        raw = live.timed_write(folder / "raw.bin", size) if size else 0.0
    floor = min(bare) + raw
    return {"ratio": min(ours) / floor, "ours": min(ours), "bare": min(bare), "raw": raw}
