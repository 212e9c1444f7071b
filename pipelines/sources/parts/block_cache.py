"""`adaround_cache/`: inputs and outputs of every block, one npz per image and step.

Planning reads directories only: names, and the CRC-32 by which block i's output is compared with
block i+1's input. The parts prove the equality when they copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as data_field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import SourceError, TaqError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.names import STREAMS, Block, is_block_key, model_blocks

from .json_fields import field, majority, read_document, sample_files, sample_name

FORMAT = "adaround_cache_v1"
METADATA = "metadata.json"
FOLDER = "samples"
SIGMA = "__sigma__"
VOTERS = 3
Key = tuple[int, int]


@dataclass(frozen=True)
class Stream:
    """One residual stream: the keys of its blocks' inputs and outputs, in order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def boundaries(self) -> tuple[str, ...]:
        """Key of every boundary: each block's input, then the last output where there is one."""
        return self.inputs + self.outputs[len(self.inputs) - 1 :]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(output of block i, input of block i+1)."""
        return tuple(zip(self.outputs, self.inputs[1:], strict=False))


@dataclass(frozen=True)
class Layout:
    """What every sample of a cache must look like: dtype and shape of every key."""

    members: tuple[tuple[str, str, tuple[int, ...]], ...]

    @cached_property
    def dtypes(self) -> dict[str, np.dtype]:
        """NumPy dtype by key."""
        return {name: np.dtype(dtype) for name, dtype, _ in self.members}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape by key."""
        return {name: shape for name, _, shape in self.members}


@dataclass(frozen=True)
class Cache:
    """A scanned cache.

    Parameters
    ----------
    streams, clocks
        Streams that are there; keys of the timestep every block was given.
    good, errors
        Size in bytes by (image, step); why the others cannot be read.
    kept
        By stream, the blocks whose output is not the next block's input in some sample.
    timesteps, sigmas
        By step: what most of the first samples of that step say.
    """

    folder: Path
    document: Mapping[str, Any]
    blocks: tuple[Block, ...]
    streams: tuple[Stream, ...]
    clocks: tuple[str, ...]
    layout: Layout
    images: tuple[int, ...]
    steps: tuple[int, ...]
    good: Mapping[Key, int]
    errors: Mapping[Key, str]
    unlisted: tuple[str, ...]
    kept: Mapping[str, frozenset[int]]
    timesteps: Mapping[int, np.ndarray]
    sigmas: Mapping[int, float]


def holds_blocks(folder: Path) -> bool:
    """Whether a folder is a cache: by its metadata, or where these are missing by a sample."""
    if (folder / METADATA).is_file():
        return True
    for path in sorted((folder / FOLDER).glob("*.npz"))[:1]:
        try:
            return any(map(is_block_key, NpzFile(path).names))
        except SourceError:
            pass  # damaged: planning it says so
    return False


def scan(folder: Path) -> Cache:
    """Scan the folder that holds `metadata.json` and `samples/`.

    Raises
    ------
    SourceError
        Another format, malformed metadata, or no readable sample.
    """
    path = folder / METADATA
    document = read_document(path)
    if document.get("format") != FORMAT:
        found = repr(document.get("format"))
        what = "unknown format"
        raise SourceError(problem(what, where=str(path), found=found, remedy=f"{FORMAT} is read"))
    blocks = _blocks(document, path)
    listed, errors = _listed(document, path)
    sizes, _ = sample_files(folder / FOLDER)
    missing = "missing, though metadata.json lists it"
    for key in sorted(listed - set(sizes) - set(errors)):
        errors[key] = problem(missing, where=str(folder / FOLDER / sample_name(*key)))
    wanted = {key: sizes[key] for key in sorted(listed) if key in sizes and key not in errors}
    layout = _layout(folder, wanted, errors)
    streams = _streams(blocks, layout)
    clocks = tuple(block.timestep_key for block in blocks)
    survey = _Survey(streams, layout, clocks[0])
    for key, size in wanted.items():
        try:
            survey.visit(NpzFile(folder / FOLDER / sample_name(*key)), key[1])
            survey.good[key] = size
        except SourceError as error:
            errors[key] = str(error)
    winners = {step: majority(votes) for step, votes in survey.votes.items()}
    return Cache(
        folder=folder,
        document=document,
        blocks=blocks,
        streams=streams,
        clocks=clocks,
        layout=layout,
        images=tuple(sorted({image for image, _ in listed})),
        steps=tuple(sorted({step for _, step in listed})),
        good=survey.good,
        errors=errors,
        unlisted=tuple(sample_name(*key) for key in sorted(set(sizes) - listed)),
        kept={s.name: frozenset(survey.differing.get(s.name, ())) for s in streams},
        timesteps={s: np.frombuffer(w[0], w[1]).reshape(()) for s, w in winners.items()},
        sigmas={s: w[2] for s, w in winners.items()},
    )


@dataclass
class _Survey:
    """What the samples' directories say, gathered one by one."""

    streams: tuple[Stream, ...]
    layout: Layout
    clock: str
    good: dict[Key, int] = data_field(default_factory=dict)
    differing: dict[str, set[int]] = data_field(default_factory=dict)
    votes: dict[int, list[tuple[bytes, str, float]]] = data_field(default_factory=dict)

    def visit(self, file: NpzFile, step: int) -> None:
        """Take in one sample; SourceError if its keys are not the layout's."""
        _check_names(file, self.layout)
        if len(self.votes.get(step, ())) < VOTERS:
            vote = _clock(file, self.clock)
            self.votes.setdefault(step, []).append(vote)
        for stream in self.streams:
            known = self.differing.setdefault(stream.name, set())
            for i in _differing(file, stream) - known:
                # A sample that is bad and will be refused must not decide how the others are kept.
                if all(self._sound(file, key) for key in stream.pairs[i]):
                    known.add(i)

    def _sound(self, file: NpzFile, key: str) -> bool:
        try:
            values = file.read(key, dtype=self.layout.dtypes[key], shape=self.layout.shapes[key])
        except SourceError:
            return False
        return bool(np.isfinite(values).all())


def _blocks(document: Mapping[str, Any], path: Path) -> tuple[Block, ...]:
    """Blocks, multimodal before unified, without holes."""
    names = field(document, "block_names", list, where=str(path))
    try:
        blocks = tuple(Block.parse(str(name)) for name in names)
    except TaqError:
        blocks = ()
    unified = sum(block.unified for block in blocks)
    if not blocks or blocks != model_blocks(len(blocks) - unified, unified):
        what = "block_names are not mm0, mm1, … then uni0, uni1, …"
        raise SourceError(problem(what, where=str(path), found=repr(names)[:80]))
    return blocks


def _listed(document: Mapping[str, Any], path: Path) -> tuple[set[Key], dict[Key, str]]:
    """Samples that the metadata names, and what is wrong with their entries."""
    listed: set[Key] = set()
    errors: dict[Key, str] = {}
    for index, entry in enumerate(field(document, "samples", list, where=str(path))):
        where = f"{path}: samples[{index}]"
        if not isinstance(entry, dict):
            raise SourceError(problem("not an object", where=where))
        image = field(entry, "img_idx", int, where=where)
        step = field(entry, "step_idx", int, where=where)
        if min(image, step) < 0 or max(image, step) >= 10**9:
            raise SourceError(problem("index is out of range", where=where))
        key = (image, step)
        if key in listed:
            errors[key] = problem(f"image {image} step {step} is listed twice", where=str(path))
        elif entry.get("file", sample_name(*key)) != sample_name(*key):
            what = f"file is not {sample_name(*key)}"
            errors[key] = problem(what, where=where, found=repr(entry["file"]))
        listed.add(key)
    if not listed:
        raise SourceError(problem("no samples are listed", where=str(path)))
    return listed, errors


def _layout(folder: Path, wanted: Mapping[Key, int], errors: dict[Key, str]) -> Layout:
    """The dtypes and shapes that most of the first readable samples have."""
    votes: list[Layout] = []
    for key in wanted:
        try:
            with NpzFile(folder / FOLDER / sample_name(*key)) as file:
                headers = {n: file.header(n) for n in sorted(file.names) if n != SIGMA}
            votes.append(Layout(tuple((n, h.dtype.str, h.shape) for n, h in headers.items())))
        except SourceError as error:
            errors[key] = str(error)
        if len(votes) == VOTERS:
            break
    if not votes:
        first = next(iter(errors.values()), problem("no samples", where=str(folder / FOLDER)))
        raise SourceError(first)
    return majority(votes)


def _streams(blocks: tuple[Block, ...], layout: Layout) -> tuple[Stream, ...]:
    """Streams of the model, checked: no hole between the first block's input and the last's."""
    names = set(layout.shapes)
    streams = []
    for stream in STREAMS:
        own = [block for block in blocks if stream in block.streams]
        inputs = tuple(block.input_key(stream) for block in own)
        outputs = tuple(block.output_key(stream) for block in own)
        if outputs and outputs[-1] not in names:
            outputs = outputs[:-1]
        if inputs:
            streams.append(Stream(stream, inputs, outputs))
    clocks = {block.timestep_key for block in blocks}
    needed = {n for s in streams for n in (*s.inputs, *s.outputs)} | clocks
    odd = sorted(needed.symmetric_difference(names))
    if odd:
        what = f"{odd[0]!r} is {'missing' if odd[0] in needed else 'an unexpected key'}"
        raise SourceError(problem(what, where=FOLDER, remedy="all samples look like that"))
    return tuple(streams)


def _check_names(file: NpzFile, layout: Layout) -> None:
    odd = sorted((set(layout.shapes) ^ set(file.names)) - {SIGMA})
    if odd:
        what = "missing" if odd[0] in layout.shapes else "not a key of the other samples"
        raise SourceError(problem(what, where=file.where(odd[0]), remedy="cache it again"))


def _clock(file: NpzFile, key: str) -> tuple[bytes, str, float]:
    """Timestep (bytes and dtype) and sigma of a sample; sigma is NaN where the cache has none."""
    timestep = file.read(key)
    if timestep.ndim != 1 or not timestep.size or timestep.dtype.kind != "f":
        raise SourceError(problem("not a vector of timesteps", where=file.where(key)))
    return timestep[:1].tobytes(), timestep.dtype.str, read_sigma(file)


def read_sigma(file: NpzFile) -> float:
    """Sigma of a sample, NaN where the cache does not record it."""
    if SIGMA not in file:
        return float("nan")
    values = file.read(SIGMA)
    if values.size != 1 or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise SourceError(problem("not one finite sigma", where=file.where(SIGMA)))
    return float(values.reshape(-1)[0])


def _differing(file: NpzFile, stream: Stream) -> set[int]:
    """Blocks whose output is certainly not the next block's input."""
    return {i for i, (out, after) in enumerate(stream.pairs) if file.crc(out) != file.crc(after)}
