"""The npz reader gives what NumPy wrote, bit for bit, and refuses everything that is not whole."""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from support.source_runs import one_line
from taqstore.errors import SourceError
from taqstore.files.npy import read_npy
from taqstore.files.npz import NpzFile

RNG = np.random.default_rng(7)
ARRAYS = {
    "f8": RNG.normal(size=(3, 5)),
    "f2": RNG.normal(size=(2, 4, 1, 3)).astype(np.float16),
    "big_endian": np.arange(5, dtype=">i4"),
    "scalar": np.float32(0.1),
    "flag": np.bool_(True),
    "empty": np.zeros((0, 3), np.float32),
    "zeros": np.zeros((300, 1000), np.float32),
    "noise": RNG.integers(0, 256, (1500, 1000), dtype=np.uint8),
    "text": np.array(["a", "über"]),
    "mm_00_img::t=8.929688::mean": np.arange(3.0),
}


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "deflated"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    request.param(path, **ARRAYS)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.npz"
    np.savez_compressed(path, x=np.arange(50.0), y=np.arange(7, dtype=np.int32))
    return path


def refused(path: Path, key: str = "x") -> str:
    with pytest.raises(SourceError) as caught:
        NpzFile(path).read(key)
    assert path.name in str(caught.value)
    return one_line(str(caught.value))


def npy(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def patched(path: Path, signature: bytes, offset: int, value: bytes) -> None:
    """Overwrite a field of the last record that starts with `signature`."""
    data = bytearray(path.read_bytes())
    at = data.rindex(signature) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)


def test_every_array_comes_back_bit_for_bit(archive: Path) -> None:
    file = NpzFile(archive)
    assert file.names == tuple(ARRAYS)
    with file:
        for key, expected in ARRAYS.items():
            array = file.read(key)
            native = expected.astype(expected.dtype.newbyteorder("="))
            assert array.dtype == native.dtype
            assert array.shape == expected.shape
            assert array.tobytes() == native.tobytes()
            assert file.header(key).shape == expected.shape


@pytest.mark.parametrize("count", [1, 7, 299, 5000])
@pytest.mark.parametrize("key", ["f8", "zeros", "noise"])
def test_rows_are_the_array_in_blocks(archive: Path, key: str, count: int) -> None:
    blocks = list(NpzFile(archive).rows(key, count))
    assert np.array_equal(np.concatenate(blocks), ARRAYS[key])
    assert all(len(block) == count for block in blocks[:-1])


def test_rows_notice_a_flipped_byte_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=ARRAYS["noise"])
    patched(path, b"PK\x01\x02", -5, b"\x00\x01\x02")
    with pytest.raises(SourceError, match="CRC-32"):
        list(NpzFile(path).rows("x", 100))


def test_same_compares_values_not_streams(tmp_path: Path) -> None:
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    x = np.arange(1000.0)
    np.savez_compressed(one, a=x, b=x, c=x + 1, d=x.astype(np.float32), e=x.reshape(10, 100))
    np.savez(two, a=x)
    file = NpzFile(one)
    assert file.same("a", file, "b")
    assert file.same("a", NpzFile(two), "a")
    assert not any(file.same("a", file, other) for other in "cde")


def test_same_is_not_fooled_by_an_equal_crc(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(4.0), b=np.arange(4.0) + 1)
    file = NpzFile(path)
    crc, size = file.crc("a")
    patched(path, b"PK\x01\x02", 16, struct.pack("<I", crc))
    forged = NpzFile(path)
    assert forged.crc("b") == (crc, size)
    with pytest.raises(SourceError, match="CRC-32"):
        forged.same("a", forged, "b")


def test_threads_share_one_file_and_no_descriptor_is_left(archive: Path) -> None:
    file, failed = NpzFile(archive), []
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None

    def work() -> None:
        for _ in range(20):
            with file:
                if not np.array_equal(file.read("f8"), ARRAYS["f8"]):
                    failed.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1, -30])
def test_truncated(small: Path, cut: int) -> None:
    data = small.read_bytes()
    small.write_bytes(data[:cut])
    assert "write it again" in refused(small)


def test_missing_and_not_a_zip(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.npz")
    path = tmp_path / "text.npz"
    path.write_bytes(b"hello" * 100)
    assert "not a complete npz" in refused(path)


def test_every_flipped_byte_is_noticed_or_harmless(small: Path) -> None:
    data = small.read_bytes()
    expected = np.arange(50.0)
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0x55
        small.write_bytes(damaged)
        try:
            array = NpzFile(small).read("x")
        except SourceError as error:
            one_line(str(error))
        else:
            assert np.array_equal(array, expected)


def test_a_zip_that_claims_terabytes(small: Path) -> None:
    patched(small, b"PK\x01\x02", 24, struct.pack("<I", 0xFFFFFFF0))
    assert "claims 4294967280 bytes" in refused(small, "y")


def test_a_zip64_claim_of_terabytes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"x.npy": npy(np.arange(3.0))})
    claim = struct.pack("<HHQ", 1, 8, 1 << 42)
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02")
    record = bytearray(data[at : data.rindex(b"PK\x05\x06")])
    record[24:28] = b"\xff" * 4
    record[30:32] = struct.pack("<H", len(claim))
    end = bytearray(data[data.rindex(b"PK\x05\x06") :])
    end[12:16] = struct.pack("<I", len(record) + len(claim))
    path.write_bytes(data[:at] + bytes(record) + claim + bytes(end))
    assert "claims 4398046511104 bytes" in refused(path)


def test_a_header_that_claims_more_than_the_member(tmp_path: Path) -> None:
    data = npy(np.zeros(10)).replace(b"(10,)", b"(99,)")
    path = zipped(tmp_path / "a.npz", {"x.npy": data})
    assert "header claims" in refused(path)


def test_a_stream_that_goes_on_is_cut(tmp_path: Path) -> None:
    """A small promised size over a long stream: no more than the promise is inflated."""
    path = zipped(tmp_path / "a.npz", {"x.npy": npy(np.zeros(1 << 16))})
    patched(path, b"PK\x01\x02", 24, struct.pack("<I", 200))
    assert "CRC-32" in refused(path)


def test_shape_and_dtype_are_asked_for_before_inflating(small: Path) -> None:
    file = NpzFile(small)
    with pytest.raises(SourceError, match=r"x: is not float32 \(49,\) \(found float64 \(50,\)\)"):
        file.read("x", dtype=np.dtype(np.float32), shape=(49,))
    with pytest.raises(SourceError, match=r"found float64 \(50,\)"):
        file.read("x", dtype=np.dtype(np.float64), shape=(25, 2))
    with pytest.raises(SourceError, match="no such key"):
        file.read("z")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    flag = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(flag),)

    np.savez(path, x=np.array([Bomb()], dtype=object))
    assert "pickled" in refused(path)
    assert not flag.exists()


@pytest.mark.parametrize("name", ["../x.npy", "a/x.npy", "..\\x.npy", "x", "x.txt", ".npy"])
def test_member_names_that_are_no_keys(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.npz", {name: npy(np.zeros(2))})
    assert "is not an array's name" in refused(path)


def test_a_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", npy(np.zeros(2)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("x.npy", npy(np.ones(2)))
    assert "twice" in refused(path)


def test_encrypted_and_other_compressions(small: Path, tmp_path: Path) -> None:
    path = zipped(tmp_path / "b.npz", {"x.npy": npy(np.zeros(2))}, zipfile.ZIP_BZIP2)
    assert "np.savez_compressed" in refused(path)
    patched(small, b"PK\x01\x02", 8, b"\x01\x00")
    assert "encrypted" in refused(small, "y")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (npy(np.zeros(3)).replace(b"False", b"'no' "), "neither True nor False"),
        (npy(np.zeros(2, [("a", "<f4")])), "structured"),
        (b"not an array at all", "not a .npy"),
        (npy(np.zeros(3)).replace(b"(3,)", b"-3  "), "not a tuple"),
        (npy(np.zeros(3)).replace(b"<f8", b"<f9"), "unknown dtype"),
        (npy(np.zeros(3)).replace(b"'shape'", b"'shope'"), "other fields"),
        (npy(np.zeros(3)).replace(b"{", b"("), "not readable"),
        (npy(np.zeros(3, "<M8[s]")), "not accepted"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 70000, "header claims 65535"),
        (b"\x93NUMPY\x09\x00\x10\x00" + b" " * 100, "not a .npy"),
    ],
)
def test_npy_headers_that_are_refused(tmp_path: Path, data: bytes, says: str) -> None:
    assert says in refused(zipped(tmp_path / "a.npz", {"x.npy": data}))


def test_npy_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, ARRAYS["f8"])
    assert np.array_equal(read_npy(path), ARRAYS["f8"])
    whole = path.read_bytes()
    for damaged, says in ((whole[:-8], "header claims"), (whole + b"x", "header claims")):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match=says):
            read_npy(path)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(SourceError, match="pickled"):
        read_npy(path)
    with pytest.raises(SourceError, match="cannot be read"):
        read_npy(tmp_path / "none.npy")
