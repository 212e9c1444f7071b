"""SD3-Medium-sized inputs, made once and kept in the work folder; stores are made in every run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taqstore.testing import (
    RunShape,
    make_activations,
    make_block_cache,
    make_sd3_latents,
    make_sd3_statistics,
)

STEPS = 50
LATENTS_PER_IMAGE = 51
IMAGES = 10
BLOCK_SAMPLES = 32
# Four blocks are enough for minibatches. Ingest and sizes take all 24: memory depends on how large
# a sample is, and what deduplication saves on how many boundaries two blocks share.
BLOCKS = 4
SD3_BLOCKS = 24
WHOLE_SAMPLES = 2
# Four steps; mm0.img, mm0.txt and mm1.img are the layers that have every site.
_SMALL = RunShape(images=2, steps=12, blocks=2, stats_stride=3)


@dataclass(frozen=True)
class Inputs:
    """Files of one scale.

    Parameters
    ----------
    work
        Folder that keeps them.
    scale
        Share of the steps, images and block samples of the full size.
    """

    work: Path
    scale: float

    @property
    def folder(self) -> Path:
        """Where the files of this scale lie."""
        return self.work / f"scale-{self.scale:g}"

    @property
    def steps(self) -> int:
        """Steps of the statistics."""
        return max(2, round(STEPS * self.scale))

    @property
    def latent_files(self) -> int:
        """Latent files: whole images of 51, or one shorter image at small scales."""
        wanted = IMAGES * LATENTS_PER_IMAGE * self.scale
        whole = round(wanted / LATENTS_PER_IMAGE) * LATENTS_PER_IMAGE
        return whole if wanted >= LATENTS_PER_IMAGE else max(3, round(wanted))

    @property
    def block_samples(self) -> int:
        """(image, step) pairs of the block cache, an even number."""
        return 2 * max(1, round(BLOCK_SAMPLES * self.scale / 2))

    def source(self, kind: str) -> Path:
        """The folder the old scripts would have left: by the name of its kind."""
        makers: dict[str, Callable[[Path], object]] = {
            "latents": lambda path: make_sd3_latents(path, files=self.latent_files),
            "statistics": lambda path: make_sd3_statistics(path, scale=self.scale),
            "blocks": lambda path: make_block_cache(
                path, samples=self.block_samples, blocks=BLOCKS
            ),
            "blocks-24": self._make_whole_samples,
            "small": lambda path: make_activations(path, shape=_SMALL),
        }
        return self.once(f"source/{kind}", makers[kind])

    def _make_whole_samples(self, path: Path) -> None:
        make_block_cache(path, samples=max(1, round(WHOLE_SAMPLES * self.scale)), blocks=SD3_BLOCKS)

    def source_files(self, kind: str) -> list[Path]:
        """The npz files of a source, in order."""
        part = "timestep_stats" if kind == "statistics" else "samples"
        return sorted((self.source(kind) / part).glob("*.npz"))

    def store(self, kind: str) -> Path:
        """The source as a store."""
        from taqstore.pipelines.ingest import ingest

        source = self.source(kind)
        return self.once(f"stores/{kind}.zarr", lambda path: ingest([source], path, strict=True))

    def forget_stores(self) -> None:
        """Remove the stores: they are made by the code under test, so a run makes its own."""
        shutil.rmtree(self.folder / "stores", ignore_errors=True)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A file or folder, made the first time; one left unfinished is made again."""
        path = self.folder / name
        if path.exists():
            return path
        say(f"making {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        remove(unfinished)
        make(unfinished)
        return unfinished.rename(path)


def remove(path: Path) -> None:
    """Delete a file or folder of the work folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def say(text: str) -> None:
    """Talk goes to stderr; stdout has the table."""
    print(text, file=sys.stderr, flush=True)
