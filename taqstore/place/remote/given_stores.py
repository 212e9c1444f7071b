"""Storage objects of zarr that are given in the place of an address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def is_zarr_store(given: object) -> bool:
    """Whether it is a storage object of zarr; zarr is not imported to find out."""
    abc = sys.modules.get("zarr.abc.store")
    return abc is not None and isinstance(given, abc.Store)


def ready(store: Any) -> Any:
    """The same, open: some are opened only when zarr itself first uses them."""
    from zarr.core.sync import sync

    sync(store._ensure_open())
    return store


def folder_of(store: Any) -> Path | None:
    """The folder of this disk that it is; None where it is none."""
    from zarr.storage import LocalStore

    if isinstance(store, LocalStore):
        return Path(store.root)
    client = client_in(store)
    if client is not None and type(client).__name__ == "LocalStore" and client.prefix:
        return Path(client.prefix)
    return None


def client_in(store: Any) -> Any:
    """The client of obstore that is in it; None where there is none."""
    from zarr.storage import ObjectStore

    return store.store if isinstance(store, ObjectStore) else None


def url_of(store: Any) -> str:
    """What it is called in messages; no credentials are told."""
    client = client_in(store)
    config = getattr(client, "config", None) or {}
    kind = _SCHEMES.get(type(client).__name__)
    bucket = config.get("bucket") or config.get("container_name")
    if kind is None or not bucket:
        return str(store)
    prefix = str(getattr(client, "prefix", None) or "").strip("/")
    return f"{kind}://{bucket}/{prefix}".rstrip("/")


_SCHEMES = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}
