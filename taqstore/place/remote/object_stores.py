"""Clients of object stores: one for each address and way to reach it, shared by all that ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from taqstore.errors import StoreError, problem
from taqstore.place.remote.options import settings_of

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl")
"""Schemes of addresses that obstore serves, with conditional puts."""


def client_of(url: str, options: Mapping[str, Any]) -> Any:
    """The client of an address.

    Raises
    ------
    StoreError
        obstore is not installed, or makes nothing of the address.
    """
    return _client(url, json.dumps(dict(options), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _client(url: str, options: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        what, remedy = "object stores need obstore", "pip install 'taqstore[remote]'"
        raise StoreError(problem(what, where=url, remedy=remedy)) from error
    settings = settings_of(urlsplit(url).scheme, json.loads(options), where=url)
    make: Any = from_url
    return make(
        url,
        config=dict(settings.config),
        client_options=dict(settings.client),
        retry_config=dict(settings.retry),
    )
