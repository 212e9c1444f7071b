"""A name that is not known, in the library: which one was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taqstore import analysis, query
from taqstore.asked import listed, meant, nearest, word_of
from taqstore.errors import MisuseError, TaqError
from taqstore.export.formats import export
from taqstore.files.schema import DocumentError, validate
from taqstore.names import parse_layer
from taqstore.query.diff import diff, diff_analysis, movers
from taqstore.store.reader import Store, open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=2, hidden=4, image_tokens=5, text_tokens=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_store(tmp_path_factory.mktemp("meant") / "run.zarr", shape=SHAPE))


GROUP = "activations/mlp.fc2"
ASKED: dict[str, tuple[Callable[[Store], Any], str]] = {
    "a group": (lambda s: s["activations/mlp.fc22"], GROUP),
    "a group by its end": (lambda s: s["mlp.fc2"], GROUP),
    "a layer": (lambda s: s.layer("mm0.imgg.mlp.fc2"), "mm0.img.mlp.fc2"),
    "a layer that is not there": (lambda s: s.layer("mm7.img.mlp.fc2"), "mm1.img.mlp.fc2"),
    "a layer of a spelling": (lambda s: parse_layer("mm_07_imgg"), "mm7.img"),
    "a layer without a block": (lambda s: parse_layer("x_embeder"), "x_embedder"),
    "a layer of a selection": (lambda s: query.select(s[GROUP], layer="mm0.imgg"), "mm0.img"),
    "a stream": (lambda s: query.select(s[GROUP], stream="imgg"), "img"),
    "a dimension": (lambda s: query.reduce(s[GROUP], "channell=max"), "channel"),
    "a way to reduce": (lambda s: query.reduce(s[GROUP], "channel=maxx"), "max"),
    "an analysis": (lambda s: query.analyze("scale", s), "scales"),
    "an option": (lambda s: query.analyze("scales", s, bitts=4), "bits"),
    "an option of the function": (lambda s: query.analyze("scales", s, clip="absmx"), "absmax"),
    "a site": (lambda s: query.analyze("scales", s, sites=["mlp.fc22"]), "mlp.fc2"),
    "a source": (lambda s: query.analyze("scales", s, source="activation"), "activations"),
    "a variable": (lambda s: diff(s, s, group=GROUP, variable="tensor_mx"), "tensor_max"),
    "a column": (lambda s: movers(diff(s, s), by="range_ratios"), "range_ratio"),
    "an analysis of a diff": (
        lambda s: diff_analysis(s, s, group=GROUP, variable="x", analysis="scale"), "scales"
    ),
    "a format": (lambda s: export("quant-confg", s, "x.json"), "quant-config"),
    "a key of a document": (
        lambda s: validate("allocation", {"format": "taqstore_allocation_v1", "linear": {}}),
        "linears",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_was_meant(store: Store, name: str) -> None:
    ask, word = ASKED[name]
    with pytest.raises(TaqError) as refused:
        ask(store)
    assert f"did you mean {word}" in str(refused.value)


def test_clip_rules_of_a_function(store: Store) -> None:
    with pytest.raises(MisuseError, match=r"did you mean percentile\?"):
        analysis.scales(store[GROUP], clip="percentilee")


@pytest.mark.parametrize(
    ("typed", "known", "found"),
    [
        ("SCALES", ["scales"], "scales"),
        ("mlp_fc2", ["mlp.fc1", "mlp.fc2"], "mlp.fc2"),
        ("fc2", ["pooled/fc1", "pooled/fc2"], "pooled/fc2"),
        ("mlp.fc2", ["a/mlp.fc2", "b/mlp.fc2"], "a/mlp.fc2"),
        ("/latents/", ["latents"], "latents"),
        ("activations/mlp.fc2", ["latents", "pooled/stats/mlp.fc2"], "pooled/stats/mlp.fc2"),
        ("activations/mlp.fc9", ["latents", "second_moments/x.y"], ""),
        ("nothing like it", ["scales"], ""),
        ("", ["scales"], ""),
        ("scales" * 1000, ["scales"], ""),
        (None, ["scales"], ""),
    ],
)
def test_nearest(typed: Any, known: list[str], found: str) -> None:
    assert nearest(typed, known) == found


def test_long_lists_are_cut_and_counted() -> None:
    names = [f"mm{block}.{stream}" for block in range(24) for stream in ("img", "txt")]
    said = meant("mm23.imgg", names)
    assert said.startswith("did you mean mm23.img? There is mm0.img, mm0.txt,")
    assert said.endswith("... (48 in all)")
    assert len(said) < 400
    assert listed(names[:5]) == "mm0.img, mm0.txt, mm1.img, mm1.txt, mm2.img"
    assert listed(["x" * 1000]).endswith("(1 in all)")


def test_a_word_that_is_like_none_is_told_all() -> None:
    with pytest.raises(MisuseError, match=r"rule 'zzz' is not known; there is poly, lut$"):
        word_of("zzz", ("poly", "lut"), "rule")


def test_a_document_that_is_wrong_otherwise_is_told_nothing_more() -> None:
    with pytest.raises(DocumentError) as refused:
        validate("allocation", {"format": "taqstore_allocation_v1", "linears": 3})
    assert "did you mean" not in str(refused.value)


def test_a_layer_of_a_document(tmp_path: Path) -> None:
    from taqstore.kinds.formats.allocations import read_allocation

    file = tmp_path / "a.json"
    file.write_text(
        '{"format": "taqstore_allocation_v1", "linears": {"mm0.img.mlp.fc22": "rtn-w4"}}'
    )
    with pytest.raises(TaqError, match=r"did you mean mm0\.img\.mlp\.fc2\?"):
        read_allocation(file)
