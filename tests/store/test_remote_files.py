"""Off the local disk: what was exchanged, cut short or changed is refused as it is on one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import fsspec
import numpy as np
import pytest

from support import merge_runs
from support.builders import latents_template
from taqstore import create_store, open_store
from taqstore.arrays import far_files
from taqstore.errors import StoreError

Change = Callable[[bytes, bytes], tuple[bytes, bytes]]
FILES = {
    "latents/x": ("latents/x/c/0/0/0/0/0", "latents/x/c/1/0/0/0/0"),
    "blocks/img/output_kept": ("blocks/img/output_kept/c/0/0/0", "blocks/img/output_kept/c/1/1/0"),
}


def flipped(raw: bytes, place: int) -> bytes:
    changed = bytearray(raw)
    changed[place] ^= 4
    return bytes(changed)


CHANGES: dict[str, Change] = {
    "exchanged": lambda a, b: (b, a),
    "first bit flipped": lambda a, b: (flipped(a, 0), b),
    "last bit flipped": lambda a, b: (flipped(a, -1), b),
    "cut short": lambda a, b: (a[:-1], b),
    "empty": lambda a, b: (b"", b),
}


@pytest.fixture
def url() -> Iterator[str]:
    """A store in memory."""
    url = f"memory://{uuid.uuid4().hex}/s.zarr"
    with create_store(url) as store:
        group = store.group(latents_template([3, 1]))
        shape = latents_template([3, 1]).shape(latents_template([3, 1]).array("x"))[1:]
        for image in range(2):
            group.put("x", (image, 0, 0, 0, 0), np.full((1, *shape), image + 1.5, np.float32))
            group.commit([(image,)])
        merge_runs.write_blocks(store, [0, 2])
    yield url
    fs, place = fsspec.core.url_to_fs(url)
    fs.rm(place, recursive=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_refused(url: str, name: str, change: str) -> None:
    fs, place = fsspec.core.url_to_fs(url)
    first, second = (f"{place}/{file}" for file in FILES[name])
    path, _, variable = name.rpartition("/")
    whole = open_store(url)[path][variable].values
    raws = fs.cat(first), fs.cat(second)
    for file, raw in zip((first, second), CHANGES[change](*raws), strict=True):
        fs.pipe(file, raw)
    if raws != (fs.cat(first), fs.cat(second)):
        with pytest.raises(StoreError, match=name):
            open_store(url)[path][variable].values.sum()
    for file, raw in zip((first, second), raws, strict=True):
        fs.pipe(file, raw)
    assert open_store(url)[path][variable].values.tobytes() == whole.tobytes()


@pytest.mark.parametrize("chunks", ["auto", None])
def test_a_missing_file_is_refused(url: str, chunks: str | None) -> None:
    fs, place = fsspec.core.url_to_fs(url)
    fs.rm(f"{place}/latents/x/c/1/0/0/0/0")
    with pytest.raises(StoreError, match="missing, though its item is flagged"):
        open_store(url, chunks=chunks)["latents"].x.values.sum()  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_sizes_of_large_files_are_compared(
    url: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_files, "FETCHED_WHOLE", most)
    dataset = open_store(url)["latents"]
    assert dataset.x.values[:, 0, 0, 0, 0].tolist() == [1.5, 2.5]
    fs, place = fsspec.core.url_to_fs(url)
    raw = fs.cat(f"{place}/latents/x/c/1/0/0/0/0")
    fs.pipe(f"{place}/latents/x/c/1/0/0/0/0", raw + b"0")
    with pytest.raises(StoreError, match="latents/x/c/1"):
        open_store(url)["latents"].x.values.sum()
