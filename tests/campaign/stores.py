"""Small stores with groups of every kind, what they hold, and how they are written and read."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from support import merge_runs, weight_store
from support.builders import latents_template, pooled_template
from taqstore import create_store, open_store
from taqstore.errors import TaqError
from taqstore.kinds.templates import channel_histograms_template, pooled_conditioning_template
from taqstore.kinds.weights import reconstruction_template
from taqstore.layout.item_records import Item, ItemLayout, Shard
from taqstore.layout.template import Array, Template
from taqstore.metadata.provenance import make_record
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store
from taqstore.store.writer import StoreWriter
from taqstore.testing import RunShape
from taqstore.testing.store import activations_templates

_SHAPE = RunShape(images=2, blocks=1, hidden=4, image_tokens=3, text_tokens=2, stats_stride=6)
IMAGES = (3, 1)
Values = dict[tuple[str, str], np.ndarray]


def every_kind() -> list[Template]:
    """A template of every kind of group, tiny."""
    sites = activations_templates(_SHAPE, layout=merge_runs.LAYOUT)
    site = next(template for template in sites if template.path == merge_runs.SITE)
    sample = ("sample", "height", "width", "latent_channel")
    return [
        latents_template(list(IMAGES)),
        merge_runs.blocks_template(list(IMAGES)),
        pooled_conditioning_template(images=IMAGES, shape=(2, 3), dtype="float16", attrs={}),
        site,
        channel_histograms_template(site, merge_runs.LAYOUT),
        pooled_template(),
        Template(
            "samples",
            "samples",
            dict(zip(sample, (4, 2, 3, 2), strict=True)),
            (Array("x", sample, "float32", split="sample"),),
            {"sample": (("sample",), np.arange(4)), "timestep": (("sample",), np.arange(4.0))},
            ("sample",),
            item_size={"sample": 2},
            shard={"sample": 2},
        ),
        weight_store.site_template("mlp.fc2"),
        reconstruction_template(blocks=("mm0",), streams=("img", "txt"), iterations=[0, 10]),
    ]


def one_kind(images: Sequence[int] = IMAGES) -> list[Template]:
    """Latents and streams alone, for trials by the thousand."""
    return [latents_template(list(images)), merge_runs.blocks_template(list(images))]


def write(
    path: Path | str, templates: Sequence[Template], *, replaced: Sequence[str] = (), **ways: Any
) -> None:
    """What a command with `--resume` does: items that lack a flag are written, then recorded.

    Parameters
    ----------
    replaced
        Groups to write anew, as with `--force`.
    ways
        As of `fill`.
    """
    with create_store(path) as store:
        for template in templates:
            fill(store, template, replace=template.path in replaced, **ways)
        if not any(r["command"] == "campaign" for r in open_store(path).provenance):
            store.record(make_record("campaign", parameters={}, inputs=[], groups=[], counts={}))


def fill(
    store: StoreWriter, template: Template, *, replace: bool = False, told: Any = None
) -> None:
    """Write what a group lacks.

    Parameters
    ----------
    told
        Called with the group and the item once an item was committed.
    """
    group = store.group(template, replace=replace)
    done, layout = group.written(), ItemLayout.of_template(template)
    grid = tuple(-(-n // e) for n, e in zip(done.shape, layout.item_size, strict=True))
    for item in np.ndindex(grid):
        places = _places(item, layout.item_size, done.shape)
        if all(done[place] for place in places):
            continue
        for shard in layout.shards(item):
            put_shard(group, template, shard)
        group.commit(places)
        if told is not None:
            told(template.path, item)


def _places(item: Item, size: Sequence[int], shape: Sequence[int]) -> list[Item]:
    places = (
        tuple(i * n + offset for i, n, offset in zip(item, size, inside, strict=True))
        for inside in np.ndindex(*size)
    )
    return [place for place in places if all(p < n for p, n in zip(place, shape, strict=True))]


def put_shard(group: GroupWriter, template: Template, shard: Shard) -> None:
    """Write one shard of a template, wherever its labels lie in the store."""
    name, coords = shard
    array = template.array(name)
    extents = template.shard_shape(array)
    start = tuple(c * n for c, n in zip(coords, extents, strict=True))
    shape = [
        min(n, whole - first)
        for n, whole, first in zip(extents, template.shape(array), start, strict=True)
    ]
    group.put(name, start, _drawn(template, shard, shape, array.dtype))


def _drawn(template: Template, shard: Shard, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Values that follow from the labels of their place, whatever its number in a store."""
    name, coords = shard
    dims = template.array(name).dims
    labels = [
        template.coords[dim][1][c] if dim == "image" and dim in template.item_dims else c
        for dim, c in zip(dims, coords, strict=True)
    ]
    seed = zlib.crc32(f"{template.path}/{name}".encode())
    rng = np.random.default_rng([seed, *map(int, labels)])
    if np.dtype(dtype).kind in "iub":
        return rng.integers(0, 2 if dtype == "bool" else 9, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def values_of(store: Store) -> Values:
    """Every variable of every group, coordinates included."""
    return {
        (path, str(name)): np.asarray(variable.values)
        for path in store
        for name, variable in store[path].variables.items()
    }


def check_read(path: Path, expected: Values, *, chunks: Any = "auto") -> bool:
    """Everything is what was written, or is refused by one line; whether all of it was read."""
    try:
        store = open_store(path, chunks=chunks)
    except TaqError as error:
        _one_line(error)
        return False
    whole = True
    for group in sorted({group for group, _ in expected}):
        try:
            variables = {n: np.asarray(v.values) for n, v in store[group].variables.items()}
        except TaqError as error:
            _one_line(error)
            whole = False
            continue
        for (_, name), values in ((k, v) for k, v in expected.items() if k[0] == group):
            assert name in variables, f"{group}/{name} reads as absent"
            assert same(variables[name], values), f"{group}/{name} reads as something else"
    return whole


def check_flagged(path: Path | Store, expected: Values, *, chunks: Any = "auto") -> int:
    """Every flagged item is what was written, in a store that lacks some; how many are flagged."""
    store, flagged = open_store(path, chunks=chunks, incomplete=True), 0
    for group in store:
        try:
            dataset, mask = store[group], store.mask(group)
            flagged += int(mask.sum())
            loaded = {str(n): np.asarray(v.values) for n, v in dataset.data_vars.items()}
        except TaqError as error:
            _one_line(error)
            continue
        dims = dataset["written"].dims if "written" in dataset else None
        for name, values in loaded.items():
            whole = expected[group, name]
            assert dims is None or dataset[name].dims[: len(dims)] == dims
            both = tuple(
                slice(0, min(a, b)) for a, b in zip(whole.shape, values.shape, strict=True)
            )
            kept = mask[tuple(slice(0, n) for n in whole[both].shape[: mask.ndim])]
            assert same(values[both][kept], whole[both][kept]), f"{group}/{name} is wrong"
    return flagged


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal bit for bit; texts as texts."""
    if left.shape != right.shape or left.dtype.kind != right.dtype.kind:
        return False
    if left.dtype.kind in "OTU":
        return bool(left.tolist() == right.tolist())
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def _one_line(error: TaqError) -> None:
    assert "\n" not in str(error), f"more than one line: {error}"


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder."""
    every = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in every}
