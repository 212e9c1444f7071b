"""Documents of a store are the bytes of `json.dumps(indent=2)`, however they are made."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taqstore.metadata.sealed import encoded

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.builds(
        lambda sign, digits, power: sign * digits * 10.0**power,
        st.sampled_from([1, -1]),
        st.integers(0, 10**17),
        st.integers(-30, 25),
    ),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(), st.sampled_from(["1e5", "a\x7f"]))
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


@given(st.dictionaries(st.text(), values))
def test_bytes_are_those_of_json(document: dict[str, Any]) -> None:
    assert encoded(document) == json.dumps(document, indent=2).encode()


@pytest.mark.parametrize("power", range(-8, 24))
@pytest.mark.parametrize("digits", [1.0, -1.5, 1.2345678901234567])
def test_floats_around_the_exponents(power: int, digits: float) -> None:
    for number in (digits * 10.0**power, math.nextafter(digits * 10.0**power, 0)):
        for document in ({"a": number}, {"a": [number, 1]}, {"a": {"b": number}, "c": number}):
            assert encoded(document) == json.dumps(document, indent=2).encode()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        encoded({"a": value})
