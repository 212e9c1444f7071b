"""The same store at every kind of address: read alike, and written where it can be."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, ZipStore

from support.addressed import contents, make_folder, put, web_server, zipped
from support.builders import write_latents
from support.s3_server import S3Server
from taqstore import create_store, open_store
from taqstore.errors import MisuseError, StoreError, TaqError
from taqstore.place.location import Location
from taqstore.upkeep import verify_store

GROUP = "activations/mlp.fc2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("addressed"))


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with web_server(folder.parent) as address:
        yield address


def memory_store(folder: Path) -> MemoryStore:
    made = MemoryStore()
    put(folder, made)
    return made


def obstore_folder(folder: Path) -> ObjectStore[Any]:
    from obstore.store import LocalStore as Client

    return ObjectStore(Client(folder))


def obstore_memory(folder: Path) -> ObjectStore[Any]:
    from obstore.store import MemoryStore as Client

    made = ObjectStore(Client())
    put(folder, made)
    return made


GIVEN: dict[str, Callable[[Path], Any]] = {
    "MemoryStore": memory_store,
    "LocalStore": LocalStore,
    "ObjectStore of a folder": obstore_folder,
    "ObjectStore in memory": obstore_memory,
    "FsspecStore": lambda folder: FsspecStore.from_url(f"file://{folder}", read_only=True),
    "file://": lambda folder: f"file://{folder}",
}


def check_same(folder: Path, address: Any) -> None:
    """What stands there is read as the folder is, and found whole."""
    wanted, found = open_store(folder), open_store(address)
    assert list(found) == list(wanted)
    assert found.digest == wanted.digest
    xr.testing.assert_identical(found[GROUP].load(), wanted[GROUP].load())
    assert not verify_store(address).damage


@pytest.mark.parametrize("kind", GIVEN)
def test_storage_objects_of_zarr_are_addresses(folder: Path, kind: str) -> None:
    check_same(folder, GIVEN[kind](folder))


@pytest.mark.parametrize("nested", [False, True])
def test_a_zip_file_is_a_store_to_read(folder: Path, tmp_path: Path, nested: bool) -> None:
    file = zipped(folder, tmp_path / "run.zip", nested=nested)
    check_same(folder, file)
    kept = pickle.loads(pickle.dumps(Location.parse(file).zarr_store(read_only=True)))
    assert Location.parse(kept).backend().read("zarr.json") == contents(folder)["zarr.json"]
    kept.close()
    with pytest.raises(StoreError, match=r"run\.zip: a zip file can only be read; write to a"):
        create_store(file)


def test_a_zip_store_of_zarr_that_is_not_open_yet_is_opened(folder: Path, tmp_path: Path) -> None:
    with ZipStore(zipped(folder, tmp_path / "run.zip", nested=False), mode="r") as given:
        check_same(folder, given)


def test_what_is_no_zip_file_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "run.zip"
    with pytest.raises(StoreError, match="no such file"):
        open_store(file)
    file.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(StoreError, match="not a whole zip file"):
        open_store(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zarr.json", b"0" * 1000)
    content = bytearray(file.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = (1 << 31).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(StoreError, match="claims 2147483648 bytes"):
        open_store(file)


def test_a_folder_may_be_called_zip(folder: Path, tmp_path: Path) -> None:
    create_store(tmp_path / "run.zip" / "x").finish()
    place = tmp_path / "store.zip"
    place.mkdir()
    create_store(place).finish()
    assert list(open_store(place)) == []


def test_a_web_server_that_lists_its_folders_is_read(folder: Path, web: str) -> None:
    address = f"{web}/{folder.name}"
    check_same(folder, address)
    with pytest.raises(StoreError, match="http:// can only be read"):
        create_store(address)


def test_a_web_server_that_lists_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    write_latents(tmp_path / "open.zarr", [0, 1], only=[0])
    with web_server(tmp_path, lists=False) as address:
        opened = open_store(f"{address}/open.zarr")
        with pytest.raises(StoreError, match="does not list its folders"):
            opened["latents"].load()
    # Of a group of which all is closed no listing is needed.
    with web_server(folder.parent, lists=False) as address:
        assert open_store(f"{address}/{folder.name}")[GROUP].load().sizes


def test_a_zip_file_behind_a_url_is_read(folder: Path, web: str, bucket: str) -> None:
    file = zipped(folder, folder.parent / "nested.zip", nested=True)
    check_same(folder, f"{web}/nested.zip")
    Location.parse(bucket).backend(read_only=False).write("far/run.zip", [file.read_bytes()])
    check_same(folder, f"{bucket}/far/run.zip")


def test_a_bucket_is_read_with_options_in_both_spellings(
    folder: Path, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, f"{bucket}/my run 100%.zarr")
    for name in s3.environment():
        monkeypatch.delenv(name)
    theirs = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": s3.url, "region_name": "us-east-1"},
    }
    for options in (s3.options(), theirs):
        found = open_store(f"{bucket}/my run 100%.zarr", storage_options=options)
        xr.testing.assert_identical(found[GROUP].load(), open_store(folder)[GROUP].load())
        assert "testing" not in repr(found.location)


def test_a_profile_is_read_from_the_file_of_aws(
    folder: Path, s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, f"{bucket}/run.zarr")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(StoreError, match="no credentials were found"):
        open_store(f"{bucket}/run.zarr")
    text = "[other]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
    (tmp_path / "credentials").write_text(text)
    found = open_store(f"{bucket}/run.zarr", storage_options={"profile": "other"})
    assert GROUP in found
    with pytest.raises(MisuseError, match=r"profile \(third\) could not be found"):
        open_store(f"{bucket}/run.zarr", storage_options={"profile": "third"})


def test_a_storage_object_that_can_only_be_read_is_not_written(
    folder: Path, s3: S3Server, bucket: str
) -> None:
    put(folder, f"{bucket}/run.zarr")
    given = Location.parse(f"{bucket}/run.zarr").zarr_store(read_only=True)
    check_same(folder, given)
    with pytest.raises(StoreError, match="can only be read"):
        create_store(given)


def test_a_new_store_lies_in_no_other_one(folder: Path, bucket: str) -> None:
    put(folder, f"{bucket}/run.zarr")
    with pytest.raises(TaqError, match=r"lies in a store \(found run\.zarr\)"):
        create_store(f"{bucket}/run.zarr/latents/x.zarr")
    create_store(f"{bucket}/runs/other.zarr").finish()
    with pytest.raises(StoreError, match="not empty"):
        create_store(f"{bucket}/runs")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s33://bucket/x", "no kind of place is called 's33'; did you mean s3://"),
        ("https://me:word@host/x", r"https://\.\.\.@host: an address with a password"),
        ("s3://", "no bucket is named"),
    ],
)
def test_addresses_that_lead_nowhere_are_refused(address: str, said: str) -> None:
    with pytest.raises(TaqError, match=said) as told:
        open_store(address)
    assert "word@" not in str(told.value)
