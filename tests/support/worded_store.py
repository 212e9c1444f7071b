"""A small store that has a word of every vocabulary, and what commands need to come to a word."""

from __future__ import annotations

import shutil
from pathlib import Path

from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.collect.second_moments import SecondMoments
from taqstore.pipelines.gptq.gptq import gptq
from taqstore.pipelines.gptq.settings import GptqSettings

from support.live_models import TINY
from support.rounding_store import make_rounding_store
from support.sensitivity_store import write_sensitivities
from taqstore.run.mode import Mode
from taqstore.store.reader import open_store


def make_worded_store(folder: Path) -> Path:
    """`run.zarr` in a folder, with `w.safetensors` and `prompts.txt` beside it."""
    store = make_rounding_store(folder, TINY)
    collect(
        store,
        stride=1,
        sites=("mlp.fc2",),
        second_moments=SecondMoments(None),
        mode=Mode(resume=True),
        local_ckpt=folder / "w.safetensors",
    )
    settings = GptqSettings(fallback="nearest", group_size=None)
    gptq(open_store(store), settings=settings, local_ckpt=folder / "w.safetensors")
    for unit, formats in (("linear", ("rtn-w2", "rtn-w4")), ("step", ("a4-static", "a8-static"))):
        write_sensitivities(store, unit=unit, formats=formats)
    shutil.copytree(store, folder / "other.zarr")
    return store
