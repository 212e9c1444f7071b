"""The OpenAPI document and its page are made of the table, whole, and fetch nothing elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from taqstore.analysis import ANALYSES
from taqstore.serve.api.openapi import document
from taqstore.serve.api.table import ENDPOINTS

VOID = {"meta", "link", "br", "hr"}


@pytest.fixture(scope="module")
def made(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/openapi.json").json()
    return found


def test_it_is_openapi(made: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(made, cls=validator.OpenAPIV31SpecValidator)


def test_it_has_every_endpoint_with_every_option(made: dict[str, Any]) -> None:
    assert len(made["paths"]) == len(ENDPOINTS)
    for endpoint in ENDPOINTS:
        path = f"/api{endpoint.path}".replace(":path}", "}")
        told = made["paths"][path]["get"]["parameters"]
        queries = [one["name"] for one in told if one["in"] == "query"]
        assert queries == [option.parameter for option in endpoint.options]
        assert {one["name"] for one in told if one["in"] == "path"} == set(
            re.findall(r"{(\w+)}", path)
        )
    names = [one["get"]["operationId"] for one in made["paths"].values()]
    assert len(set(names)) == len(names)


def test_schemas_say_what_options_may_be() -> None:
    told = document(["a", "b"])["paths"]["/api/stores/{store}/analyze/scales"]["get"]
    schemas = {one["name"]: one["schema"] for one in told["parameters"]}
    assert schemas["store"]["enum"] == ["a", "b"]
    assert schemas["bits"] == {"type": "integer", "minimum": 2, "maximum": 16, "default": 8}
    assert "mse" in schemas["clip"]["enum"]
    assert schemas["symmetric"] == {"type": "boolean", "default": True}
    assert schemas["momentum"]["exclusiveMaximum"] == 1
    assert schemas["site"]["type"] == "array"
    for text, is_one in (("static", True), ("2,14", True), ("2,", False), ("", False)):
        assert (re.fullmatch(schemas["cuts"]["pattern"], text) is not None) is is_one


@pytest.mark.parametrize("address", ["", "/stores", "/stores/run.zarr/analyze/scales?site=mlp.fc2"])
def test_answers_are_as_their_schemas_say(
    address: str, made: dict[str, Any], client: TestClient
) -> None:
    answer = client.get(f"/api{address}").json()
    schemas = made["components"]["schemas"]
    name = "Tables" if "tables" in answer else "Document"
    Draft202012Validator({**schemas[name], "components": made["components"]}).validate(answer)
    refused = client.get("/api/stores/none").json()
    Draft202012Validator(schemas["Error"]).validate(refused)


class Page(HTMLParser):
    """Tags in order, links, text; what is opened and never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on") or name == "style"]
        self.links += [str(values[name]) for name in ("href", "src") if name in values]
        self.names |= {str(values["id"])} if "id" in values else set()


def test_the_page_shows_all_and_links_to_answers(client: TestClient) -> None:
    answer = client.get("/api/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page()
    page.feed(answer.text)
    assert {"main", "header", "nav", "h1", "details", "table"} <= set(page.tags)
    assert not {"script", "style", "iframe", "form"} & set(page.tags)
    outside = [link for link in page.links if re.match(r"[a-z+]+:|//", link)]
    assert outside == ["data:,"]
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.names
    for endpoint in ENDPOINTS:
        assert f"<code>/api{endpoint.path.replace(':path}', '}')}</code>" in answer.text
    for row in ANALYSES.values():
        assert row.doc.split("<")[0].split("&")[0].split("'")[0] in answer.text
    light = {"/api", "/api/stores", "/api/stores/run.zarr/groups", "/api/openapi.json"}
    assert light <= set(page.links)
    assert {client.get(link).status_code for link in light} == {200}


def test_hostile_names_are_text(client: TestClient) -> None:
    from taqstore.serve.api.page import page

    found = page(["<img src=x onerror=alert(1)>\"'&"])
    parsed = Page()
    parsed.feed(found)
    assert "img" not in parsed.tags


def test_the_style_knows_the_dark_and_small_screens(client: TestClient) -> None:
    style = client.get("/api/docs.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert "prefers-color-scheme: dark" in style.text
    assert "url(" not in style.text
    assert "@import" not in style.text
