"""Addresses lead to names of a store or nowhere."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from taqstore.serve.http.paths import parts_of


@given(st.binary(max_size=40).map(lambda raw: b"/" + raw))
def test_no_part_is_a_way_out(raw: bytes) -> None:
    parts = parts_of(raw)
    if parts is None:
        return
    for part in parts:
        assert part not in (".", "..")
        assert not set(part) & {"/", "\\", "\0"}
    assert all(parts[:-1])
    # Decoded once: what is sent twice encoded stays encoded.
    assert "/".join(parts).encode() == unquote_to_bytes(raw[1:])


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_plain_names_are_themselves(names: list[str]) -> None:
    plain = [
        n for n in names if n.isprintable() and n not in (".", "..") and not set(n) & set("/\\.")
    ]
    from urllib.parse import quote

    raw = b"/" + "/".join(quote(name, safe="") for name in plain).encode()
    assert parts_of(raw) == (tuple(plain) or ("",))
