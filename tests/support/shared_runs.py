"""Every command that fills a store, on one small store: for tests that share its units out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taqstore.pipelines.adaround.activation_inputs import ActivationPlan
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import SecondMoments, collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.gptq.gptq import gptq
from taqstore.pipelines.gptq.settings import GptqSettings
from taqstore.pipelines.ingest import ingest
from taqstore.pipelines.models.rounding import Settings
from taqstore.pipelines.sensitivity.sensitivity import sensitivity

from support.live_models import TINY, write_checkpoint
from support.same_stores import assert_same_bits, assert_same_stores, raw_arrays
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.testing import RunShape, make_run_folder
from taqstore.upkeep.verify import verify_store

IMAGES, STEPS = 5, 2
SETTINGS = Settings(bits=3, iterations=3, batch_size=2, activation_bits=0)
_SHAPE = RunShape(images=3, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)


@dataclass(frozen=True)
class Filling:
    """A command and its options; `needs` are those whose groups it reads."""

    run: Callable[..., Outcome]
    options: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    # What runs of the same work differ in.
    beside: tuple[str, ...] = ()


FILLING = {
    "generate": Filling(generate, {}),
    "cache": Filling(cache, {"stride": 1}, ("generate",)),
    "collect": Filling(collect, {"stride": 1, "sites": ("mlp.fc2", "attn.qkv")}, ("generate",)),
    "collect moments": Filling(
        collect,
        {
            "stride": 1,
            "sites": ("mlp.fc2",),
            "second_moments": SecondMoments(16, step_groups=2, images=2),
        },
        ("generate",),
    ),
    "gptq": Filling(
        gptq,
        {"settings": GptqSettings(bits=3, group_size=16), "sites": ("mlp.fc2",)},
        ("generate", "collect moments"),
    ),
    "adaround": Filling(
        adaround,
        {"settings": SETTINGS, "plan": ActivationPlan(shifted=())},
        ("generate", "cache"),
        beside=("seconds",),
    ),
    "sensitivity": Filling(
        sensitivity, {"unit": "block", "formats": ["rtn-w3"], "seeds": 2}, ("generate",)
    ),
    "ingest": Filling(ingest, {"workers": 2}),
}
"""By name; in an order in which each finds what it needs."""


class Workshop:
    """A folder with a model and sources, in which stores are filled."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outcomes = folder, dict[str, Outcome]()
        self.checkpoint = write_checkpoint(folder / "w.safetensors")
        self.prompts = folder / "prompts.txt"
        self.prompts.write_text("a cat\nein Hund\nseven\n", encoding="utf-8")
        self.sources = make_run_folder(folder / "sources", shape=_SHAPE)

    def fill(self, name: str, store: Path | str, mode: Mode | None = None) -> Outcome:
        """Run one of the commands."""
        row, given = FILLING[name], dict[str, Any](FILLING[name].options)
        if name == "ingest":
            return row.run([self.sources], store, mode=mode, **given)
        if name == "generate":
            request = Request(
                TINY.name, self.prompts, IMAGES, steps=STEPS, local_ckpt=self.checkpoint
            )
            return row.run(store, request, save_images=self.folder / "png", mode=mode)
        return row.run(store, local_ckpt=self.checkpoint, mode=mode, **given)

    def ready(self, name: str) -> Path:
        """A store with all that a command needs."""
        store = self.folder / f"{name}.zarr"
        if store.exists():
            return store
        for needed in FILLING[name].needs:
            self.fill(needed, store)
        return store

    def whole(self, name: str) -> Path:
        """A store that a single process has filled, whose outcome is kept."""
        whole = self.folder / f"{name} whole.zarr"
        if not whole.exists():
            copy_of(self.ready(name), whole)
            self.outcomes[name] = self.fill(name, whole)
        return whole


def copy_of(ready: Path, to: Path) -> Path:
    return Path(shutil.copytree(ready, to)) if ready.exists() else to


def assert_same(ours: Path, theirs: Path, name: str) -> None:
    """Equal arrays, records and documents, as far as two runs of the same work are."""
    assert not verify_store(ours).damage
    if not FILLING[name].beside:
        assert_same_stores(ours, theirs, attributes=name != "generate")  # they have ids
        return
    found, expected = raw_arrays(ours), raw_arrays(theirs)
    assert sorted(found) == sorted(expected)
    for array, values in expected.items():
        if array.rpartition("/")[2] not in FILLING[name].beside:
            assert_same_bits(found[array], values, array)
