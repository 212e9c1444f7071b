"""`calibration_data/`: latents of every image at every step, with `manifest.json`.

Step 0 to N-1 hold x before the model call, step N the result. A prompt belongs to an `image_id`,
never to a position in the manifest's list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.npy import read_npy
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.layout.template import Array, Template
from taqstore.names import LATENTS

from .parts.block_cache import holds_blocks
from .parts.json_fields import majority, sample_files, sample_name, strings, without
from .parts.manifest import MANIFEST, Entry, Manifest, read_manifest
from .parts.pictures import FOLDER as IMAGES
from .parts.pictures import pictures
from .parts.place import Place
from .parts.plan import Options, Plan, Problem, Put, Unit

FOLDER = "samples"
KEYS = ("x", "timestep", "sigma", "step_index", "image_id", "is_final")
# Images asked for the run's sigmas and shape, so that one bad image cannot impose its own.
VOTERS = 3
# The VAE's affine map of SD3 latents: what the generator applied before saving `latents/`.
VAE_SCALE, VAE_SHIFT = 1.5305, 0.0609
DIMS = ("image", "step", "height", "width", "latent_channel")


@dataclass(frozen=True)
class Schedule:
    """What every image of a run shares: shape of x, timesteps (their bytes and dtype), sigmas."""

    shape: tuple[int, ...]
    dtype: str
    timesteps: bytes
    sigmas: bytes

    @property
    def timestep(self) -> np.ndarray:
        """(step,) timesteps as found."""
        return np.frombuffer(self.timesteps, self.dtype)

    @property
    def sigma(self) -> np.ndarray:
        """(step,) float32 sigmas."""
        return np.frombuffer(self.sigmas, np.float32)


@dataclass(frozen=True)
class ImagePart:
    """Part that copies one image: one shard, streamed step by step."""

    folder: Path
    image: int
    position: int
    schedule: Schedule
    unread: set[str]

    def __call__(self, put: Put) -> list[Problem]:
        """Write the image; SourceError if any of its files is bad."""
        put(LATENTS, "x", (self.position, 0, 0, 0, 0), self._steps())
        return []

    def _steps(self) -> Iterator[np.ndarray]:
        schedule = self.schedule
        steps = len(schedule.sigma)
        for step in range(steps):
            with NpzFile(self.folder / sample_name(self.image, step)) as file:
                check_identity(file, self.image, step, final=step == steps - 1)
                self.unread.update(set(file.names) - set(KEYS))
                timestep = file.read("timestep", dtype=schedule.timestep.dtype, shape=())
                if (float(timestep), _sigma(file)) != (
                    float(schedule.timestep[step]),
                    schedule.sigma[step],
                ):
                    _refuse(file, "timestep", "timestep or sigma is not the run's", float(timestep))
                x = file.read("x", dtype=np.dtype(np.float32), shape=schedule.shape)
            if not np.isfinite(x).all():
                _refuse(file, "x", "NaN or Inf")
            yield x[None]


def find(place: Place) -> Path | None:
    """The folder with samples of latents, given itself or by its manifest."""
    if place.is_folder:
        here = (place.path / FOLDER).is_dir() and not holds_blocks(place.path)
        return place.path if here else None
    listed = place.path.name == MANIFEST and "images" in place.document
    return place.path.parent if listed else None


def plan(folder: Path, options: Options) -> Plan:
    """Plan of a folder with `manifest.json` and `samples/`.

    Raises
    ------
    SourceError
        No manifest, no samples, or no image from which the run's steps can be read.
    """
    samples = folder / FOLDER
    sizes, strays = sample_files(samples)
    manifest = read_manifest(folder)
    images = sorted({image for image, _ in sizes} | set(manifest.ids))
    steps: dict[int, set[int]] = {image: set() for image in images}
    for image, step in sizes:
        steps[image].add(step)
    refused = {i: text for i in images if (text := _incomplete(manifest, samples, i, steps[i]))}
    whole = [image for image in images if image not in refused]
    schedule = _schedule(samples, whole, manifest.steps, refused)
    template = _template(manifest, images, schedule)
    unread: set[str] = set()
    units = tuple(
        Unit(
            label=f"image {image}",
            items={LATENTS: ((position,),)},
            nbytes=sum(sizes[image, step] for step in range(manifest.steps + 1)),
            parts=(ImagePart(samples, image, position, schedule, unread),),
        )
        for position, image in enumerate(images)
        if image not in refused
    )
    positions = {image: position for position, image in enumerate(images)}
    bad = tuple(Problem(t, LATENTS, (positions[i],)) for i, t in sorted(refused.items()))
    seen = pictures(folder, images)
    return Plan(
        source=LATENTS,
        templates=(template, *seen.templates),
        units=(*units, *seen.units),
        problems=(*bad, *seen.problems),
        inputs=(folder / MANIFEST, samples, *((folder / IMAGES,) if seen.units else ())),
        notes=(*_notes(folder, whole, manifest, strays), *_stray_pictures(seen.strays)),
        parameters={"num_steps": manifest.steps, "images": len(images)},
        unread=unread,
    )


def check_identity(file: NpzFile, image: int, step: int, *, final: bool) -> None:
    """SourceError unless the file holds the six keys and says it is this image and step.

    Other keys are not read; who asks may name them.
    """
    missing = [key for key in KEYS if key not in file]
    if missing:
        _refuse(file, missing[0], "missing")
    for key, expected in (("image_id", image), ("step_index", step)):
        value = int(file.read(key, dtype=np.dtype(np.int32), shape=()))
        if value != expected:
            _refuse(file, key, "not what the file's name says", value)
    if bool(file.read("is_final", dtype=np.dtype(bool), shape=())) != final:
        _refuse(file, "is_final", "contradicts the step")


def _refuse(file: NpzFile, key: str, what: str, found: object = "") -> NoReturn:
    remedy = "generate this image again; the others are ingested"
    raise SourceError(problem(what, where=file.where(key), found=str(found), remedy=remedy))


def _sigma(file: NpzFile) -> float:
    return float(file.read("sigma", dtype=np.dtype(np.float32), shape=()))


def _incomplete(manifest: Manifest, folder: Path, image: int, steps: set[int]) -> str:
    """Why an image cannot be ingested, judged by names alone; empty if it can."""
    if image in manifest.errors:
        return manifest.errors[image]
    where = f"{folder}: image {image}"
    if image not in manifest.entries:
        remedy = f"add an entry with its image_id, prompt, seed and cfg_weight to {MANIFEST}"
        return problem("samples without a manifest entry", where=where, remedy=remedy)
    if not steps:
        return problem("a manifest entry without samples", where=where, remedy="generate it again")
    odd = sorted(steps.symmetric_difference(range(manifest.steps + 1)))
    if odd:
        what = f"step {odd[0]} is {'missing' if odd[0] not in steps else 'beyond the last'}"
        found = f"{len(steps)} of {manifest.steps + 1} files"
        return problem(what, where=where, found=found, remedy="generate this image again")
    return ""


def _schedule(folder: Path, images: list[int], steps: int, refused: dict[int, str]) -> Schedule:
    """What most of the first readable images agree on; unreadable ones move to `refused`."""
    votes: list[Schedule] = []
    for image in list(images):
        try:
            votes.append(_read_schedule(folder, image, steps))
        except SourceError as error:
            refused[image] = str(error)
            images.remove(image)
        if len(votes) == VOTERS:
            break
    if not votes:
        first = next(iter(refused.values()), problem("no samples", where=str(folder)))
        raise SourceError(first)
    return majority(votes)


def _read_schedule(folder: Path, image: int, steps: int) -> Schedule:
    timesteps, sigmas = [], []
    for step in range(steps + 1):
        with NpzFile(folder / sample_name(image, step)) as file:
            timestep = file.read("timestep")
            timesteps.append(timestep.reshape(()) if timestep.shape == (1,) else timestep)
            sigmas.append(_sigma(file))
            if timesteps[-1].dtype.kind != "f" or not np.isfinite(timesteps[-1]).all():
                _refuse(file, "timestep", "is not a finite float", timesteps[-1])
            if not np.isfinite(sigmas[-1]):
                _refuse(file, "sigma", "NaN or Inf")
            header = file.header("x")
    if len(header.shape) != 4 or header.shape[0] != 1 or 0 in header.shape:
        _refuse(file, "x", "is not (1, height, width, channel)", header.shape)
    timestep = np.array(timesteps)
    kinds = {t.dtype for t in timesteps}
    if timestep.ndim != 1 or len(kinds) != 1:
        _refuse(file, "timestep", "is not one float per step, of one dtype")
    sigma = np.array(sigmas, np.float32)
    return Schedule(header.shape, timestep.dtype.str, timestep.tobytes(), sigma.tobytes())


def _template(manifest: Manifest, images: list[int], schedule: Schedule) -> Template:
    nothing = Entry("", 0, float("nan"))
    entries = [manifest.entries.get(image, nothing) for image in images]
    steps = len(schedule.sigma)
    final = np.arange(steps) == steps - 1
    _, height, width, channel = schedule.shape
    return Template(
        path=LATENTS,
        kind=LATENTS,
        sizes=dict(zip(DIMS, (len(images), steps, height, width, channel), strict=True)),
        arrays=(Array("x", DIMS, "<f4", split="step"),),
        coords={
            "image": (("image",), np.array(images, np.int64)),
            "prompt": (("image",), strings(e.prompt for e in entries)),
            "seed": (("image",), np.array([e.seed for e in entries], np.int64)),
            "cfg_weight": (("image",), np.array([e.cfg_weight for e in entries], np.float64)),
            "step": (("step",), np.arange(steps, dtype=np.int64)),
            "sigma": (("step",), schedule.sigma),
            "timestep": (("step",), schedule.timestep),
            "is_final": (("step",), final),
        },
        item_dims=("image",),
        shard={"image": 1},
        attrs={"source_manifest": without(manifest.document, "images", paths=("prompt_path",))},
    )


def _notes(folder: Path, images: list[int], manifest: Manifest, strays: int) -> Iterator[str]:
    if strays:
        yield f"{FOLDER}/ holds {strays} other file(s), which are not read"
    if manifest.extra:
        yield f"{MANIFEST}: fields not stored: {', '.join(manifest.extra)}"
    checked = differing = 0
    for image in images:
        path = folder / "latents" / f"{image:04d}.npy"
        if path.exists():
            checked += 1
            differing += not _final_agrees(path, folder / FOLDER, image, manifest.steps)
    if checked:
        rule = f"float16(x/{VAE_SCALE} + {VAE_SHIFT}) of the last step"
        yield f"latents/*.npy are not stored: {checked - differing} of {checked} equal {rule}"


def _stray_pictures(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return ()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (f"pictures of images that are not in {MANIFEST}: {', '.join(names[:3])}{more}",)


def _final_agrees(path: Path, samples: Path, image: int, steps: int) -> bool:
    """Whether the saved final latent is what the last step gives; False if one is unreadable."""
    try:
        saved = read_npy(path)
        x = NpzFile(samples / sample_name(image, steps)).read("x")
    except SourceError:
        return False
    if x.dtype != np.float32 or saved.dtype != np.float16:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (x / np.float32(VAE_SCALE) + np.float32(VAE_SHIFT)).astype(np.float16)
    return np.array_equal(saved, expected)
