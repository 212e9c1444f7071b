"""Many writers of one bucket, killed at random and begun again, beside one that wrote alone.

Half of the writers say that they are of other machines: whether these are gone can be told by
their silence only, not by a process number.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from campaign.stores import fill, one_kind, put_shard, same, values_of
from campaign.trials import Trials
from support.s3_server import S3Server
from taqstore import create_store, open_store
from taqstore.layout.item_records import ItemLayout
from taqstore.layout.template import Template
from taqstore.metadata.provenance import make_record
from taqstore.place.location import Location
from taqstore.store.writer import StoreWriter
from taqstore.upkeep.verify import verify_store

WRITERS, IMAGES, KILLS = 8, 200, 40
_SILENT_SECONDS = 3.0
_PAUSE = 4.0
_PATIENCE = 600
_PRELOADED = ["campaign.bucket", "obstore", "zarr.codecs", "taqstore.store.writer"]


@dataclass
class Crowd:
    """Writers at work; each of their lives has a number, and leaves a file when it is over.

    Parameters
    ----------
    address, images
        What they write.
    told
        Folder of the files that say that a life came to its end.
    """

    address: str
    images: int
    told: Path
    lives: list[tuple[int, int]] = field(default_factory=list)
    living: dict[int, Any] = field(default_factory=dict)

    def begin(self, writer: int) -> None:
        """Begin the next life of a writer."""
        life = sum(number == writer for number, _ in self.lives)
        self.lives.append((writer, life))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        arguments = (self.address, self.images, writer, life, str(self.told))
        process = context.Process(target=write_as, args=arguments, daemon=True)
        process.start()
        self.living[writer] = process

    def kill(self, writer: int) -> bool:
        """SIGKILL; True where that ended it."""
        process = self.living[writer]
        process.kill()
        process.join()
        return bool(process.exitcode)

    def end(self) -> None:
        """Wait for all."""
        deadline = time.monotonic() + _PATIENCE
        for process in self.living.values():
            process.join(max(0.0, deadline - time.monotonic()))
        codes = {writer: process.exitcode for writer, process in self.living.items()}
        for process in self.living.values():
            process.kill()
        assert set(codes.values()) == {0}, f"exit codes {codes}"

    def alive(self) -> list[int]:
        """Writers that have not come to their end."""
        return [writer for writer, process in sorted(self.living.items()) if process.is_alive()]

    def ended(self) -> set[tuple[int, int]]:
        """Lives that came to their end."""
        names = (path.name.split(".") for path in self.told.iterdir())
        return {(int(writer), int(life)) for writer, life in names}


def buckets(
    folder: Path,
    server: S3Server,
    *,
    writers: int = WRITERS,
    images: int = IMAGES,
    kills: int = KILLS,
    pause: float = _PAUSE,
) -> Iterator[Trials]:
    """Write one store by a crowd and one alone; every object is compared.

    Parameters
    ----------
    server
        Where both lie; the environment names it.
    pause
        Seconds between two kills, at most.
    """
    trials = Trials("writers of one bucket, killed", f"{writers} writers, {images} images")
    bucket = server.make_bucket()
    alone, together = (f"s3://{bucket}/{name}.zarr" for name in ("alone", "together"))
    with create_store(alone) as store:
        for template in one_kind(range(images)):
            fill(store, template)
    told = folder / "told"
    told.mkdir()
    crowd = Crowd(together, images, told)
    with trials.trial(f"{kills} kills"):
        trials.what += f", {_fill(crowd, writers, kills, pause)} kills"
        check(crowd, alone)
    server.drop_bucket(bucket)
    yield trials


def whole_campaign(folder: Path, most: int | None) -> Iterator[Trials]:
    """All writers, on a server of their own."""
    server = S3Server()
    os.environ.update(server.environment())
    try:
        yield from buckets(folder, server, kills=most or KILLS)
    finally:
        server.close()


def _fill(crowd: Crowd, writers: int, kills: int, pause: float) -> int:
    """Let the writers write, and kill one after another; how many were killed.

    One that has come to its end is not begun again: all is written by then.
    """
    chance, killed = random.Random(20), 0
    for writer in range(writers):
        crowd.begin(writer)
    while killed < kills and (alive := crowd.alive()):
        time.sleep(chance.uniform(pause / 20, pause))
        writer = chance.choice(alive)
        if crowd.kill(writer):
            killed += 1
            crowd.begin(writer)
    crowd.end()
    return killed


def check(crowd: Crowd, alone: str) -> None:
    """Nothing lost, nothing under a wrong label, every record once, every object the same."""
    report = verify_store(crowd.address)
    assert not report.damage, report.damage[0]
    unwritten = [note for note in report.notes if "not written" in note.what]
    assert not unwritten, unwritten[0]
    store = open_store(crowd.address)
    expected, found = values_of(open_store(alone)), values_of(store)
    assert found.keys() == expected.keys()
    wrong = [key for key in expected if not same(found[key], expected[key])]
    assert not wrong, f"{wrong[0]} is not what was written"
    there, here = (objects_of(address) for address in (crowd.address, alone))
    assert there == here
    told = [record["parameters"] for record in store.provenance]
    lives = [(entry["writer"], entry["life"]) for entry in told]
    assert len(set(lives)) == len(lives), "a record is there twice"
    assert crowd.ended() <= set(lives) <= set(crowd.lives)


def objects_of(address: str) -> dict[str, bytes]:
    """Data and coordinates of all groups: what does not name the store that it is in."""
    backend: Any = Location.parse(address).backend()
    keys = [key for path in open_store(address) for key in backend.objects.below(f"{path}/")]
    data = [key for key in keys if "/c/" in key and "/items/" not in key]
    assert len(data) > 10
    return {key: content for key, (content, _) in backend.objects.get_many(data).items()}


def write_as(address: str, images: int, writer: int, life: int, told: str) -> None:
    """A life of a writer: what is unclaimed is taken until nothing is left, then recorded."""
    from taqstore.place.remote import claims, owners, store_lock

    claims.CLAIM_SECONDS = store_lock.LEASE_SECONDS = _SILENT_SECONDS
    if writer % 2:
        owners.machine = lambda: f"machine {writer}.{life}"  # type: ignore[assignment]
    chance = random.Random(1000 * writer + life)
    parameters = {"writer": writer, "life": life}
    with create_store(address) as store:
        for template in one_kind(range(images)):
            _take(store, template, chance)
        store.record(
            make_record("campaign", parameters=parameters, inputs=[], groups=[], counts={})
        )
    Path(told, f"{writer}.{life}").touch()


def _take(store: StoreWriter, template: Template, chance: random.Random) -> None:
    group, layout = store.group(template), ItemLayout.of_template(template)
    while True:
        left = [tuple(map(int, place)) for place in np.argwhere(~group.written())]
        if not left:
            return
        chance.shuffle(left)
        taken = 0
        for item in left:
            with group.claim(item) as mine:
                if mine:
                    for shard in layout.shards(item):
                        put_shard(group, template, shard)
                    group.commit([item])
                    taken += 1
        if not taken:
            time.sleep(0.2)  # others are at them
