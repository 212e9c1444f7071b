"""Provenance that goes along when a store is made of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taqstore.metadata.provenance import each_record
from taqstore.store.reader import Store
from taqstore.store.writer import StoreWriter


def described(store: Store) -> dict[str, Any]:
    """A store as an input of a record: what it is called, never where it lies."""
    name = store.location.name
    return {"name": name, "kind": "store", "uuid": store.root.uuid, "digest": store.digest}


def records_of(writer: StoreWriter) -> list[dict[str, Any]]:
    """Records that a store has by now, those that are damaged left out."""
    found = each_record(writer.backend, writer.root_record().records)
    return [record for record in found if isinstance(record, dict)]


def carry_records(writer: StoreWriter, stores: Sequence[Store]) -> None:
    """Write the records of stores that the target lacks, oldest first."""
    there = {record["id"] for record in records_of(writer)}
    for store in stores:
        for record in store.provenance:
            if record["id"] not in there:
                there.add(record["id"])
                writer.record(record)
