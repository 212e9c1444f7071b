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
        ("mm0_img_adaln_linear", "mm0.img.adaln.linear"),
        ("uni3.adaln.linear", "uni3.adaln.linear"),
        ("modulation", "modulation"),
        ("final_layer_adaln_linear", "final_layer.adaln.linear"),
        ("y_embedder/pooled.fc1", "y_embedder.pooled.fc1"),
    ],
)
def test_spellings_resolve(spelling: str, full: str) -> None:
    assert names.parse_layer(spelling).full == full
    assert names.parse_layer(full) == names.parse_layer(spelling)


@pytest.mark.parametrize(
    "spelling",
    ["", "mm0", "mm0.img.attn.fc2", "mm0.img.mlp.q_proj", "mm0.img.mlp", "uni4.img.mlp.fc2",
     "../mm0.img", "mm0.img.mlp.fc2 ", "mm0.img.mlp.fc3", "mm99999.img",
     "mm0.img.linear", "mm0.img.adaln.fc1", "mm0.adaln.linear", "x_embedder.embed.text",
     "modulation.mlp.fc1", "y_embedder.pooled", "pre::x_embedder"],
)  # fmt: skip
def test_unknown_spellings_are_refused(spelling: str) -> None:
    with pytest.raises(MissingError, match=r"not known.*mm0\.img\.mlp\.fc2"):
        names.parse_layer(spelling)


def test_layers_sort_by_kind_block_stream() -> None:
    labels = ["uni0", "mm10.img", "mm2.txt", "mm2.img", "uni10", "uni2"]
    ordered = sorted(labels, key=lambda n: names.parse_layer(n).sort_key)
    assert ordered == ["mm2.img", "mm2.txt", "mm10.img", "uni0", "uni2", "uni10"]


def test_layers_without_a_block_come_after_all_blocks() -> None:
    labels = ["final_layer", "uni0", "modulation", "x_embedder", "mm10.img"]
    ordered = sorted(labels, key=lambda n: names.parse_layer(n).sort_key)
    assert ordered == ["mm10.img", "uni0", "x_embedder", "modulation", "final_layer"]
    every = [
        names.parse_layer(f"{x}.{s}") for x, sites in names.MODEL_LAYERS.items() for s in sites
    ]
    assert [name.layer for name in every if name.in_block] == []
    assert {name.site for name in every} == set(names.MODEL_SITES)


def test_each_linear_reads_one_tensor() -> None:
    for linear, tensor in {
        "mm0.img.attn.k_proj": "mm0.img.attn.qkv",
        "uni2.mlp.fc2": "uni2.mlp.fc2",
        "mm3.txt.adaln.linear": "modulation.adaln.linear",
        "final_layer.adaln.linear": "modulation.adaln.linear",
        "final_layer.final.linear": "final_layer.final.linear",
    }.items():
        assert names.parse_layer(linear).input.full == tensor


MODEL_LINEARS = {
    "x_embedder.embed.image": ("x_embedder.proj", "x_embedder.proj", "pos_embed.proj"),
    "context_embedder.embed.text": ("context_embedder",) * 3,
    "y_embedder.pooled.fc1": (
        "y_embedder.mlp.layers.0", "y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1",
    ),
    "t_embedder.time.fc2": (
        "t_embedder.mlp.layers.2", "t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2",
    ),
    "final_layer.final.linear": ("final_layer.linear", "final_layer.linear", "proj_out"),
    "final_layer.adaln.linear": (
        "final_layer.adaLN_modulation.layers.1", "final_layer.adaLN_modulation.1",
        "norm_out.linear",
    ),
    "mm3.txt.adaln.linear": (
        "multimodal_transformer_blocks.3.text_transformer_block.adaLN_modulation.layers.1",
        "joint_blocks.3.context_block.adaLN_modulation.1",
        "transformer_blocks.3.norm1_context.linear",
    ),
}  # fmt: skip


@pytest.mark.parametrize("full", MODEL_LINEARS)
def test_linears_of_the_whole_model_in_other_programs(full: str) -> None:
    name, (mlx, sd3, diffusers) = names.parse_layer(full), MODEL_LINEARS[full]
    assert names.path_in_model(name) == mlx
    assert names.checkpoint_tensor(name) == f"model.diffusion_model.{sd3}.weight"
    for theirs in (mlx, sd3, f"model.diffusion_model.{sd3}", diffusers, f"transformer.{diffusers}"):
        assert names.weight_layer(f"{theirs}.weight") == name
        assert names.weight_layer(f"{theirs}.bias") is None


@pytest.mark.parametrize("ask", [names.path_in_model, names.checkpoint_tensor])
def test_a_tensor_that_many_read_is_no_linear(ask: object) -> None:
    with pytest.raises(MissingError, match=r"modulation\.adaln\.linear is no linear"):
        ask(names.parse_layer("modulation.adaln.linear"))  # type: ignore[operator]


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
    ranks = [
        names.site_rank(site)
        for site in ("attn.qkv", "mlp.fc2.c12", "adaln.linear.o48", "time.fc1", "other")
    ]
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
