"""Links from a report into the explorer: where a server is named, and to nothing else."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from support.cli_runner import Runner, taq
from taqstore import open_store
from taqstore.errors import MisuseError
from taqstore.report import build
from taqstore.report.explorer import FIGURES, SECTIONS, Explorer
from taqstore.testing import RunShape, make_store

__all__ = ["taq"]

SHAPE = RunShape(
    images=3, steps=4, blocks=2, hidden=8, image_tokens=8, text_tokens=4, stats_stride=1
)
_HREF = re.compile(r'href="([^"]*)"')


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "a run.zarr"
    make_store(path, shape=SHAPE)
    return path


def links(page: str) -> list[str]:
    return [unescape(one) for one in _HREF.findall(page) if not one.startswith("#")]


@pytest.fixture(scope="module")
def bare(run: Path) -> str:
    """The page that knows no server."""
    return build(open_store(run), pictures=False)


def test_without_a_server_nothing_leads_away(bare: str) -> None:
    assert links(bare) == []
    assert "http" not in re.sub(r"http-equiv", "", bare)


def test_sections_and_linears_lead_to_their_views(run: Path, bare: str) -> None:
    page = build(open_store(run), pictures=False, explorer="http://127.0.0.1:8765")
    found = [urlsplit(one) for one in links(page)]
    assert len(found) > 12
    assert {one.scheme + "://" + one.netloc + one.path for one in found} == {
        "http://127.0.0.1:8765/"
    }
    asked = [parse_qs(one.query) for one in found]
    assert {words["store"][0] for words in asked} == {"a run.zarr"}
    views = {words["view"][0] for words in asked}
    assert {"map", "layer", "plan", "weights"} <= views <= {"map", "layer", "plan", "weights"}
    layers = {(w["site"][0], w["layer"][0]) for w in asked if w["view"] == ["layer"]}
    store = open_store(run)
    assert layers
    for site, layer in layers:
        assert layer in store[f"activations/{site}"]["layer"].values
    # Text stays text: without the links it is the page that needs no server.
    plain = re.sub(r'<p class="command"><a [^>]*>[^<]*</a></p>\n|</?a( [^>]*)?>', "", page)
    alone = re.sub(r"</?a( [^>]*)?>", "", bare)
    assert plain == alone


def test_every_section_and_figure_has_a_view() -> None:
    made = Explorer.at("https://here:1/below/", store="s", bits=4)
    for words in (*SECTIONS.values(), *FIGURES.values()):
        assert words["view"] in ("map", "layer", "plan", "weights", "compare", "latents")
    assert made.section("worst", "mm0.img.mlp.fc2").startswith("https://here:1/below/?store=s&")
    assert "layer=mm0.img" in made.figure("curve", "worst", "mm0.img.mlp.fc2")
    assert made.figure("curve", "worst", "") == "https://here:1/below/?store=s&view=map&bits=4"
    assert made.layer("<b>mm0.img</b>") == made.layer("yes") == made.layer("") == ""
    odd = Explorer.at("http://h", store='a"&<b>', bits=4).to(view="map")
    assert odd == "http://h/?store=a%22%26%3Cb%3E&view=map"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//host/", "host:8765", "",
        "http://", "https:///path", "http://user:secret@host/", "http://host/?token=abc",
        "http://host/#x", "http://ho st/", "http://host/\n", "http://host:99999/", "ftp://host/",
        "http://[::1", "http://h/" + "a" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(run: Path, url: str) -> None:
    with pytest.raises(MisuseError):
        Explorer.at(url, store="s", bits=4)
    with pytest.raises(MisuseError):
        build(open_store(run), pictures=False, explorer=url)


def test_the_command_refuses_before_it_works(run: Path, taq: Runner, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = taq("report", run, "-o", out, "--explorer", "javascript:alert(1)")
    assert found.code == 2, found.err
    assert "address of http or https" in found.err
    assert not out.exists()
