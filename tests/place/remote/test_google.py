"""Google's storage compares generations, not ETags: the same promises hold by them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from support.builders import latent, write_latents
from support.gcs_server import google  # noqa: F401 - a fixture
from taqstore import open_store
from taqstore.place.location import Location
from taqstore.place.object_backend import ObjectBackend
from taqstore.upkeep import verify_store


@pytest.fixture
def back_ends(google: Callable[[str], Any]) -> tuple[ObjectBackend, ObjectBackend]:  # noqa: F811
    first, second = (
        Location.parse(google("some/run.zarr")).backend(read_only=False) for _ in range(2)
    )
    assert isinstance(first, ObjectBackend)
    assert isinstance(second, ObjectBackend)
    return first, second


def test_only_what_is_unchanged_is_replaced(back_ends: tuple[ObjectBackend, ...]) -> None:
    objects = back_ends[0].objects
    first = objects.create("a", b"one")
    assert first
    assert objects.create("a", b"two") is None
    second = objects.replace("a", b"two", first)
    assert second
    assert objects.head("a") == (3, second)
    assert objects.replace("a", b"three", first) is None
    assert objects.replace("a", b"three", objects.no_tag) is None
    assert objects.get("a") == (b"two", second)
    objects.delete(["a"])
    assert objects.replace("a", b"four", second) is None


def test_an_item_is_held_once(back_ends: tuple[ObjectBackend, ...]) -> None:
    backend, other = back_ends
    flag = "latents/items/commit/c.0.0"
    with backend.claimed("latents", (0,), flag, 40) as held:
        assert held
        with other.claimed("latents", (0,), flag, 40) as again:
            assert not again
        backend.put_flag(flag, b"flag")
    assert other.read(flag) == b"flag"


def test_writers_of_other_images_grow_one_group(google: Callable[[str], Any]) -> None:  # noqa: F811
    threads = [
        threading.Thread(target=write_latents, args=(google("run.zarr"), [4 * n, 4 * n + 1]))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    address = google("run.zarr")
    assert verify_store(address).damage == ()
    shown = open_store(address)["latents"]
    assert sorted(shown.image.values) == sorted(i for n in range(4) for i in (4 * n, 4 * n + 1))
    for place, image in enumerate(shown.image.values):
        assert (shown.x[place].values == latent(int(image))[0]).all()
