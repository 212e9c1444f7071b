"""Clients of object stores: one for each address and way to reach it, shared by all that ask."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from taqstore.errors import MisuseError, StoreError, problem
from taqstore.place.remote.known_options import service_of
from taqstore.place.remote.options import Settings, settings_of
from taqstore.place.remote.remote_errors import server_errors
from taqstore.place.remote.schemes import EXTRA, GOOGLE, S3


def client_of(url: str, options: Mapping[str, Any]) -> Any:
    """The client of an address.

    Raises
    ------
    StoreError
        obstore is not installed, there are no credentials, or nothing can be made of the address.
    MisuseError
        An option that the service does not know.
    """
    return _client(url, json.dumps(dict(options), sort_keys=True, default=_plain), _environment())


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _environment() -> tuple[tuple[str, str], ...]:
    """What clients take from the environment: where it has changed, they are made anew."""
    names = ("AWS_", "AZURE_", "GOOGLE_", "MSI_", "IDENTITY_")
    return tuple(sorted((name, v) for name, v in os.environ.items() if name.startswith(names)))


@lru_cache(maxsize=64)
def _client(url: str, options: str, environment: object) -> Any:
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        what, remedy = "no bucket is named", f"write it like {scheme}://bucket/name"
        raise StoreError(problem(what, where=url, remedy=remedy))
    try:
        stores = import_module("obstore.store")
    except ImportError as error:
        what = "object stores need obstore, which is not installed"
        raise StoreError(problem(what, where=url, remedy=EXTRA)) from error
    settings = settings_of(scheme, json.loads(options), where=url)
    given: dict[str, Any] = {
        "config": dict(settings.config),
        "client_options": dict(settings.client),
        "retry_config": dict(settings.retry),
    }
    with server_errors(url):
        if scheme in S3.names:
            given["credential_provider"] = _of_profile(settings, url)
            return stores.S3Store(bucket, prefix=prefix or None, **given)
        if scheme in GOOGLE.names:
            return stores.GCSStore(bucket, prefix=prefix or None, **given)
        # Azure's addresses may name an account beside the container.
        return stores.from_url(url, **given)


def _of_profile(settings: Settings, url: str) -> Any:
    """Credentials as boto3 finds them, which knows profiles, roles and logins; None: obstore's own.

    Only where neither options nor environment hold any.
    """
    service = service_of(S3.names[0])
    assert service is not None
    known = service.credentials & set(settings.config)
    if not settings.profile and (known or any(map(os.environ.get, service.variables))):
        return None
    try:
        boto3 = import_module("boto3")
        provider = import_module("obstore.auth.boto3").Boto3CredentialProvider
    except ImportError as error:
        if not settings.profile:
            return None
        what = "profiles of ~/.aws are read by boto3, which is not installed"
        raise StoreError(problem(what, where=url, remedy="pip install boto3")) from error
    try:
        session = boto3.Session(profile_name=settings.profile or None)
        found = session.get_credentials()
    except Exception as error:  # of botocore, of many kinds: a profile that is not there, or wrong
        raise MisuseError(problem(str(error), where=url, remedy="see aws configure")) from error
    if found is None:
        raise no_credentials(url)
    return provider(session)


def no_credentials(url: str) -> StoreError:
    """The refusal of an address that nobody can be at."""
    what = "no credentials were found"
    remedy = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with --storage-option "
        "profile=NAME, or give anon=true for what is public"
    )
    return StoreError(problem(what, where=url, remedy=remedy))
