"""The OpenAPI document, made from the table of endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from taqstore.analysis.shared.option import Option
from taqstore.plot.figures import FORMATS
from taqstore.serve.api.parameters import LONGEST, needed
from taqstore.serve.api.table import ENDPOINTS
from taqstore.serve.http.endpoint import Endpoint
from taqstore.serve.http.formats import FORMS
from taqstore.version import __version__

Schema = dict[str, Any]

_BRACES = re.compile(r"\{(\w+)(:path)?\}")
_STORES = ("store", "other")
_ABOUT = (
    "A store of taqstore over HTTP, read-only. Every answer says the command line and the Python "
    "that give the same numbers. Options are those of the command, by the same names. Tables are "
    "JSON, CSV, Parquet or Arrow, by Accept or by a suffix of the address (.json, .csv, .parquet, "
    '.arrow). Answers have an ETag; what cannot be answered is one line, {"error": ...}. Not '
    "offered: files of the server as options (weights of a model, a base checkpoint), formats that "
    "complete a checkpoint (mlx, comfy-w4a8), and NetCDF; the tree of Zarr itself is below /zarr."
)
_REFUSED = {
    "400": "What was asked for makes no sense.",
    "401": "A token is needed.",
    "403": "The service is not called by this name.",
    "404": "It is not there.",
    "406": "None of the formats that are accepted can be given.",
    "413": "The answer would be too large.",
    "414": "The address is too long.",
    "422": "The data cannot answer it.",
    "503": "The store cannot be read now, or too much is asked for at once.",
    "504": "It takes too long.",
}


def document(stores: Sequence[str], endpoints: Iterable[Endpoint] = ENDPOINTS) -> Schema:
    """The document for stores of these names."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "taqstore", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": {f"/api{address(one)}": {"get": _operation(one, stores)} for one in endpoints},
        "components": {
            "schemas": {
                "Error": _object({"error": {"type": "string"}}),
                "Document": {"type": "object"},
                "Tables": _tables(),
            },
            "responses": {
                status: {
                    "description": text,
                    "content": {"application/json": {"schema": _ref("schemas", "Error")}},
                }
                for status, text in _REFUSED.items()
            },
        },
    }


def address(endpoint: Endpoint) -> str:
    """The path as OpenAPI writes it."""
    return _BRACES.sub(r"{\1}", endpoint.path)


def _operation(endpoint: Endpoint, stores: Sequence[str]) -> Schema:
    must = needed(endpoint)
    return {
        "summary": endpoint.doc,
        "operationId": re.sub(r"\W+", "-", address(endpoint)).strip("-") or "index",
        "tags": [section(endpoint)],
        "parameters": [
            *(_path_parameter(name, stores) for name, _ in _BRACES.findall(endpoint.path)),
            *(_parameter(option, stores, option in must) for option in endpoint.options),
        ],
        "responses": {
            "200": {"description": endpoint.doc, "content": _content(endpoint)},
            "304": {"description": "It is as it was when the ETag was given."},
            **{status: _ref("responses", status) for status in _REFUSED},
        },
    }


def section(endpoint: Endpoint) -> str:
    """What an endpoint belongs to: the word behind the store."""
    words = re.findall(r"/(\w+)", endpoint.path)
    return words[1] if len(words) > 1 else "about"


def _content(endpoint: Endpoint) -> Schema:
    if endpoint.answers == "tables":
        json, *others = FORMS
        return {json.media_type: {"schema": _ref("schemas", "Tables")},
                **{form.media_type: {} for form in others}}  # fmt: skip
    if endpoint.answers == "file":
        return {"*/*": {}}
    return {"application/json": {"schema": _ref("schemas", "Document")}}


def _path_parameter(name: str, stores: Sequence[str]) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1}
    if name in _STORES:
        schema["enum"] = list(stores)
    elif name == "format":
        schema["enum"] = [*FORMATS, "csv", "zip"]
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _parameter(option: Option, stores: Sequence[str], must: bool) -> Schema:
    schema = schema_of(option)
    if option.name in _STORES:
        schema = {"type": "string", "enum": list(stores)}
    more = {"style": "form", "explode": True} if option.many else {}
    return {"name": option.parameter, "in": "query", "required": must, "schema": schema,
            "description": described(option), **more}  # fmt: skip


def described(option: Option) -> str:
    """The help of an option; of weights, what is offered of them here."""
    if option.type == "weights":
        return "Weight set of the store [default: the only one]."
    return option.text


def schema_of(option: Option) -> Schema:
    """JSON Schema of the values of an option."""
    schema: Schema = {"type": "string", "maxLength": LONGEST}
    if option.type == "integers":
        words = "|".join(map(re.escape, option.words))
        schema = {"type": "string", "pattern": rf"^(\d+(,\d+)*{'|' * bool(words)}{words})$"}
    elif option.type is bool:
        schema = {"type": "boolean"}
    elif option.type in (int, float):
        schema = {"type": "integer" if option.type is int else "number", **dict(_range(option))}
    elif option.words:
        schema = {"type": "string", "enum": list(option.words)}
    default = list(option.default) if option.many else option.default
    told = {"default": default} if default not in (None, []) else {}
    return {"type": "array", "items": schema, **told} if option.many else {**schema, **told}


def _range(option: Option) -> Iterator[tuple[str, float]]:
    if option.least is not None:
        yield ("exclusiveMinimum" if option.above else "minimum"), option.least
    if option.most is not None:
        yield ("exclusiveMaximum" if option.below else "maximum"), option.most


def _tables() -> Schema:
    cell = {"type": ["string", "number", "boolean", "null"]}
    table = _object(
        {
            "dims": {"type": "array", "items": {"type": "string"}},
            "dtypes": {"type": "object", "additionalProperties": {"type": "string"}},
            "rows": {"type": "array", "items": {"type": "object", "additionalProperties": cell}},
        }
    )
    return _object(
        {
            "tables": {"type": "array", "items": table},
            "notes": {"type": "array", "items": {"type": "string"}},
            "cli": {"type": "string"},
            "python": {"type": "string"},
        }
    )


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}
