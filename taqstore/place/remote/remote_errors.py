"""What servers refuse, put into one line: what, where, what was found, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from taqstore.errors import StoreError, problem

# Packages whose errors are a server's or a network's, never a bug of ours.
_REMOTE = (
    "obstore",
    "icechunk",
    "aiohttp",
    "botocore",
    "huggingface_hub",
    "httpx",
    "requests",
    "urllib3",
)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)|status=(\d{3}[^,)]*)")
_LONGEST = 200


@dataclass(frozen=True)
class _Rule:
    """What the words of an error mean."""

    words: re.Pattern[str]
    what: str
    remedy: str


def _rule(words: str, what: str, remedy: str) -> _Rule:
    return _Rule(re.compile(words, re.I), what, remedy)


def _status(number: int) -> str:
    """A status of HTTP as servers and clients write it; no part of a time that was measured."""
    return rf"(?<![\d.]){number}(?=[ ,:)])"


_WAIT = "wait, then go on: what was complete is kept"
# The first that fits; the most particular stand first.
_NO_BUCKET = _rule(
    r"NoSuchBucket|ContainerNotFound|bucket does not exist|\bBucketNotFound",
    "no such bucket",
    "make it, or check its name, the endpoint and the region",
)
_RULES = (
    _NO_BUCKET,
    _rule(
        r"invalid zarr key",
        "this storage object keeps nodes and chunks of Zarr alone, and no records of a store",
        "read it with zarr or xarray; keep the store in a folder or a bucket",
    ),
    _rule(
        r"ExpiredToken|TokenRefreshRequired|RequestExpired|token.{0,20} expired",
        "the credentials have expired",
        "renew them, then go on: what was complete is kept",
    ),
    _rule(
        r"169\.254\.169\.254|metadata\.google\.internal|computeMetadata|NoCredentials",
        "no credentials were found",
        "set those of the environment (AWS_..., GOOGLE_..., AZURE_...), name a profile or a key "
        "with --storage-option, or anon=true for what is public",
    ),
    _rule(
        r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|AuthenticationFailed|"
        r"InvalidToken",
        "the credentials are not those of this server",
        "check them, and the endpoint",
    ),
    _rule(
        r"Account must be specified",
        "no account is named",
        "set AZURE_STORAGE_ACCOUNT_NAME, or give --storage-option account_name=NAME",
    ),
    _rule(
        r"service account file|OpenCredentials|DecodeCredentials|credentials? (file|from)",
        "the file of credentials cannot be used",
        "check its path and content",
    ),
    _rule(
        r"PermanentRedirect|301 Moved|AuthorizationHeaderMalformed|IllegalLocationConstraint",
        "the bucket is in another region",
        "set AWS_REGION, or give --storage-option region=REGION",
    ),
    _rule(
        rf"PermissionDenied|AccessDenied|Forbidden|{_status(403)}|Unauthenticated|Unauthorized|"
        rf"{_status(401)}|GatedRepo",
        "access is denied",
        "check what the credentials may do there",
    ),
    _rule(
        r"dns error|lookup address|Name or service not known|getaddrinfo|Name resolution|"
        r"nodename nor servname",
        "no such host",
        "check the address, the endpoint and the network",
    ),
    _rule(
        r"Connection refused|ConnectionRefused|Connect call failed",
        "nothing listens there",
        "check the endpoint, and that the server runs",
    ),
    _rule(
        r"certificate|InvalidContentType|\btls\b|\bssl\b",
        "no secure connection",
        "check that the endpoint speaks https, or write http://",
    ),
    _rule(
        rf"SlowDown|TooManyRequests|{_status(429)}|{_status(503)}", "the server is too busy", _WAIT
    ),
    _rule(
        rf"{_status(500)}|{_status(502)}|{_status(504)}|InternalError", "the server failed", _WAIT
    ),
    _rule(
        r"timed out|TimedOut|kind: Timeout|TimeoutError|Timeout on reading|deadline",
        "no answer in time",
        "try again; connect_timeout, read_timeout and retry_timeout are storage options",
    ),
    _rule(
        r"error sending request|Connect\b|ConnectionReset|reset by peer|connection closed|"
        r"Disconnected|IncompleteMessage|error decoding response body|unexpected EOF",
        "the connection failed",
        "check the network, then go on: what was complete is kept",
    ),
    _rule(rf"{_status(404)}|Not ?Found", "there is no such thing", "check the address"),
)


def is_of_server(error: BaseException) -> bool:
    """Whether an error was raised by what reaches a server, and so is no bug."""
    return type(error).__module__.startswith(_REMOTE) or (
        isinstance(error, OSError) and _is_told(str(error))
    )


def _is_told(text: str) -> bool:
    """Whether obstore's words stand in an error of Python's own, as it raises some."""
    return "Debug source:" in text or "Error performing" in text


def refusal(error: BaseException, where: str) -> StoreError:
    """The line for an error of a server.

    Parameters
    ----------
    where
        The address that was asked.
    """
    text = " ".join(_every_text(error))
    rule = next((row for row in _RULES if row.words.search(text)), None)
    what, remedy = (rule.what, rule.remedy) if rule else (_first(text), "check the address")
    return StoreError(
        problem(what, where=where, found=_found(str(error)) if rule else "", remedy=remedy)
    )


@contextmanager
def server_errors(where: str) -> Iterator[None]:
    """Turn what a server or a network refuses into one line; other errors pass.

    Raises
    ------
    StoreError
        In the place of an error of a server.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if not is_of_server(error):
            raise
        raise refusal(error, where) from error


@contextmanager
def remote_errors(name: str, key: str) -> Iterator[None]:
    """As `server_errors`, of an object in a store of that name."""
    with server_errors(f"{name}/{key}" if key else name):
        yield


def check_absent(error: FileNotFoundError, name: str) -> None:
    """Raise what is more than an object that is not there: a bucket that is not."""
    if _NO_BUCKET.words.search(str(error)):
        raise refusal(error, name) from error


def _every_text(error: BaseException) -> Iterator[str]:
    one: BaseException | None = error
    for _ in range(4):
        if one is None:
            return
        yield f"{type(one).__name__}: {one}"
        one = one.__cause__ or one.__context__


def _found(text: str) -> str:
    """What the server said, in its own short words."""
    code, status = _CODE.search(text), _STATUS.search(text)
    said = [
        next(filter(None, status.groups()), "").strip() if status else "",
        code[1] if code else "",
    ]
    return " ".join(word for word in said if word) or _first(text)


def _first(text: str) -> str:
    first = re.split(r"\n|\\n|Debug source:| - Server returned| in [\d.]+\S*s\b", text)[0]
    return first.strip().rstrip(":")[:_LONGEST]
