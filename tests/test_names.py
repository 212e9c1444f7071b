"""Every spelling of a layer met in the wild resolves to one identity."""

from __future__ import annotations

import pytest

from taqstore import names
from taqstore.errors import MissingError


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
