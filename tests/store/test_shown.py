"""A store at a prompt and in a notebook: what it shows, and that it reads no data for it."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import taqstore
from support.builders import write_latents, write_pooled
from taqstore.store.shown import html_of, lines_of
from taqstore.testing import RunShape, make_store
from taqstore.upkeep import describe_store

MANY = [
    "latents",
    *(f"activations/{site}" for site in ("attn.qkv", "mlp.fc1", "mlp.fc2.c1280", "mlp.fc2.c64")),
    *(f"pooled/a_source_with_a_rather_long_name_{n}/mlp.fc2" for n in range(40)),
]


class Page(HTMLParser):
    """Cells of the table by row; fails where tags do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "li" not in self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "store.zarr"
    write_latents(path, [0, 1, 2], only=[1, 2])
    write_pooled(path)
    make_store(path, shape=RunShape(images=2))
    return path


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_the_terminal_and_name_every_source(columns: int) -> None:
    lines = lines_of("/a/very/long/path/" * 9 + "run.zarr", MANY, columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].endswith("run.zarr: 45 groups>")
    assert lines[1].split() == ["latents"]
    assert ("mlp.fc2.c64" in lines[2]) or lines[2].endswith("... (4)")
    assert lines[-1] == "  ... 18 more sources"
    assert len(lines) == 26


def test_lines_are_made_without_opening_a_group(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = taqstore.open_store(path)
    monkeypatch.setattr(store, "node", None)
    monkeypatch.setenv("COLUMNS", "80")
    text = repr(store)
    assert text == lines_of(str(path), store.paths, columns=80)
    assert "  activations            attn.o_proj, attn.qkv, mlp.fc1, mlp.fc2\n" in text


def test_keys_are_offered_for_completion(path: Path) -> None:
    store = taqstore.open_store(path)
    assert store._ipython_key_completions_() == list(store.paths)


def test_a_notebook_shows_what_info_tells(path: Path) -> None:
    store = taqstore.open_store(path)
    page = Page(store._repr_html_())
    head, *rows = page.rows
    assert head == ["group", "dims", "written", "stored"]
    told = describe_store(store)["groups"]
    assert [row[0] for row in rows] == [group["group"] for group in told]
    for (_, dims, written, stored), group in zip(rows, told, strict=True):
        sizes = dict(dim.split(" ") for dim in dims.split(", "))
        assert {dim: int(n) for dim, n in sizes.items()} == group["dims"]
        assert round(float(written.removesuffix(" %")), 1) == group["written_percent"]
        assert stored == taqstore.upkeep.info.format_bytes(group["stored_bytes"])
    assert rows[-1][:3] == [
        "pooled/timestep_stats/mlp.fc2", "step 3, layer 5, bin 9, channel 6", "100 %",
    ]  # fmt: skip
    assert "66.67 %" in {row[2] for row in rows}


def test_variables_are_there_to_unfold_with_what_they_mean(path: Path) -> None:
    text = taqstore.open_store(path)._repr_html_()
    assert "<details>" in text
    assert "<code>avg_max</code> (step, layer, channel) float64: " in text


def test_names_from_a_disk_are_text_and_no_markup(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)<" / "&quot;"
    folder.mkdir(parents=True)
    write_latents(folder / "s.zarr", [0])
    text = taqstore.open_store(folder / "s.zarr")._repr_html_()
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;alert(1)&lt;/&amp;quot;/s.zarr" in text
    assert "\x1b" not in lines_of("a\x1b[2J.zarr", ["b\x1b/c\n"], columns=80)


def test_a_damaged_group_takes_one_row(path: Path, tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [0])
    write_pooled(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "latents")
    store = taqstore.open_store(tmp_path / "s.zarr")
    (_, latents, pooled) = Page(store._repr_html_()).rows
    assert latents[0] == "latents"
    assert latents[2] == "damaged"
    assert pooled[2] == "100 %"
    assert "latents" in repr(store)


def test_a_slow_store_is_shown_all_the_same(path: Path) -> None:
    store = taqstore.open_store(path)
    text = html_of(store, seconds=-1)
    rows = Page(text).rows[1:]
    assert [row[0] for row in rows] == list(store)
    assert {row[3] for row in rows} == {"not opened"}
    assert f"{len(store)} groups were not opened" in text
