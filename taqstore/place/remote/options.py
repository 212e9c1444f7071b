"""Storage options: what it takes to reach a store that is not on this disk.

They are told once, to the function or command that is called, and hold for every address that is
understood while it runs. A `Location` keeps those that it was made with. They may be credentials:
nothing prints or records them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from taqstore.asked import meant
from taqstore.errors import MisuseError, problem
from taqstore.place.remote.known_options import (
    CLIENT,
    CLIENT_BOOLEANS,
    RETRY,
    SECONDS,
    Service,
    service_of,
)

StorageOptions = Mapping[str, Any]
"""Name -> value; names of obstore or of fsspec."""

_YES, _NO = ("true", "yes", "1", "on"), ("false", "no", "0", "off")
# A host that does not answer is given up after the last retry that begins within these seconds.
# No limit on a whole request: a shard of gigabytes may take as long as bytes arrive.
_CLIENT_SECONDS = {"connect_timeout": 5.0, "read_timeout": 15.0, "timeout": 86400.0}
_RETRIES, _RETRY_SECONDS = 6, 15.0
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0

_AMBIENT: ContextVar[StorageOptions] = ContextVar("storage_options", default={})  # noqa: B039
_Function = TypeVar("_Function", bound=Callable[..., Any])


def ambient() -> StorageOptions:
    """The options that hold now."""
    return _AMBIENT.get()


@contextmanager
def storage(options: StorageOptions | None) -> Iterator[None]:
    """Let options hold for addresses that are understood inside; None changes nothing.

    Raises
    ------
    MisuseError
        They are no mapping of names.
    """
    if options is None:
        yield
        return
    given: object = options
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        what, remedy = "storage options map names to values", 'write them like {"region": "..."}'
        raise MisuseError(problem(what, found=type(options).__name__, remedy=remedy))
    before = _AMBIENT.set(dict(given))
    try:
        yield
    finally:
        _AMBIENT.reset(before)


def takes_storage_options(function: _Function) -> _Function:
    """Let a function's keyword `storage_options` hold while it runs.

    It is taken here: the function only declares it.
    """

    @wraps(function)
    def inside(*args: Any, **given: Any) -> Any:
        with storage(given.get("storage_options")):
            return function(*args, **given)

    return cast(_Function, inside)


@dataclass(frozen=True)
class Settings:
    """Options as obstore's constructors take them.

    Parameters
    ----------
    config
        Of the service.
    client
        Of connections: ``client_options``.
    retry
        ``retry_config``.
    profile
        Profile of ``~/.aws`` that credentials are taken from; empty where none was named.
    """

    config: Mapping[str, Any] = field(repr=False)
    client: Mapping[str, Any]
    retry: Mapping[str, Any]
    profile: str = ""


def settings_of(scheme: str, options: StorageOptions, *, where: str) -> Settings:
    """Options of an object store, in obstore's words.

    Raises
    ------
    MisuseError
        One that the service does not know, or a value that makes no sense.
    """
    service = service_of(scheme)
    assert service is not None, scheme
    config: dict[str, Any] = {}
    client: dict[str, Any] = dict(_CLIENT_SECONDS)
    tries: dict[str, float] = {"max_retries": _RETRIES, "retry_timeout": _RETRY_SECONDS}
    profile = ""
    for name, value in _flat(options, service, where).items():
        if value is None:
            continue
        if name in ("profile", "profile_name") and "s3" in service.schemes:
            profile = str(value)
        elif name in RETRY:
            tries[name] = _number(name, value, where)
        elif name in CLIENT:
            client[CLIENT[name]] = _client_value(CLIENT[name], value, where)
        elif name in service.names:
            config |= _config_value(service, name, value, where)
        else:
            known = sorted({*service.names, *CLIENT, *RETRY, *_EXTRA.get(service.schemes[0], ())})
            what = f"{scheme}:// has no storage option {name!r}"
            raise MisuseError(problem(what, where=where, remedy=meant(name, known)))
    client = {name: timedelta(seconds=v) if name in SECONDS else v for name, v in client.items()}
    endpoint = str(config.get("endpoint") or config.get("base_url") or _endpoint(service))
    if endpoint and not endpoint.startswith(("http://", "https://")):
        what, remedy = "the endpoint is no address of a server", "write it like https://host:port"
        raise MisuseError(problem(what, where=where, found=endpoint, remedy=remedy))
    if endpoint.startswith("http://"):
        client.setdefault("allow_http", True)
    return Settings(config, client, _retry(tries), profile)


_EXTRA = {
    "s3": ("profile", "client_kwargs", "config_kwargs", "use_ssl"),
    "az": ("connection_string",),
}
"""Names that are no name of obstore, by the first scheme of the service that knows them."""

_NESTED = {
    "client_kwargs": {
        "endpoint_url": "endpoint",
        "region_name": "region",
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "use_ssl": "use_ssl",
        "verify": "verify",
    },
    "config_kwargs": {
        "connect_timeout": "connect_timeout",
        "read_timeout": "read_timeout",
        "region_name": "region",
        "user_agent": "user_agent",
    },
}
"""Mappings that s3fs takes, and what is understood of them."""


def _flat(options: StorageOptions, service: Service, where: str) -> dict[str, Any]:
    """Options without those that hold others, and without those that say nothing to obstore."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if name in _NESTED and "s3" in service.schemes:
            inside, known = _mapping(name, value, where), _NESTED[name]
            if wrong := [word for word in inside if word not in known]:
                what, remedy = f"{name} with {wrong[0]!r} is not known", meant(wrong[0], known)
                raise MisuseError(problem(what, where=where, remedy=remedy))
            flat |= {known[word]: given for word, given in inside.items()}
        elif name == "connection_string" and "az" in service.schemes:
            flat |= _connection(str(value), where)
        elif name == "token" and "gs" in service.schemes and value == "anon":
            flat["skip_signature"] = True
        elif name == "token" and "gs" in service.schemes and isinstance(value, Mapping):
            flat["service_account_key"] = json.dumps(dict(value))
        elif name == "token" and value == "google_default":
            continue
        else:
            flat[name] = value
    if (verify := flat.pop("verify", None)) is not None:
        flat["allow_invalid_certificates"] = not _truth("verify", verify, where)
    if (secure := flat.pop("use_ssl", None)) is not None:
        flat["allow_http"] = not _truth("use_ssl", secure, where)
    return flat


def _mapping(name: str, value: Any, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        what, remedy = f"{name} maps names to values", f'write it like {name}={{"NAME": "VALUE"}}'
        raise MisuseError(problem(what, where=where, remedy=remedy))
    return found


_CONNECTION = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "BlobEndpoint": "endpoint",
    "SharedAccessSignature": "sas_key",
}


def _connection(text: str, where: str) -> dict[str, str]:
    """What obstore needs of a connection string of Azure."""
    pairs = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    found = {name: pairs[word] for word, name in _CONNECTION.items() if word in pairs}
    if "account_name" not in found and "endpoint" not in found:
        what, remedy = "no connection string of Azure", "copy it whole: AccountName=...;AccountKey="
        raise MisuseError(problem(what, where=where, remedy=remedy))
    return found


def _config_value(service: Service, name: str, value: Any, where: str) -> dict[str, Any]:
    own = service.names[name]
    if own in service.booleans:
        return {own: _truth(name, value, where)}
    if isinstance(value, Mapping | list | tuple):
        what = f"the storage option {name} is one value"
        raise MisuseError(problem(what, where=where, found=type(value).__name__))
    return {own: os.fspath(value) if isinstance(value, os.PathLike) else str(value)}


def _client_value(name: str, value: Any, where: str) -> Any:
    if name in CLIENT_BOOLEANS:
        return _truth(name, value, where)
    return _number(name, value, where) if name in SECONDS else str(value)


def _truth(name: str, value: Any, where: str) -> bool:
    word = str(value).lower()
    if word not in (*_YES, *_NO):
        what = f"the storage option {name} is true or false"
        raise MisuseError(problem(what, where=where, found=str(value)))
    return word in _YES


def _number(name: str, value: Any, where: str) -> float:
    try:
        number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        unit = "a number" if name == "max_retries" else "seconds"
        what = f"the storage option {name} is {unit}, not below 0"
        raise MisuseError(problem(what, where=where, found=str(value)))
    return number


def _endpoint(service: Service) -> str:
    """The endpoint that the environment names."""
    if "s3" not in service.schemes:
        return ""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _retry(tries: Mapping[str, float]) -> dict[str, Any]:
    waits = {
        "init_backoff": timedelta(seconds=_FIRST_WAIT),
        "max_backoff": timedelta(seconds=_LONGEST_WAIT),
        "base": 2,
    }
    return {
        "max_retries": int(tries["max_retries"]),
        "retry_timeout": timedelta(seconds=tries["retry_timeout"]),
        "backoff": waits,
    }


WORD = "--storage-option"
"""How the command line calls an option."""


def without_secrets(words: Sequence[str]) -> list[str]:
    """Words of a command line with the values of storage options left out.

    >>> without_secrets(["info", "s3://b/x", "--storage-option", "secret=s3cr3t"])
    ['info', 's3://b/x', '--storage-option', 'secret=...']
    """
    shown: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if before == WORD:
            word = _hidden(word)
        elif word.startswith(f"{WORD}="):
            word = f"{WORD}={_hidden(word.removeprefix(f'{WORD}='))}"
        shown.append(word)
    return shown


def _hidden(pair: str) -> str:
    return f"{pair.partition('=')[0]}=..."
