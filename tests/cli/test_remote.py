"""Commands on a bucket: stores read and written, outputs put whole, refusals of one line."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from support.addressed import contents, make_folder, put
from support.cli_runner import Result, Runner
from support.docs_tables import command_of, every_command
from support.s3_server import EXPIRED, S3Server
from taqstore.cli.storage import ADDRESS
from taqstore.place.location import Location
from taqstore.place.object_backend import ObjectBackend
from taqstore.place.remote.options import WORD

SECRET = "s3cr3t-value"
GROUP = "activations/mlp.fc2"
# What a request that is never answered well may take: see `retry_timeout`.
QUICK = (WORD, "max_retries=1", WORD, "retry_timeout=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("remote"))


@pytest.fixture
def store(folder: Path, bucket: str) -> str:
    put(folder, f"{bucket}/run.zarr")
    return f"{bucket}/run.zarr"


def there(address: str) -> dict[str, int]:
    """Names directly below an address, and their bytes."""
    return Location.parse(address).backend().sizes("")


def read(address: str) -> bytes:
    above, _, name = address.rpartition("/")
    content = Location.parse(above).backend().read(name)
    assert content is not None, address
    return content


def one_line(done: Result, *said: str, code: int = 1) -> None:
    assert done.code == code, done
    assert "Traceback" not in done.err
    last = done.err.strip().splitlines()[-1]
    assert all(word in last for word in said), done.err
    assert SECRET not in done.out + done.err


def test_every_command_with_an_address_takes_storage_options() -> None:
    asked = 0
    for words in every_command():
        command = command_of(*words)
        if isinstance(command, click.Group):
            continue
        named = any(getattr(p.type, ADDRESS, False) for p in command.params)
        options = [p for p in command.params if WORD in p.opts]
        assert len(options) == named, words
        asked += named
    assert asked > 40


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("analyze", "scales", "{}", "--site", "mlp.fc2", "-o"), "scales.csv"),
        (("query", "{}", GROUP, "max", "-o"), "max.nc"),
        (("query", "{}", GROUP, "max", "-o"), "max.zarr"),
        (("export", "quant-config", "{}", "--allow-incomplete", "-o"), "deep/quant_config.json"),
        (("diff", "{}", "{}", "-o"), "moved.csv"),
    ],
)
def test_an_output_in_a_bucket_is_that_of_a_local_path(
    taq: Runner, folder: Path, bucket: str, tmp_path: Path, words: tuple[str], name: str
) -> None:
    here, far = tmp_path / "out" / name, f"{bucket}/out/{name}"
    local = taq(*(word.format(folder) for word in words), here)
    assert local.code == 0, local.err
    remote = taq(*(word.format(folder) for word in words), far)
    assert remote.code == 0, remote.err
    assert f"wrote {far}" in remote.err
    if here.is_dir():
        backend = Location.parse(far).backend()
        assert {key: backend.read(key) for key in contents(here)} == contents(here)
    elif here.suffix != ".nc":  # HDF5 keeps times
        assert read(far) == here.read_bytes()
    again = taq(*(word.format(folder) for word in words), far)
    one_line(again, far, "the target exists", "--force")
    forced = taq(*(word.format(folder) for word in words), far, "--force")
    assert forced.code == 0, forced.err
    assert f"replaced {far}: " in forced.err


def test_pictures_go_to_a_bucket(taq: Runner, folder: Path, bucket: str) -> None:
    done = taq("plot", "heatmap", folder, "--group", GROUP, "-o", f"{bucket}/plots")
    assert done.code == 0, done.err
    named = [line.removeprefix(f"{bucket}/plots/") for line in done.out.splitlines()]
    assert sorted(named) == sorted(there(f"{bucket}/plots"))
    assert read(f"{bucket}/plots/{named[0]}").startswith(b"\x89PNG")


def test_outputs_spare_stores_of_a_bucket(taq: Runner, store: str, bucket: str) -> None:
    ask = ("query", store, GROUP, "max", "-o")
    before = there(store)
    one_line(taq(*ask, f"{store}/max.csv"), "lies in a store (found run.zarr)")
    one_line(taq(*ask, store, "--force"), "is a store (found run.zarr)")
    put_above = taq("plot", "heatmap", store, "-o", f"{bucket}")
    one_line(put_above, "names no file in a bucket")
    assert there(store) == before


def test_what_stands_in_a_bucket_and_is_of_another_kind_is_kept(
    taq: Runner, store: str, bucket: str
) -> None:
    backend = Location.parse(bucket).backend(read_only=False)
    backend.write("kept.zarr/notes.txt", [b"mine"])
    backend.write("file.zarr", [b"mine"])
    ask = ("query", store, GROUP, "max", "--force", "-o")
    one_line(taq(*ask, f"{bucket}/kept.zarr"), "not an earlier output", "notes.txt")
    one_line(taq(*ask, f"{bucket}/file.zarr"), "not a folder")
    backend.write("folder.csv/x", [b"mine"])
    one_line(taq(*ask, f"{bucket}/folder.csv"), "not a file")
    assert backend.read("kept.zarr/notes.txt") == backend.read("folder.csv/x") == b"mine"


def test_an_output_that_fails_leaves_what_stood_there(
    taq: Runner, store: str, bucket: str, s3: S3Server
) -> None:
    far = f"{bucket}/max.csv"
    assert taq("query", store, GROUP, "max", "-o", far).code == 0
    before = read(far)
    with s3.fault(status=403, code="AccessDenied", what="PUT", key="max.csv"):
        done = taq("query", store, GROUP, "min", "-o", far, "--force")
    one_line(done, "access is denied", "AccessDenied")
    assert read(far) == before


READS = ("info", "{}")
WRITES = ("ingest", "{run}", "{}")
FAULTS = {
    "AccessDenied": ({"status": 403, "code": "AccessDenied"}, "access is denied"),
    "ExpiredToken": (EXPIRED, "the credentials have expired"),
    "SignatureDoesNotMatch": (
        {"status": 403, "code": "SignatureDoesNotMatch"},
        "the credentials are not those of this server",
    ),
    "SlowDown": ({"status": 503, "code": "SlowDown"}, "the server is too busy"),
    "InternalError": ({"status": 500, "code": "InternalError"}, "the server failed"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from taqstore.testing import RunShape, make_latents

    place = tmp_path_factory.mktemp("run")
    make_latents(place, shape=RunShape(images=1, steps=2, blocks=1))
    return place


@pytest.mark.parametrize("words", [READS, WRITES])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_refuses_is_one_line(
    taq: Runner,
    s3: S3Server,
    store: str,
    bucket: str,
    run: Path,
    words: tuple[str, ...],
    fault: str,
) -> None:
    how, said = FAULTS[fault]
    address = store if words is READS else f"{bucket}/new.zarr"
    with s3.fault(**how):
        done = taq(*(word.format(address, run=run) for word in words), *QUICK)
    one_line(done, bucket, address.rpartition("/")[2], said, fault)


@pytest.mark.parametrize("words", [READS, WRITES])
@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("{closed}", "nothing listens there"),
        ("http://no-such-host.invalid", "no such host"),
        ("nonsense", "the endpoint is no address of a server"),
    ],
)
def test_a_server_that_is_not_there_is_one_line(
    taq: Runner,
    closed_port: str,
    bucket: str,
    run: Path,
    words: tuple[str, ...],
    endpoint: str,
    said: str,
) -> None:
    place = endpoint.format(closed=closed_port)
    address = f"{bucket}/new.zarr"
    asked = [word.format(address, run=run) for word in words]
    done = taq(*asked, *QUICK, WORD, f"endpoint={place}", WORD, f"secret={SECRET}")
    one_line(done, bucket, "new.zarr", said, code=2 if endpoint == "nonsense" else 1)


@pytest.mark.parametrize("words", [READS, WRITES])
def test_a_bucket_that_is_not_there_is_one_line(
    taq: Runner, bucket: str, run: Path, words: tuple[str, ...]
) -> None:
    done = taq(*(word.format("s3://no-such-bucket/x.zarr", run=run) for word in words))
    one_line(done, "s3://no-such-bucket", "no such bucket", "NoSuchBucket")


def test_a_place_without_a_store_is_told_from_a_place_that_is_not(taq: Runner, bucket: str) -> None:
    one_line(taq("info", f"{bucket}/x.zarr"), "no store here")


@pytest.mark.parametrize(
    ("package", "address"),
    [("obstore.store", "s3://bucket/x"), ("aiohttp", "http://127.0.0.1:1/x")],
)
def test_what_is_not_installed_is_named(
    taq: Runner, monkeypatch: pytest.MonkeyPatch, bucket: str, package: str, address: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.setattr(import_module("fsspec.registry"), "_registry", {})
    done = taq("info", address)
    one_line(done, package.partition(".")[0], "pip install 'taqstore[remote]'")


def test_options_are_checked_before_anything_is_asked(taq: Runner, bucket: str) -> None:
    one_line(taq("info", f"{bucket}/x", WORD, "regionn=eu"), "did you mean region?", code=2)
    one_line(taq("info", f"{bucket}/x", WORD, SECRET), "is a name and a value", code=2)
    twice = taq("info", f"{bucket}/x", WORD, "region=eu", WORD, "region=us")
    one_line(twice, "region is given twice", code=2)
    one_line(taq("info", f"{bucket}/x", WORD, "anon=perhaps"), "is true or false", code=2)


def test_no_secret_is_recorded(
    taq: Runner, s3: S3Server, bucket: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server takes any.
    options = {"secret_access_key": "", **s3.options()} | {"secret_access_key": SECRET}
    for name in s3.environment():
        monkeypatch.delenv(name)
    pairs = [word for name, value in options.items() for word in (WORD, f"{name}={value}")]
    words = ["ingest", *pairs, run, f"{bucket}/new.zarr"]
    # What a process says of itself, in locks and claims, is its own command line.
    monkeypatch.setattr(sys, "argv", ["taqstore", *map(str, words)])
    done = taq(*words)
    assert done.code == 0, done.err
    shown = taq("info", f"{bucket}/new.zarr", "--json", *pairs)
    assert json.loads(shown.out)["store"] == f"{bucket}/new.zarr"
    everything = Location.parse(bucket, options).backend()
    assert isinstance(everything, ObjectBackend)
    objects = everything.objects.get_many(everything.objects.below(""))
    assert any(found and b"taqstore ingest" in found[0] for found in objects.values())
    for key, found in objects.items():
        assert found, key
        assert SECRET.encode() not in found[0], key
    assert SECRET not in done.out + done.err + shown.out + shown.err
