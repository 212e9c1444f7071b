"""What the tests of the report share: its inputs, and a page taken apart."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from support.builders import write_latents
from taqstore.metadata.root import read_root, write_root
from taqstore.metadata.tree import Change, load_group, put_in_place
from taqstore.place.local_backend import LocalBackend
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(
    images=2, steps=8, blocks=2, hidden=8, image_tokens=12, text_tokens=5, stats_stride=2
)
HOSTILE = '</p></style></svg><script>alert(1)</script><img src=https://x.test/ onerror="a()">\''


def hostile_store(path: Path) -> Path:
    """Observations, latents with hostile prompts, and hostile attributes."""
    make_store(path, shape=SHAPE)
    write_latents(path, [0, 1], prompts=[HOSTILE, f"second {HOSTILE}"])
    backend = LocalBackend(path)
    loaded = load_group(backend, "activations/mlp.fc2")
    assert loaded
    run = {"model": HOSTILE, "weights": HOSTILE, "dtype": HOSTILE}
    attributes = {**loaded.document["attributes"], "run": run}
    document = {**loaded.document, "attributes": attributes}
    put_in_place(backend, [Change(loaded.path, loaded.record, document, {}, {})])
    root = read_root(backend, str(path))
    write_root(backend, replace(root, copies=None))
    return path


class Page(HTMLParser):
    """Tags, attributes, ids, references, texts of headings, and rows of tables by caption."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._caption = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)
        if tag == "h2":
            self.headings.append("")
        elif tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        elif tag in ("td", "th"):
            self.tables[self._caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        within = self._open[-1] if self._open else ""
        if within == "h2":
            self.headings[-1] += data.strip()
        elif "caption" in self._open:
            self._caption += data
        elif within in ("td", "th"):
            self.tables[self._caption][-1][-1] += data

    def table(self, caption: str) -> dict[str, list[str]]:
        """Rows of the tables whose captions begin so, by their first cell."""
        found = [rows for name, rows in self.tables.items() if name.startswith(caption)]
        return {row[0]: row for rows in found for row in rows}

    @property
    def ids(self) -> list[str]:
        return [value for name, value in self.attributes if name == "id"]

    @property
    def references(self) -> set[str]:
        """Ids that links, clip paths and the like point at."""
        links = {v[1:] for name, v in self.attributes if name == "href" and v.startswith("#")}
        return links.union(*(re.findall(r"url\(#([^)]+)\)", value) for _, value in self.attributes))
