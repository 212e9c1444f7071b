"""Every spelling of a layer met in the wild resolves to one identity."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import taqstore
from taqstore import names
from taqstore.errors import MissingError, TaqError


@pytest.mark.parametrize(
    ("spelling", "full"),
    [
        ("mm0.img.mlp.fc2", "mm0.img.mlp.fc2"),
        ("mm0_img_mlp_fc2", "mm0.img.mlp.fc2"),
        ("mm_00_img", "mm0.img.mlp.fc2"),
        ("mm_00_img:fc2_in", "mm0.img.mlp.fc2"),
        ("mm_07_txt_fc1", "mm7.txt.mlp.fc1"),
        ("mm_00_img_qkv", "mm0.img.attn.qkv"),
        ("mm_00_img_oproj", "mm0.img.attn.o_proj"),
        ("mm_23_txt:qkv_in", "mm23.txt.attn.qkv"),
        ("mm0.image_transformer_block.mlp.fc2", "mm0.img.mlp.fc2"),
        ("mm0/text_transformer_block.attn.k_proj", "mm0.txt.attn.k_proj"),
        ("mm0_image_transformer_block_mlp_fc2", "mm0.img.mlp.fc2"),
        ("blocks.0.image.mlp.fc2", "mm0.img.mlp.fc2"),
        ("blocks.11.text.attn.o_proj", "mm11.txt.attn.o_proj"),
        ("mm5_txt_attn_v_proj", "mm5.txt.attn.v_proj"),
        ("uni4.attn.q_proj", "uni4.attn.q_proj"),
        ("mm12.img", "mm12.img"),
        ("uni37", "uni37"),
    ],
)
def test_spellings_resolve(spelling: str, full: str) -> None:
    assert names.parse_layer(spelling).full == full
    assert names.parse_layer(full) == names.parse_layer(spelling)


@pytest.mark.parametrize(
    "spelling",
    ["", "mm0", "mm0.img.attn.fc2", "mm0.img.mlp.q_proj", "mm0.img.mlp", "uni4.img.mlp.fc2",
     "../mm0.img", "mm0.img.mlp.fc2 ", "mm0.img.mlp.fc3", "mm99999.img"],
)  # fmt: skip
def test_unknown_spellings_are_refused(spelling: str) -> None:
    with pytest.raises(MissingError, match=r"not known.*mm0\.img\.mlp\.fc2"):
        names.parse_layer(spelling)


def test_layers_sort_by_kind_block_stream() -> None:
    labels = ["uni0", "mm10.img", "mm2.txt", "mm2.img", "uni10", "uni2"]
    ordered = sorted(labels, key=lambda n: names.parse_layer(n).sort_key)
    assert ordered == ["mm2.img", "mm2.txt", "mm10.img", "uni0", "uni2", "uni10"]


def test_qkv_expands_to_three_linears() -> None:
    assert names.linear_names(names.parse_layer("mm_00_img_qkv")) == (
        "mm0.img.attn.q_proj",
        "mm0.img.attn.k_proj",
        "mm0.img.attn.v_proj",
    )
    assert names.linear_names(names.parse_layer("mm_00_img")) == ("mm0.img.mlp.fc2",)


def test_blocks_run_multimodal_first_and_know_their_streams() -> None:
    blocks = names.model_blocks(2, 1)
    assert [block.name for block in blocks] == ["mm0", "mm1", "uni0"]
    assert [names.Block.parse(block.name) for block in blocks] == list(blocks)
    assert sorted({*blocks}, key=lambda block: block.order) == list(blocks)
    assert [block.streams for block in blocks] == [("img", "txt"), ("img", "txt"), ("uni",)]
    assert [layer.layer for layer in blocks[1].layers] == ["mm1.img", "mm1.txt"]
    assert [layer.layer for layer in blocks[2].layers] == ["uni0"]


def test_members_of_cached_blocks() -> None:
    two, one = names.Block.parse("mm3"), names.Block.parse("uni12")
    assert (two.input_key("txt"), two.output_key("txt")) == ("mm3__arg1", "mm3__out1")
    assert (two.timestep_key, one.timestep_key) == ("mm3__arg2", "uni12__arg1")
    assert (one.input_key("uni"), one.output_key("uni")) == ("uni12__arg0", "uni12__out0")
    assert all(map(names.is_block_key, ("mm3__arg1", "uni12__out0")))
    assert not any(map(names.is_block_key, ("mm3", "__sigma__", "block3__arg0", "mm3__x")))


@pytest.mark.parametrize("name", ["", "mm", "3", "mm03", "mm12345", "uni", "mm0.img", "MM0"])
def test_what_is_no_block_is_refused(name: str) -> None:
    with pytest.raises(TaqError, match=r"is not known; write it like mm0 or uni4"):
        names.Block.parse(name)


def test_names_in_other_programs() -> None:
    name = names.parse_layer("mm3.txt.attn.k_proj")
    assert names.array_key(name.full) == "mm3_txt_attn_k_proj"
    place = "multimodal_transformer_blocks.3.text_transformer_block.attn.k_proj"
    assert names.path_in_model(name) == place
    assert names.weight_layer(f"{place}.weight") == name
    unified = names.parse_layer("uni4.mlp.fc1")
    assert names.path_in_model(unified) == (
        "unified_transformer_blocks.4.transformer_block.mlp.fc1"
    )
    assert names.weight_layer(names.path_in_model(unified)) == unified


@pytest.mark.parametrize("full", ["mm3.txt.attn.qkv", "mm0.img.mlp.fc2", "uni4.attn.o_proj"])
def test_the_tracer_s_names_come_back(full: str) -> None:
    name = names.parse_layer(full)
    assert names.parse_layer(names.tracer_name(name)) == name


def test_paths_of_groups() -> None:
    assert names.split_group("pooled/postgelu/mlp.fc2.c12") == ("pooled/postgelu", "mlp.fc2.c12")
    assert names.split_group("latents") == ("", "latents")
    assert names.site_of("activations/attn.qkv") == "attn.qkv"
    assert names.tensor_site("mlp.fc2.c12") == "mlp.fc2"
    ranks = [names.site_rank(site) for site in ("attn.qkv", "mlp.fc1", "mlp.fc2.c12", "other")]
    assert ranks == sorted(set(ranks))


GRAMMAR = re.compile(
    r"""f["'](?:mm|uni)\{|startswith\(["'](?:mm|uni)|["'(]mm["'|]|r?strip\(["'](?:muni|0123456789)"""
)


def test_the_grammar_of_block_names_stands_in_one_room() -> None:
    root = Path(taqstore.__file__).parents[1]
    files = [*root.glob("taqstore/**/*.py"), *root.glob("pipelines/**/*.py")]
    # Inputs made for tests are spelled out, so that both sides cannot be wrong together.
    apart = root / "taqstore/testing", root / "taqstore/names"
    found = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in files
        if not any(room in file.parents for room in apart)
        for line in file.read_text(encoding="utf-8").splitlines()
        if GRAMMAR.search(line)
    ]
    assert found == []
