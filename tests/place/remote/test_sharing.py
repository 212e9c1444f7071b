"""Writers of one object store: the lock of what they share, and their claims of items."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from support.builders import latent, latents_template, write_latents
from support.s3_server import S3Server
from taqstore import create_store, open_store
from taqstore.errors import StoreError, SupersededError
from taqstore.place.location import Location
from taqstore.place.object_backend import ObjectBackend
from taqstore.place.remote import claims, options, owners, single_writer, store_lock
from taqstore.upkeep import verify_store
from taqstore.upkeep.repair import repair_store

FLAG = "latents/items/commit/c.0.0"


@pytest.fixture
def address(bucket: str) -> str:
    return f"{bucket}/run.zarr"


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No owner is taken for a process of this machine: nobody is known to be gone."""
    numbers = iter(range(1_000_000))
    monkeypatch.setattr(owners, "machine", lambda: f"machine {next(numbers)}")


def back_end(address: str) -> ObjectBackend:
    found = Location.parse(address).backend(read_only=False)
    assert isinstance(found, ObjectBackend)
    return found


def test_one_at_a_time_holds_the_lock(address: str) -> None:
    inside, most = 0, 0

    def work(backend: ObjectBackend) -> None:
        nonlocal inside, most
        for _ in range(4):
            with backend.locked():
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1

    shared = back_end(address)
    threads = [
        threading.Thread(target=work, args=(b,)) for b in (shared, shared, back_end(address))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_held_for_long_is_told(address: str, caplog: pytest.LogCaptureFixture) -> None:
    one, other = back_end(address), back_end(address)
    with one.locked(), pytest.raises(StoreError, match=r"has been writing .* process \d+ on"):
        other.locked(timeout=2.5).__enter__()
    assert "waiting for" in caplog.text
    with other.locked():
        pass


@pytest.mark.usefixtures("strangers")
def test_who_was_passed_over_changes_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lock, "LEASE_SECONDS", 0.3)
    slow, quick = back_end(address), back_end(address)
    with slow.locked():
        slow.write_all({"doc": b"first"})
        slow.write_all({"later": b"first"})
    with slow.locked():
        assert slow.read("doc") == b"first"
        with quick.locked():  # slow is silent for longer than its lease
            assert quick.read("doc") == b"first"
            quick.write_all({"doc": b"quick", "new": b"quick"})
        for key in ("doc", "new", "later"):  # read before, created since, never read
            with pytest.raises(SupersededError):
                slow.write_all({key: b"slow"})
    assert [slow.read(key) for key in ("doc", "new", "later")] == [b"quick", b"quick", b"first"]


def test_a_killed_writer_is_passed_over_at_once(address: str) -> None:
    killed = back_end(address)
    killed.locked().__enter__()
    ((key, lease),) = _leases(killed)
    gone = lease.replace(b'"process":', b'"process":4194304,"was":')
    killed._beside.put(key, gone)
    start = time.monotonic()
    with back_end(address).locked():
        pass
    assert time.monotonic() - start < 10


def _leases(backend: ObjectBackend) -> list[tuple[str, bytes]]:
    beside = backend._beside
    found = beside.get_many(beside.below(""))
    return [(key, f[0]) for key, f in found.items() if f and f[0].startswith(owners.MAGIC)]


def test_an_item_is_held_once(address: str) -> None:
    one, other = back_end(address), back_end(address)
    with one.claimed("latents", (0,), FLAG, 40) as held:
        assert held
        for backend in (one, other):
            with backend.claimed("latents", (0,), FLAG, 40) as again:
                assert not again
        assert other.any_claimed("latents", [(0,)], "latents/items/commit")
    assert not other.any_claimed("latents", [(0,)], "latents/items/commit")
    with other.claimed("latents", (0,), FLAG, 40) as held:
        assert held
        other.put_flag(FLAG, b"flag")
    with one.claimed("latents", (0,), FLAG, 40) as held:
        assert not held  # flagged
    assert one.read(FLAG) == b"flag"


def test_who_gives_a_claim_back_takes_nothing_from_the_next(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = back_end(address), back_end(address)
    replace = one.objects.replace

    def and_the_next_is_quick(key: str, content: bytes, tag: str) -> str | None:
        put = replace(key, content, tag)
        with other.claimed("latents", (0,), FLAG, 40) as held:
            assert held
            other.put_flag(FLAG, b"flag")
        return put

    with one.claimed("latents", (0,), FLAG, 40) as held:
        assert held
        monkeypatch.setattr(one.objects, "replace", and_the_next_is_quick)
    assert other.read(FLAG) == b"flag"


def test_a_claim_is_renewed_while_it_is_held(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.8)
    one, other = back_end(address), back_end(address)
    with one.claimed("latents", (0,), FLAG, 40):
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            with other.claimed("latents", (0,), FLAG, 40) as held:
                assert not held
            time.sleep(0.1)
        one.put_flag(FLAG, b"flag")
    assert other.read(FLAG) == b"flag"


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that do not renew their claims, as if they were stopped."""
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.2)
    monkeypatch.setattr(claims.Claims, "_renew", lambda self: None)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("flagged", [False, True])
def test_a_writer_that_was_silent_cannot_flag(address: str, *, flagged: bool) -> None:
    write_latents(address, [0, 1], only=[1])
    first, second = create_store(address), create_store(address)
    slow, quick = (w.group(latents_template([0, 1])) for w in (first, second))
    with slow.claim((0,)) as held:
        assert held
        if not flagged:
            slow.put("x", (0, 0, 0, 0, 0), latent(7))  # what would be wrong
        with quick.claim((0,)) as taken:
            assert not taken  # seen for the first time
        time.sleep(0.5)
        with quick.claim((0,)) as taken:
            assert taken
            quick.put("x", (0, 0, 0, 0, 0), latent(0))
            if flagged:
                quick.commit([(0,)])
            with pytest.raises(SupersededError, match="taken this item over"):
                slow.put("x", (0, 0, 0, 0, 0), latent(7)) if flagged else slow.commit([(0,)])
    second.finish()
    assert verify_store(address).damage == ()
    shown = open_store(address)["latents"]
    assert list(shown.image.values) == ([0, 1] if flagged else [1])


@pytest.mark.parametrize("size", [0, 393, 394, 395])
def test_a_claim_that_was_left_is_no_damage_and_no_flag(address: str, size: int) -> None:
    write_latents(address, [0, 1], only=[1])
    backend = back_end(address)
    with backend.claimed("latents", (0,), FLAG, size):
        claim = backend.read(FLAG)
    assert claim
    assert len(claim) != size
    backend.objects.put(FLAG, claim)
    assert verify_store(address).damage == ()
    assert list(open_store(address)["latents"].image.values) == [1]


def test_writers_of_other_images_grow_one_group(address: str) -> None:
    threads = [
        threading.Thread(target=write_latents, args=(address, [4 * n, 4 * n + 1])) for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_store(address).damage == ()
    shown = open_store(address)["latents"]
    assert sorted(shown.image.values) == sorted(i for n in range(5) for i in (4 * n, 4 * n + 1))
    for place, image in enumerate(shown.image.values):
        assert (shown.x[place].values == latent(int(image))[0]).all()
        assert shown.prompt.values[place] == f"prompt {image} é"


def test_threads_of_the_only_writer_are_kept_apart(s3: S3Server, address: str) -> None:
    with s3.fault("ignore-conditions"):
        test_writers_of_other_images_grow_one_group(address)
        with create_store(address) as first, create_store(address) as second:
            template = latents_template([0, 1, 20])
            with first.group(template).claim((2,)) as held, second.group(template).claim((2,)) as b:
                assert held
                assert not b


def test_records_of_many_writers_are_all_kept(address: str) -> None:
    from taqstore.metadata.provenance import make_record

    write_latents(address, [0])

    def one(number: int) -> None:
        with create_store(address) as writer:
            writer.record(
                make_record(
                    "test", parameters={"n": number}, inputs=[], groups=["latents"], counts={}
                )
            )

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = open_store(address)
    assert store.bad_records == []
    assert sorted(r["parameters"]["n"] for r in store.provenance) == list(range(6))
    assert [r["number"] for r in store.provenance] == list(range(6))


def test_no_lock_for_what_is_there(s3: S3Server, address: str) -> None:
    write_latents(address, [0, 1], only=[0])
    with create_store(address) as writer:
        with s3.counted() as count:
            group = writer.group(latents_template([0, 1]))
            assert list(group.written()) == [True, False]
        assert count["PUT"] == 0


NO_CONDITIONS: list[dict[str, Any]] = [
    {"kind": "ignore-conditions"},
    {"kind": "ignore-if-match"},
    {"status": 501, "what": "PUT", "conditional": True},
]


@pytest.mark.parametrize("fault", NO_CONDITIONS, ids=["none", "If-None-Match alone", "refused"])
def test_a_store_without_conditions_has_one_writer(
    s3: S3Server, address: str, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(options, "_RETRIES", 1)  # what is refused is asked again each time
    with s3.fault(**fault):
        write_latents(address, [0, 1], only=[0])
        with create_store(address):
            monkeypatch.setattr(single_writer, "is_ours", lambda told: False)
            with pytest.raises(StoreError, match="can have one writer at a time"):
                create_store(address)
            with pytest.raises(StoreError, match="can have one writer at a time"):
                repair_store(address)
        with create_store(address) as writer:  # the other one is done
            group = writer.group(latents_template([0, 1]))
            with group.claim((1,)) as held:
                assert held
                group.put("x", (1, 0, 0, 0, 0), latent(1))
                group.commit([(1,)])
        assert list(open_store(address)["latents"].image.values) == [0, 1]
        assert verify_store(address).damage == ()
