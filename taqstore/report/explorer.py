"""Links from a report into the explorer of a server that has the store, where one is named."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from taqstore.errors import MissingError, MisuseError, printable, problem
from taqstore.names import linear_names, parse_layer

_SCHEMES = ("http", "https")
_LONGEST = 2000

SECTIONS = {
    "asymmetry": {"view": "map", "quantity": "negative"},
    "drift": {"view": "map", "quantity": "range"},
    "outliers": {"view": "map", "quantity": "outliers"},
    "worst": {"view": "map", "quantity": "sqnr"},
    "configurations": {"view": "map", "quantity": "sqnr"},
    "groups": {"view": "plan"},
    "bits": {"view": "plan"},
    "judged": {"view": "weights"},
}
"""View of each section, by its key."""
FIGURES = {
    "range": {"view": "map", "quantity": "range"},
    "negative": {"view": "map", "quantity": "negative"},
    "sqnr": {"view": "map", "quantity": "sqnr"},
    "channels": {"view": "layer"},
    "channelmap": {"view": "layer"},
    "curve": {"view": "layer"},
    "groups": {"view": "plan"},
    "bits": {"view": "plan"},
    "frontier": {"view": "plan"},
    "policy": {"view": "plan"},
    "gate": {"view": "weights"},
    "sensitivity": {"view": "map", "quantity": "sensitivity"},
    "enough": {"view": "compare", "other": "same"},
}
"""View of each figure, by its word; others lead to that of their section."""


@dataclass(frozen=True)
class Explorer:
    """Where a store is looked at.

    Parameters
    ----------
    address
        Of the page, with a slash at its end.
    store
        What the server calls the store.
    bits
        What errors are shown at.
    """

    address: str
    store: str
    bits: int

    @classmethod
    def at(cls, url: str, *, store: str, bits: int) -> Explorer:
        """At an address that `taqstore serve` printed.

        Raises
        ------
        MisuseError
            It is no address of http or https, or has more in it than a page may be told.
        """
        what = _refusal(url)
        if what:
            remedy = "give what taqstore serve printed, such as http://127.0.0.1:8765/"
            raise MisuseError(problem(what, found=printable(url), remedy=remedy))
        return cls(f"{url.rstrip('/')}/", store, bits)

    def to(self, **words: str | int | None) -> str:
        """A view, by the words of its address."""
        kept = {"store": self.store, **words}
        return f"{self.address}?{urlencode({k: v for k, v in kept.items() if v not in (None, '')})}"

    def section(self, key: str, focus: str) -> str:
        """View of a section, about what it singles out."""
        return self._about(SECTIONS.get(key, {"view": "map"}), focus)

    def figure(self, word: str, key: str, focus: str) -> str:
        """View of a figure in a section."""
        return self._about(FIGURES.get(word, SECTIONS.get(key, {"view": "map"})), focus)

    def layer(self, text: str) -> str:
        """View of a linear, or of a layer with its site; empty for any other text."""
        site, layer = _placed(text)
        return self.to(view="layer", site=site, layer=layer, bits=self.bits) if layer else ""

    def _about(self, words: dict[str, str], focus: str) -> str:
        site, layer = _placed(focus)
        if not layer and "." in focus:
            site = focus  # a site itself
        bits = self.bits if words.get("quantity") == "sqnr" or words["view"] == "layer" else None
        view = "map" if words["view"] == "layer" and not layer else words["view"]
        about = {"site": site, "layer": layer} if view in ("layer", "map", "plan") else {}
        return self.to(**{**words, "view": view}, bits=bits, **about)


def _refusal(url: str) -> str:
    """Why an address is none; empty: it is one."""
    if len(url) > _LONGEST or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        return "no address: it has spaces or control characters in it, or is too long"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "no address"
    if parts.scheme not in _SCHEMES or not host:
        return "an explorer is at an address of http or https"
    if parts.username is not None or parts.query or parts.fragment:
        return "a page that is handed on has no password or token in its links"
    return ""


def _placed(text: str) -> tuple[str, str]:
    """Site and layer of a linear's name as the store has them; empty where it is no linear."""
    try:
        name = parse_layer(text)
    except MissingError:
        return "", ""
    if not name.site or not linear_names(name):
        return "", ""
    read = name.input
    return read.site, read.layer
