"""Who may ask, and what: hosts, methods, lengths, tokens, and headers of every answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running import Running, running
from taqstore.serve.http.guard import CSP
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
SECRET = "only friends know"
TREE = "/zarr/run.zarr/zarr.json"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_store(tmp_path_factory.mktemp("guarded") / "run.zarr", shape=SHAPE))


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Running]:
    with running(store) as found:
        yield found


@pytest.fixture(scope="module")
def secret(store: Path) -> Iterator[Running]:
    with running(store, token=SECRET) as found:
        yield found


@pytest.mark.parametrize(
    "path", ["/", TREE, "/api/nothing", "/nothing", "/zarr/nothing/x", "/%2e%2e/x"]
)
def test_every_answer_carries_the_headers(served: Running, path: str) -> None:
    headers = served.get(path).headers
    assert headers["content-security-policy"] == CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "cache-control" in headers
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8", "localhost."]
)
def test_names_of_this_machine_are_answered(served: Running, host: str) -> None:
    assert served.get(TREE, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example",
     "user@localhost", "localhost/x", "localhost:x", "", "10.0.0.1", "[::1", "0x7f.1"],
)  # fmt: skip
def test_other_names_are_refused_whatever_they_lead_to(served: Running, host: str) -> None:
    for path in ("/", TREE, "/api/stores"):
        answer = served.get(path, Host=host)
        assert (answer.status, b"--allow-host" in answer.body) == (403, True)


def test_a_name_that_is_allowed_is_answered(store: Path) -> None:
    with running(store, hosts=["data.example"]) as served:
        assert served.get(TREE, Host="DATA.example:443").status == 200
        assert served.get(TREE, Host="localhost").status == 403


def test_on_all_addresses_numbers_are_answered_and_names_are_not(store: Path) -> None:
    with running(store, any_address=True) as served:
        assert served.get(TREE, Host="192.0.2.7:8765").status == 200
        assert served.get(TREE, Host="[2001:db8::1]:8765").status == 200
        assert served.get(TREE, Host="evil.example").status == 403


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"]
)
def test_nothing_is_written(served: Running, method: str) -> None:
    for path in ("/", TREE, "/api/stores"):
        answer = served.get(path, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_options_tell_what_may_be_done(served: Running) -> None:
    answer = served.get(TREE, method="OPTIONS")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/" + "a" * 9000, {}, 414),
        ("/?" + "a" * 9000, {}, 414),
        ("/", {"X_Long": "a" * 17000}, 431),
        ("/", {f"X_{n}": "a" for n in range(80)}, 431),
        ("/", {"Content_Length": "5"}, 413),
        ("/", {"Transfer_Encoding": "chunked"}, 413),
    ],
)
def test_what_is_too_long_is_refused(
    served: Running, path: str, headers: dict[str, str], status: int
) -> None:
    assert served.get(path, **headers).status == status


def test_other_origins_read_only_if_they_are_named(store: Path) -> None:
    with running(store, origins=["https://friend.example"]) as served:
        friend = served.get(TREE, Origin="https://friend.example")
        assert friend.headers["access-control-allow-origin"] == "https://friend.example"
        assert "content-range" in friend.headers["access-control-expose-headers"].lower()
        assert friend.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "access-control-allow-credentials" not in friend.headers
        stranger = served.get(TREE, Origin="https://evil.example")
        assert "access-control-allow-origin" not in stranger.headers
        asked = served.get(
            TREE,
            method="OPTIONS",
            Origin="https://friend.example",
            Access_Control_Request_Method="GET",
            Access_Control_Request_Headers="range",
        )
        assert asked.status == 200
        assert "range" in asked.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize(
    "path", ["/", "/main.js", TREE, "/api/stores", "/nothing", "/zarr/run.zarr/"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": "Bearer "},
        {"Cookie": f"taqstore={SECRET}"},
    ],
)
def test_without_the_token_nothing_is_told(
    secret: Running, path: str, headers: dict[str, str]
) -> None:
    for query in ("", "?token=", "?token=wrong", f"?token={SECRET[:-1]}", "?Token=" + SECRET):
        answer = secret.get(path + query.replace(" ", "+"), **headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"].startswith("no-store")
        assert "set-cookie" not in answer.headers


def test_a_bearer_of_the_token_is_answered(secret: Running) -> None:
    answer = secret.get(TREE, Authorization=f"Bearer {SECRET}")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "private, no-cache"


def test_a_page_exchanges_the_token_for_a_cookie(secret: Running) -> None:
    entered = secret.get(f"/?view=map&token={SECRET.replace(' ', '%20')}&bits=4")
    assert (entered.status, entered.headers["location"]) == (303, "/?view=map&bits=4")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert SECRET not in cookie
    pair = cookie.partition(";")[0]
    assert secret.get("/?view=map&bits=4", Cookie=pair).status == 200
    assert secret.get(TREE, Cookie=f"a=b; {pair}").status == 200
    assert secret.get(TREE, Cookie=pair[:-1]).status == 401


def test_a_link_on_another_site_leads_in_as_well(secret: Running) -> None:
    address = f"/?token={SECRET.replace(' ', '+')}"
    entered = secret.get(address, Sec_Fetch_Site="cross-site")
    assert (entered.status, entered.headers["refresh"]) == (200, "0; url=/")
    assert "set-cookie" in entered.headers


def test_the_exchange_leads_nowhere_else(secret: Running) -> None:
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
        entered = secret.get(f"{path}?token={SECRET.replace(' ', '+')}")
        assert entered.headers["location"].startswith("/")
        assert not entered.headers["location"].startswith(("//", "/\\"))


def test_data_are_answered_by_the_token_in_their_address(secret: Running) -> None:
    answer = secret.get(f"{TREE}?token={SECRET.replace(' ', '+')}")
    assert (answer.status, "set-cookie" in answer.headers) == (200, False)
    assert b"no store" not in answer.body
