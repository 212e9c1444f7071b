"""Whatever is asked of the addresses of the OpenAPI document, no answer is a bug."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from taqstore.serve.api.openapi import document

STORES = ["run.zarr", "other.zarr"]
PATHS = document(STORES)["paths"]
SLOW = ("plot", "report", "export")
QUICK = [path for path in PATHS if not any(word in path for word in SLOW)]
GROUPS = ["activations/mlp.fc2", "weights/adaround/mlp.fc2", "sensitivity/linear/rtn-w4",
          "second_moments/mlp.fc2", "activations"]  # fmt: skip
NASTY = [
    *("", " ", "\x00", "..", "../..", "/etc/passwd", "%2e%2e%2f", "a" * 5000, "\u202e", "\ud7ff"),
    *("*", "[", "[!", "0:0:0", "::0", "1:", ":-1", "9" * 400, "-1", "nan", "inf", "1e999", "0x10"),
    *("=", "a=b=c", "step=p101", "step=max", ",", ",,,", "mm0.img,", "{}", "<b>", "'", "\n", "٣"),
    *("1_0", "true", "None", "mm0.img", "mlp.fc2", "0:2", "2"),
]

HARMLESS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Texts of values that a schema allows, or nearly."""
    if "enum" in schema:
        return st.sampled_from([str(one) for one in schema["enum"]])
    if schema["type"] in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -2))
        # Thousands of draws or orders take their time.
        high = min(schema.get("maximum", schema.get("exclusiveMaximum", 20)), max(40, low + 10))
        whole = st.integers(int(low) - 1, int(high) + 1).map(str)
        if schema["type"] == "integer":
            return whole
        return whole | st.floats(low, high).map(repr)
    if schema["type"] == "boolean":
        return st.sampled_from(["true", "false"])
    return st.sampled_from(NASTY) | st.text(max_size=6)


@st.composite
def questions(draw: st.DrawFn, paths: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """An address below /api, and parameters: most as the document says, some as nobody means."""
    path = draw(st.sampled_from(paths))
    parameters = PATHS[path]["get"]["parameters"]
    filled, query = path, []
    for one in parameters:
        name, schema = one["name"], one["schema"]
        if one["in"] == "path":
            known = GROUPS if name == "group" else schema.get("enum", ["png"])
            value = draw(st.sampled_from(known) | st.sampled_from(NASTY[4:]))
            filled = filled.replace(f"{{{name}}}", quote(value, safe="/" * (name == "group")))
            continue
        if draw(st.integers(0, 3)) != 0:
            continue
        wild = draw(st.integers(0, 4)) == 0
        inner = schema.get("items", schema)
        value = draw(st.sampled_from(NASTY) if wild else fitting(inner))
        query += [(name, value)] * draw(st.integers(1, 2))
    suffix = draw(st.sampled_from(["", "", ".csv", ".parquet", ".arrow", ".json"]))
    return filled + suffix, query


def check(client: TestClient, asked: tuple[str, list[tuple[str, str]]]) -> None:
    address, query = asked
    answer = client.get(address, params=query)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        document = answer.json()
        assert list(document) == ["error"]
        assert document["error"].isprintable()
        assert len(document["error"]) <= 2000
    assert b"Traceback" not in answer.content
    assert b"root:x" not in answer.content


@HARMLESS
@given(asked=questions(QUICK))
def test_no_question_is_a_bug(asked: tuple[str, list[tuple[str, str]]], client: TestClient) -> None:
    check(client, asked)


@settings(HARMLESS, max_examples=15)
@given(asked=questions([path for path in PATHS if path not in QUICK]))
def test_no_download_is_a_bug(asked: tuple[str, list[tuple[str, str]]], client: TestClient) -> None:
    check(client, asked)
