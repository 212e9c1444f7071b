"""`adaround_cache/` as groups `blocks/<stream>`: each boundary of the residual stream once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.layout.template import Array, Template
from taqstore.names import BLOCKS

from .parts.block_cache import (
    FOLDER,
    FORMAT,
    METADATA,
    Cache,
    Key,
    Layout,
    Stream,
    holds_blocks,
    read_sigma,
    scan,
)
from .parts.json_fields import floats, majority, sample_name, strings, without
from .parts.place import Place
from .parts.plan import Options, Plan, Problem, Put, Unit

POOLED_FOLDER, POOLED_KEY = "pooled", "pooled"
DIMS = ("image", "step", "boundary", "row", "token", "channel")


@dataclass(frozen=True)
class StreamPart:
    """Part that copies one stream of one sample, boundary by boundary.

    Each output is compared with the next input. In a template without `output` a difference is an
    error (only a CRC-32 collision can cause it); otherwise the output is kept.
    """

    path: Path
    template: Template
    stream: Stream
    clock: tuple[str, ...]
    timestep: np.ndarray
    sigma: float
    layout: Layout
    start: Key

    def __call__(self, put: Put) -> list[Problem]:
        """Write the sample's shards; SourceError if anything in it is bad."""
        with NpzFile(self.path) as file:
            self._check_clock(file)
            kept = [i for i, (a, b) in enumerate(self.stream.pairs) if not file.same(a, file, b)]
            boundaries = self.stream.boundaries
            names = {array.name for array in self.template.arrays}
            if "output" not in names:
                if kept:
                    self._refuse_output(file, kept[0])
                chunks = (self._read(file, key) for key in boundaries)
                put(self.template.path, "x", (*self.start, 0, 0, 0, 0), chunks)
                return []
            for index, key in enumerate(boundaries):
                put(self.template.path, "x", self._at(index), self._read(file, key))
                flag = np.full((1, 1, 1), index in kept)
                put(self.template.path, "output_kept", self._at(index)[:3], flag)
            for index in kept:
                output = self._read(file, self.stream.outputs[index])
                put(self.template.path, "output", self._at(index), output)
        return []

    def _refuse_output(self, file: NpzFile, index: int) -> NoReturn:
        """The plan found this output equal to the next input, or one of the two bad."""
        output, after = self.stream.pairs[index]
        for key in (output, after):
            self._read(file, key)
        what = f"is not {after}, though its CRC-32 is the same"
        raise SourceError(problem(what, where=file.where(output)))

    def _at(self, boundary: int) -> tuple[int, ...]:
        return (*self.start, boundary, 0, 0, 0)

    def _read(self, file: NpzFile, key: str) -> np.ndarray:
        """One boundary as (1, 1, 1, row, token, channel) of the stored dtype."""
        values = file.read(key, dtype=self.layout.dtypes[key], shape=self.layout.shapes[key])
        if not np.isfinite(values).all():
            remedy = "cache this sample again; the others are ingested"
            raise SourceError(problem("NaN or Inf", where=file.where(key), remedy=remedy))
        stored = values.astype(self.template.array("x").dtype, copy=False)
        return stored.reshape(1, 1, 1, *stream_shape(self.layout.shapes[key]))

    def _check_clock(self, file: NpzFile) -> None:
        for key in self.clock:
            values = file.read(key, dtype=self.layout.dtypes[key], shape=self.layout.shapes[key])
            if not (values == self.timestep).all():
                what = f"timestep is not the step's {self.timestep}"
                raise SourceError(problem(what, where=file.where(key), found=str(values)))
        sigma = read_sigma(file)
        if np.isfinite(sigma) and np.isfinite(self.sigma) and sigma != self.sigma:
            what = f"sigma is not the step's {self.sigma}"
            raise SourceError(problem(what, where=file.where("__sigma__"), found=str(sigma)))


@dataclass(frozen=True)
class PooledPart:
    """Part that copies the pooled conditioning of one image."""

    path: Path
    template: Template
    dtype: np.dtype
    position: int

    def __call__(self, put: Put) -> list[Problem]:
        """Write the image's row; SourceError if its file is bad."""
        sizes = self.template.sizes
        file = NpzFile(self.path)
        shape = (sizes["row"], sizes["pooled_channel"])
        values = file.read(POOLED_KEY, dtype=self.dtype, shape=shape)
        if not np.isfinite(values).all():
            raise SourceError(problem("NaN or Inf", where=file.where(POOLED_KEY)))
        put(self.template.path, "pooled_conditioning", (self.position, 0, 0), values[None])
        return []


def stream_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(row, token, channel) of an array that may carry a singleton axis before its channels."""
    return (*shape[:2], shape[3]) if len(shape) == 4 and shape[2] == 1 else shape


def find(place: Place) -> Path | None:
    """The folder of a cache, given itself or by its metadata."""
    if place.is_folder:
        return place.path if holds_blocks(place.path) else None
    return place.path.parent if place.format == FORMAT else None


def plan(folder: Path, options: Options) -> Plan:
    """Plan of a folder with `metadata.json` and `samples/`.

    Raises
    ------
    SourceError
        Another format, malformed metadata, no readable sample, or streams of changing shape.
    """
    cache = scan(folder)
    templates = {stream.name: _template(cache, stream, options) for stream in cache.streams}
    units = [_unit(cache, templates, key) for key in cache.good]
    problems = [
        Problem(text, template.path, _position(cache, key))
        for key, text in sorted(cache.errors.items())
        for template in templates.values()
    ]
    for name in cache.unlisted:
        what = "not listed in metadata.json, so it is not ingested"
        problems.append(Problem(problem(what, where=str(folder / FOLDER / name))))
    pooled, more_units, more_problems = _pooled(cache)
    return Plan(
        source=BLOCKS,
        templates=(*templates.values(), *pooled),
        units=(*units, *more_units),
        problems=(*problems, *more_problems),
        inputs=(folder / METADATA, folder / FOLDER),
        notes=_notes(cache),
        parameters={"blocks": len(cache.blocks), "samples": len(cache.good)},
    )


def _position(cache: Cache, key: Key) -> Key:
    return cache.images.index(key[0]), cache.steps.index(key[1])


def _unit(cache: Cache, templates: Mapping[str, Template], key: Key) -> Unit:
    position = _position(cache, key)
    parts = tuple(
        StreamPart(
            path=cache.folder / FOLDER / sample_name(*key),
            template=templates[stream.name],
            stream=stream,
            clock=cache.clocks,
            timestep=cache.timesteps[key[1]],
            sigma=cache.sigmas[key[1]],
            layout=cache.layout,
            start=position,
        )
        for stream in cache.streams
    )
    items = {template.path: (position,) for template in templates.values()}
    return Unit(f"image {key[0]} step {key[1]}", items, cache.good[key], parts)


def _template(cache: Cache, stream: Stream, options: Options) -> Template:
    dtypes, shapes = cache.layout.dtypes, cache.layout.shapes
    keys = stream.boundaries
    if len({shapes[key] for key in (*keys, *stream.outputs)}) != 1:
        found = ", ".join(f"{key} {shapes[key]}" for key in keys)
        raise SourceError(problem(f"blocks of stream {stream.name} differ in shape", found=found))
    shape = stream_shape(shapes[keys[0]])
    if len(shape) != 3 or any(dtypes[key].kind != "f" for key in (*keys, *stream.outputs)):
        what = f"stream {stream.name} is not (row, token, channel) of floats"
        raise SourceError(problem(what, found=str(shapes[keys[0]])))
    dtype = np.result_type(*(dtypes[key] for key in (*keys, *stream.outputs)))
    stored = dtype.newbyteorder("<").str
    sizes = (len(cache.images), len(cache.steps), len(keys), *shape)
    arrays = [Array("x", DIMS, stored, split="boundary")]
    kept = cache.kept[stream.name]
    apart = bool(kept) or (f"{BLOCKS}/{stream.name}", "output") in options.widen
    if apart:
        original = {str(i): dtypes[stream.outputs[i]].name for i in sorted(kept)}
        arrays += [
            Array("output", DIMS, stored, split="boundary", attrs={"original_dtype": original}),
            Array("output_kept", DIMS[:3], "|b1"),
        ]
    return Template(
        path=f"{BLOCKS}/{stream.name}",
        kind=BLOCKS,
        sizes=dict(zip(DIMS, sizes, strict=True)),
        arrays=tuple(arrays),
        coords={
            **_step_coords(cache),
            "image": (("image",), np.array(cache.images, np.int64)),
            "boundary": (("boundary",), np.arange(len(keys), dtype=np.int64)),
            "dtype": (("boundary",), strings(dtypes[key].name for key in keys)),
        },
        item_dims=("image", "step"),
        # A shard per boundary only where outputs are kept, so that equal ones take no room.
        shard={"boundary": 1} if apart else {},
        attrs={
            "source_metadata": _document(cache),
            "source_keys": list(keys),
            "singleton_axis": 2 if len(shapes[keys[0]]) == 4 else None,
        },
    )


def _step_coords(cache: Cache) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    dtype = cache.layout.dtypes[cache.clocks[0]]
    unknown = float("nan")
    timesteps = [cache.timesteps.get(step, unknown) for step in cache.steps]
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "step": (("step",), np.array(cache.steps, np.int64)),
        "timestep": (("step",), np.array(timesteps, dtype)),
    }
    sigmas = [cache.sigmas.get(step, unknown) for step in cache.steps]
    if np.isfinite(sigmas).any():
        coords["sigma"] = (("step",), floats(sigmas))
    return coords


def _document(cache: Cache) -> dict[str, Any]:
    """Metadata without its list of samples, if that is simply every image at every step."""
    grid = [
        {"img_idx": image, "step_idx": step, "file": sample_name(image, step)}
        for image in cache.images
        for step in cache.steps
    ]
    rebuilt = cache.document["samples"] == grid
    return without(cache.document, *(("samples",) if rebuilt else ()), paths=("calib_dir",))


def _notes(cache: Cache) -> tuple[str, ...]:
    notes = []
    for stream in cache.streams:
        kept = sorted(cache.kept[stream.name])
        if kept:
            blocks = ", ".join(stream.outputs[i] for i in kept)
            notes.append(f"{BLOCKS}/{stream.name}: outputs kept, not the next input: {blocks}")
    return tuple(notes)


def _pooled(cache: Cache) -> tuple[tuple[Template, ...], tuple[Unit, ...], tuple[Problem, ...]]:
    """`blocks/pooled`, where the cache has a folder of pooled conditionings."""
    folder = cache.folder / POOLED_FOLDER
    path = f"{BLOCKS}/pooled"
    if not folder.is_dir():
        return (), (), ()
    files, problems, votes = {}, [], []
    for position, image in enumerate(cache.images):
        try:
            files[position] = NpzFile(folder / f"{image:04d}.npz")
            header = files[position].header(POOLED_KEY)
            votes.append((header.dtype.str, header.shape))
        except SourceError as error:
            files.pop(position, None)
            problems.append(Problem(str(error), path, (position,)))
    if not votes:
        return (), (), tuple(Problem(p.text) for p in problems)
    dtype, shape = majority(votes)
    if len(shape) != 2 or np.dtype(dtype).kind != "f":
        what = f"{POOLED_KEY} is not (row, channel) of floats"
        return (), (), (Problem(problem(what, where=str(folder), found=str(shape))),)
    dims = ("image", "row", "pooled_channel")
    template = Template(
        path=path,
        kind=BLOCKS,
        sizes=dict(zip(dims, (len(cache.images), *shape), strict=True)),
        arrays=(Array("pooled_conditioning", dims, np.dtype(dtype).newbyteorder("<").str),),
        coords={"image": (("image",), np.array(cache.images, np.int64))},
        item_dims=("image",),
    )
    units = tuple(
        Unit(
            f"pooled conditioning of image {cache.images[position]}",
            {path: ((position,),)},
            file.nbytes,
            (PooledPart(file.path, template, np.dtype(dtype), position),),
        )
        for position, file in files.items()
    )
    return (template,), units, tuple(problems)
