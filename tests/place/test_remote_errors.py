"""Errors of servers and networks in one line; bugs stay bugs."""

from __future__ import annotations

import pytest
from obstore.exceptions import GenericError

from taqstore.errors import StoreError
from taqstore.place.remote.remote_errors import check_absent, remote_errors, server_errors

# As obstore words them, from its clients of three clouds.
SAID = [
    (
        "Generic GCS error: Error performing token request: Error performing GET "
        "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token in 8ms",
        "no credentials were found",
    ),
    (
        "Generic MicrosoftAzure error: Error performing token request: Error performing GET "
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2019-08-01 in 25ms",
        "no credentials were found",
    ),
    ("Generic MicrosoftAzure error: Account must be specified", "no account is named"),
    (
        "Generic GCS error: Unable to open service account file from /x.json: No such file",
        "the file of credentials cannot be used",
    ),
    (
        "Generic S3 error: Error performing list request: Error performing GET http://h/b in 3ms - "
        "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code>",
        "no such bucket (found 404 Not Found NoSuchBucket)",
    ),
    (
        "Generic S3 error: Error performing GET http://h/b/a in 1ms - Server returned non-2xx "
        "status code: 301 Moved Permanently: <Error><Code>PermanentRedirect</Code>",
        "the bucket is in another region",
    ),
    (
        "Generic S3 error: Error performing PUT http://h/b/a in 403.5ms, after 6 retries, "
        "max_retries: 6, retry_timeout: 15s  - Server returned non-2xx status code: 503 Slow Down",
        "the server is too busy",
    ),
    (
        "Generic S3 error: Error performing GET https://h/b/a in 2.9s, after 6 retries - HTTP "
        "error: error sending request Debug source: kind: Connect, InvalidContentType",
        "no secure connection",
    ),
    (
        "Generic S3 error: Error performing GET http://h/b/a in 503ms, retry_timeout: 15s - HTTP "
        "error: error sending request Debug source: kind: Connect, connection closed",
        "the connection failed",
    ),
    (
        "Generic S3 error: Error performing GET http://h/b/a in 15s - HTTP error: error sending "
        "request Debug source: kind: Timeout, source: TimedOut",
        "no answer in time",
    ),
]


def told(error: Exception, where: str = "s3://bucket/x", key: str = "key") -> str:
    """The line that an error becomes."""
    with pytest.raises(StoreError) as found, remote_errors(where, key):
        raise error
    return str(found.value)


@pytest.mark.parametrize(("text", "said"), SAID)
def test_what_is_told_is_what_it_means(text: str, said: str) -> None:
    line = told(GenericError(text))
    assert line.startswith(f"s3://bucket/x/key: {said}")
    assert "\n" not in line


def test_words_that_nobody_knows_are_shown() -> None:
    line = told(GenericError("The moon is full\n\nDebug source:\nGeneric { moon: full }"))
    assert line == "s3://bucket/x/key: GenericError: The moon is full; check the address"


def test_a_cause_is_read_as_well() -> None:
    error = GenericError("it did not work")
    error.__cause__ = OSError("[Errno -2] Name or service not known")
    assert "no such host" in told(error)


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError("x"), OSError(28, "disk is full")])
def test_bugs_and_disks_are_left_alone(bug: Exception) -> None:
    with pytest.raises(type(bug)) as raised, server_errors("s3://b"):
        raise bug
    assert raised.value is bug


def test_an_object_that_is_not_there_is_no_bucket_that_is_not() -> None:
    check_absent(FileNotFoundError("Object at location x not found: NoSuchKey"), "s3://b")
    with pytest.raises(StoreError, match="no such bucket"):
        check_absent(FileNotFoundError("x not found: <Code>NoSuchBucket</Code>"), "s3://b")
