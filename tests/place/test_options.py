"""Options of storage: told once, understood in the words of obstore and of fsspec, never shown."""

from __future__ import annotations

import inspect
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from support.pages import read_table, ticked
from taqstore.errors import MisuseError
from taqstore.place.remote.known_options import SERVICES
from taqstore.place.remote.options import (
    ambient,
    settings_of,
    storage,
    takes_storage_options,
    without_secrets,
)

SECRET = "s3cr3t-value"
# Parameters that are addresses of stores or of outputs.
ADDRESSES = {"address", "store", "out", "out_dir", "path"}


def asked(scheme: str = "s3", **options: Any) -> Any:
    return settings_of(scheme, options, where=f"{scheme}://bucket/x")


@pytest.mark.parametrize(
    ("scheme", "theirs", "ours"),
    [
        ("s3", {"key": "a", "secret": "b", "token": "c"}, ("access_key_id", "a")),
        ("s3", {"endpoint_url": "https://h"}, ("endpoint", "https://h")),
        ("s3", {"client_kwargs": {"endpoint_url": "https://h"}}, ("endpoint", "https://h")),
        ("s3", {"client_kwargs": '{"region_name": "eu"}'}, ("region", "eu")),
        ("s3", {"anon": True}, ("skip_signature", True)),
        ("s3", {"anon": "false"}, ("skip_signature", False)),
        ("gs", {"token": "anon"}, ("skip_signature", True)),
        ("gs", {"token": "/key.json"}, ("application_credentials", "/key.json")),
        ("az", {"sas_token": "sv=1"}, ("sas_key", "sv=1")),
        (
            "abfs",
            {"connection_string": "AccountName=n;AccountKey=ab=="},
            ("account_key", "ab=="),
        ),
    ],
)
def test_words_of_fsspec_are_words_of_obstore(
    scheme: str, theirs: dict[str, Any], ours: tuple[str, Any]
) -> None:
    assert asked(scheme, **theirs).config[ours[0]] == ours[1]


def test_connections_and_retries_are_bounded_and_can_be_told() -> None:
    usual = asked()
    assert usual.client["connect_timeout"] <= timedelta(seconds=5)
    assert usual.retry["retry_timeout"] <= timedelta(seconds=20)
    told = asked(connect_timeout="2.5", max_retries=1, retry_timeout=3, allow_http="yes")
    assert told.client["connect_timeout"] == timedelta(seconds=2.5)
    assert told.client["allow_http"] is True
    assert (told.retry["max_retries"], told.retry["retry_timeout"]) == (1, timedelta(seconds=3))


def test_plain_http_is_allowed_where_the_endpoint_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert "allow_http" not in asked().client
    assert asked(endpoint="http://127.0.0.1:1").client["allow_http"] is True
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert asked().client["allow_http"] is True


@pytest.mark.parametrize("scheme", [scheme for row in SERVICES for scheme in row.schemes])
def test_what_is_not_known_is_refused_by_what_was_meant(scheme: str) -> None:
    name = "skip_signatur"
    with pytest.raises(MisuseError, match="did you mean skip_signature") as told:
        asked(scheme, **{name: SECRET})
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "options",
    [
        {"client_kwargs": {"endpoint": "x"}},
        {"client_kwargs": "no json"},
        {"anon": "perhaps"},
        {"max_retries": "many"},
        {"retry_timeout": -1},
        {"key": ["a"]},
    ],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match="s3://bucket/x: "):
        asked(**options)


def test_settings_show_no_credentials() -> None:
    assert SECRET not in repr(asked(secret=SECRET))


def test_options_hold_while_a_function_runs() -> None:
    @takes_storage_options
    def inside(*, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
        return dict(ambient())

    assert inside() == {}
    assert inside(storage_options={"region": "eu"}) == {"region": "eu"}
    with storage({"region": "us"}):
        assert inside() == {"region": "us"}
        assert inside(storage_options={}) == {}
    assert ambient() == {}
    with pytest.raises(MisuseError, match="map names to values"):
        inside(storage_options="region=eu")  # type: ignore[arg-type]


def test_every_public_function_with_an_address_takes_them() -> None:
    lacking = []
    for module, names in read_table("docs/architecture.md", "public names"):
        for name in ticked(names.partition("; rooms ")[0]):
            made = getattr(import_module(ticked(module)[0]), name)
            if not inspect.isfunction(made) or made.__module__.startswith("taqstore.testing"):
                continue
            found = inspect.signature(made).parameters
            paths = [
                p
                for n, p in found.items()
                if n in ADDRESSES and ("PathLike" in str(p) or "Address" in str(p))
            ]
            if paths and "storage_options" not in found:
                lacking.append(f"{made.__module__}.{name}")
    assert lacking == []


def test_a_command_line_is_shown_without_its_secrets() -> None:
    words = [
        "info",
        "x",
        "--storage-option",
        f"secret={SECRET}",
        f"--storage-option=token={SECRET}",
    ]
    shown = without_secrets(words)
    assert SECRET not in " ".join(shown)
    assert shown[:4] == ["info", "x", "--storage-option", "secret=..."]
