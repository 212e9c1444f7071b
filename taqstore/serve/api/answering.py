"""One request answered: its options read, its endpoint asked, the answer written as asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from taqstore.analysis.shared.option import bundled
from taqstore.errors import TaqError
from taqstore.serve.api.parameters import check_needed, read
from taqstore.serve.http import formats
from taqstore.serve.http.documents import written
from taqstore.serve.http.endpoint import Endpoint, File, Tables
from taqstore.serve.http.problems import refused
from taqstore.serve.http.work import Work
from taqstore.serve.served.service import Service
from taqstore.version import __version__

STORES = ("store", "other")
"""Names of what is a store, in paths and among options."""
_AGAIN = "no-cache"  # kept, and asked for again: what is unchanged costs a 304


@dataclass(frozen=True)
class Asked:
    """A request, apart from how it came.

    Parameters
    ----------
    path
        What stood in the braces of the endpoint's path.
    given
        Parameters in order.
    suffix
        Of the address: a word of `formats.FORMS`, or nothing.
    accept, known
        The headers `Accept` and `If-None-Match`.
    """

    path: Mapping[str, str]
    given: tuple[tuple[str, str], ...]
    suffix: str = ""
    accept: str = ""
    known: str = ""

    @property
    def key(self) -> Hashable:
        """What tells it from any other question of the endpoint."""
        return tuple(sorted(self.path.items())), self.given, self.suffix, self.accept, self.known


async def answer(
    service: Service, work: Work, endpoint: Endpoint, request: Request, suffix: str = ""
) -> Response:
    """The answer of an endpoint, or why there is none, as `{"error": ...}` with a status."""
    asked = Asked(
        request.path_params,
        tuple(request.query_params.multi_items()),
        suffix,
        request.headers.get("accept", ""),
        request.headers.get("if-none-match", ""),
    )
    try:
        # What a retry finds is told from other questions; a file goes once it was sent.
        key = None if endpoint.answers == "file" else (endpoint.path, asked.key)
        return await work.run(partial(respond, service, endpoint, asked), key=key, dropped=_drop)
    except TaqError as error:
        return refused(error)


def _drop(late: Response) -> None:
    """Nobody waited for a file that was made: it goes as if it had been sent."""
    if isinstance(late.background, BackgroundTask):
        late.background.func(*late.background.args, **late.background.kwargs)


def respond(service: Service, endpoint: Endpoint, asked: Asked) -> Response:
    """The answer of an endpoint; in a thread, for it may compute.

    Raises
    ------
    TaqError
        What was asked for cannot be answered.
    """
    form = formats.JSON
    if endpoint.answers == "tables":
        form = formats.chosen(asked.accept, asked.suffix)
    values = read(endpoint.options, asked.given, who=endpoint.path)
    check_needed(endpoint, values)
    tag = _tag(service, endpoint, {**values, **asked.path}, form.word)
    headers = {"ETag": tag, "Cache-Control": _AGAIN, "Vary": "Accept"}
    if tag in (part.strip() for part in asked.known.split(",")):
        return Response(status_code=304, headers=headers)
    options = values if endpoint.raw else _called_with(endpoint, values)
    found = endpoint.load()(service, **asked.path, **endpoint.fixed, **options)
    return _response(found, form, headers)


def _called_with(endpoint: Endpoint, values: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {
        option.name: option.default
        for option in endpoint.options
        if option.default is not None and option.when is None
    }
    return bundled(endpoint.options, endpoint.bundles, {**defaults, **values})


def _tag(service: Service, endpoint: Endpoint, values: Mapping[str, Any], form: str) -> str:
    """Of the versions of all stores asked, the options, the format and this program."""
    named = [str(values[word]) for word in STORES if values.get(word)]
    versions = [service.version(name) for name in named] or list(_versions(service))
    what = [__version__, endpoint.path, form, versions, sorted(values.items())]
    return f'W/"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}"'


def _versions(service: Service) -> Iterator[str]:
    """Of all stores; of one that cannot be read now, why."""
    for name in service.names:
        try:
            yield service.version(name)
        except TaqError as error:
            yield str(error)


def _response(found: Any, form: formats.Form, headers: dict[str, str]) -> Response:
    if isinstance(found, File):
        return _file(found, headers)
    if isinstance(found, Tables):
        body = form.write(found)
        headers |= _told(found)
    else:
        body = written(found)
    formats.check_bytes(len(body))
    return Response(body, media_type=form.media_type, headers=headers)


def _told(found: Tables | File) -> dict[str, str]:
    told = {"Taqstore-Cli": found.cli, "Taqstore-Note": " / ".join(found.notes)}
    return {name: quote(text, safe=_SAFE)[:_LONGEST] for name, text in told.items() if text}


# What a header may hold as it is; the percent sign is not among it.
_SAFE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_LONGEST = 4000


def _file(found: File, headers: dict[str, str]) -> Response:
    more = {**headers, **found.headers, **_told(found)}
    if found.name:
        more["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(found.name, safe='')}"
    if isinstance(found.content, Path):
        remove = BackgroundTask(found.content.unlink, missing_ok=True)
        return FileResponse(
            found.content, media_type=found.media_type, headers=more, background=remove
        )
    formats.check_bytes(len(found.content))
    return Response(found.content, media_type=found.media_type, headers=more)
