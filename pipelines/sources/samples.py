"""`DiT_cali_data.npz` (Phase 1): shuffled latents with their timestep and prompt table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.npy import Header, exactly
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.layout.template import Array, Template, nbytes, rows_per_shard
from taqstore.names import SAMPLES

from .parts.json_fields import checked_text, strings
from .parts.place import Place
from .parts.plan import Options, Plan, Problem, Put, Unit
from .parts.prompt_files import Prompts, read_prompts
from .parts.prompts import pickled_strings

# Key: kinds of dtype that are taken, number of dims.
KEYS = {
    "xs": ("f", 4), "ts": ("f", 1), "prompt_indices": ("iuf", 1), "cs": ("f", 4),
    "cs_pooled": ("f", 3), "prompts": ("OU", 1), "cfg_scale": ("f", 0),
}  # fmt: skip
STORED = {"x": "xs", "conditioning": "cs", "pooled_conditioning": "cs_pooled"}
_SHUFFLED = "rows are shuffled and keep no trajectory, so each is its own sample"
# A file may leave both out: its prompts can be encoded again.
CONDITIONING = ("cs", "cs_pooled")
DIMS = {
    "x": ("sample", "height", "width", "latent_channel"),
    "conditioning": ("prompt_id", "row", "token", "conditioning_channel"),
    "pooled_conditioning": ("prompt_id", "row", "pooled_channel"),
}


@dataclass(frozen=True)
class StreamRows:
    """Part that copies one array, a shard of rows at a time.

    A bad row of `x` is one bad item; a bad row of a prompt table spoils the whole file.
    """

    file: NpzFile
    name: str
    rows: int

    def __call__(self, put: Put) -> list[Problem]:
        """Write every shard; name samples with NaN or Inf."""
        found: list[Problem] = []
        key, start = STORED[self.name], 0
        for block in map(self._stored, self.file.rows(key, self.rows)):
            finite = np.isfinite(block).all(axis=tuple(range(1, block.ndim)))
            bad = [start + int(row) for row in np.flatnonzero(~finite)]
            found += [self._bad(key, row) for row in bad]
            put(SAMPLES, self.name, (start,) + (0,) * (block.ndim - 1), block)
            start += len(block)
        return found

    def _stored(self, block: np.ndarray) -> np.ndarray:
        """Rows in the dtype that is stored: latents are float32."""
        if self.name != "x":
            return block
        return _exact(self.file, STORED["x"], block, np.dtype(np.float32))

    def _bad(self, key: str, row: int) -> Problem:
        text = problem("NaN or Inf", where=f"{self.file.where(key)}[{row}]")
        if self.name != "x":
            raise SourceError(text)
        return Problem(text, SAMPLES, (row,))


def _exact(file: NpzFile, key: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    found = exactly(values, dtype)
    if found is None:
        what, remedy = f"holds numbers that {dtype.name} does not", f"save it as {dtype.name}"
        where, found_here = file.where(key), values.dtype.name
        raise SourceError(problem(what, where=where, found=found_here, remedy=remedy))
    return found


def find(place: Place) -> Path | None:
    """The file, by the array of latents in it."""
    return place.path if "xs" in place.keys else None


def plan(path: Path, options: Options) -> Plan:
    """Plan of one Phase 1 file: the group `samples`.

    Raises
    ------
    SourceError
        Missing keys, arrays that do not fit each other, or prompts that cannot be read safely.
    """
    file = NpzFile(path)
    headers = _headers(file)
    count, table = headers["xs"].shape[0], headers["prompts"].shape[0]
    stored = {name: key for name, key in STORED.items() if key in headers}
    timesteps = file.read("ts")
    indices = file.read("prompt_indices")
    if indices.dtype.kind == "f":
        indices = _exact(file, "prompt_indices", indices, np.dtype(np.int64))
    for key in ("ts", "cfg_scale"):
        if not np.isfinite(file.read(key)).all():
            raise SourceError(problem("NaN or Inf", where=file.where(key)))
    if ((indices < 0) | (indices >= table)).any():
        what = f"an index outside the {table} prompts"
        raise SourceError(problem(what, where=file.where("prompt_indices")))
    prompts = _prompts(file, headers["prompts"], options)
    texts = [checked_text(text, where=file.where("prompts")) for text in prompts.texts]
    template = _template(
        file,
        headers,
        coords={
            "sample": (("sample",), np.arange(count, dtype=np.int64)),
            "timestep": (("sample",), timesteps),
            "prompt_index": (("sample",), indices),
            "prompt_id": (("prompt_id",), np.arange(table, dtype=np.int64)),
            "prompt": (
                ("prompt_id",),
                strings(texts),
            ),
        },
    )
    rows = {name: template.shard_shape(template.array(name))[0] for name in stored}
    unit = Unit(
        label=SAMPLES,
        items={SAMPLES: tuple((i,) for i in range(count))},
        nbytes=file.nbytes,
        parts=tuple(StreamRows(file, name, rows[name]) for name in stored),
    )
    return Plan(
        source=SAMPLES,
        templates=(template,),
        units=(unit,),
        inputs=(path, *((options.prompts,) if options.prompts else ())),
        notes=(*_notes(file, stored), *prompts.notes),
    )


def _notes(file: NpzFile, stored: Mapping[str, str]) -> tuple[str, ...]:
    notes = [_SHUFFLED]
    if len(stored) < len(STORED):
        notes.append("no conditioning in the file: the model encodes its prompts")
    unknown = sorted(set(file.names) - set(KEYS))
    if unknown:
        notes.append(f"{file.path.name}: keys not taken: {', '.join(unknown[:8])}")
    return tuple(notes)


def _headers(file: NpzFile) -> dict[str, Header]:
    bare = not any(key in file for key in CONDITIONING)
    headers = {key: file.header(key) for key in KEYS if not (bare and key in CONDITIONING)}
    for key, header in headers.items():
        kinds, ndim = KEYS[key]
        single = ndim == 0 and header.shape == (1,)
        if header.dtype.kind not in kinds or not (single or len(header.shape) == ndim):
            found = f"{header.dtype.name} {header.shape}"
            raise SourceError(problem(f"expected {ndim} dims", where=file.where(key), found=found))
    for first, *others in (("xs", "ts", "prompt_indices"), ("prompts", *CONDITIONING)):
        for key in others:
            if key in headers and headers[key].shape[0] != headers[first].shape[0]:
                what = f"has {headers[key].shape[0]} rows, {first} has {headers[first].shape[0]}"
                raise SourceError(problem(what, where=file.where(key)))
    empty = any(0 in headers[key].shape for key in STORED.values() if key in headers)
    if empty or len({headers[key].shape[1] for key in CONDITIONING if key in headers}) > 1:
        raise SourceError(problem("arrays do not fit each other", where=str(file.path)))
    return headers


def _dtype(header: Header) -> str:
    return header.dtype.str[1:] if header.dtype.kind == "U" else header.dtype.name


def _prompts(file: NpzFile, header: Header, options: Options) -> Prompts:
    if options.prompts is not None:
        return read_prompts(options.prompts, count=header.shape[0])
    if header.dtype.kind == "U":
        return Prompts(tuple(str(prompt) for prompt in file.read("prompts")))
    data = bytes(file.raw("prompts")[header.offset :])
    found = pickled_strings(data, where=file.where("prompts"))
    if len(found) != header.shape[0]:
        what = f"{len(found)} strings for a header of {header.shape[0]}"
        raise SourceError(problem(what, where=file.where("prompts")))
    return Prompts(tuple(found))


def _template(
    file: NpzFile,
    headers: dict[str, Header],
    *,
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]],
) -> Template:
    arrays: list[Array] = []
    sizes = {"prompt_id": headers["prompts"].shape[0]}
    shard: dict[str, int] = {}
    for name, key in STORED.items():
        if key not in headers:
            continue
        header, dims = headers[key], DIMS[name]
        dtype = "<f4" if name == "x" else header.dtype.newbyteorder("<").str
        arrays.append(Array(name, dims, dtype, split=dims[0]))
        sizes |= dict(zip(dims, header.shape, strict=True))
        rows = rows_per_shard(nbytes(header.shape[1:], dtype), header.shape[0])
        shard[dims[0]] = min(rows, shard.get(dims[0], rows))
    return Template(
        path=SAMPLES,
        kind=SAMPLES,
        sizes=sizes,
        arrays=tuple(arrays),
        coords=coords,
        item_dims=("sample",),
        item_size={"sample": sizes["sample"]},
        shard=shard,
        attrs={
            "cfg_scale": float(file.read("cfg_scale").item()),
            "original_dtype": {key: _dtype(header) for key, header in headers.items()},
            "rows": headers["xs"].shape[0],
        },
    )
