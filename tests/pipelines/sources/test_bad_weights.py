"""AdaRound outputs that are broken or mean harm: one clear line each, and nothing half stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.ingest import ingest

from support.adaround_output import make_output, members_of
from taqstore import open_store
from taqstore.errors import SourceError, StoreError
from taqstore.export import export
from taqstore.kinds.quantized_linears import quantized_blocks
from taqstore.testing import damage

STEM = "image_transformer_block_mlp_fc1"
Change = Callable[[Path], object]


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def entry(number: int = 0, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        document = json.loads(path.read_text())
        document["block_metrics"][number] |= changes
        path.write_text(json.dumps(document))

    return change


def member(name: str, values: np.ndarray | None, block: str = "mm0") -> Change:
    def change(folder: Path) -> None:
        path = folder / "weights" / f"{block}.npz"
        found = {**dict(np.load(path)), name: values}
        kept = {key: value for key, value in found.items() if value is not None}
        np.savez_compressed(path, **kept)

    return change


def without_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": "adaround_v1", ')


WHOLE: list[tuple[Change, str]] = [
    (without_config, "not valid JSON"),
    (config(format="adaround_v9"), r"unknown format \(found 'adaround_v9'\); adaround_v1 is read"),
    (config(format="adaround_htg_v1"), "ingest each of its folders group_N as a weight set of its"),
    (config(block_metrics="many"), "no key 'block_metrics' with a value of type list"),
    (config(block_metrics=[]), "no blocks"),
    (config(bits_w=40), r"bits_w is no width of weights \(found 40\)"),
    (config(bits_w="4"), "no key 'bits_w' with a value of type int"),
    (config(run=[1]), "no key 'run' with a value of type dict"),
    (config(bits_a=99), r"bits_a of mm0\.img\.attn\.q_proj is no width \(found 99\)"),
    (config(bits_a=None), r"bits_a of mm0\.img\.attn\.q_proj is no width \(found None\)"),
    (config(sigma_lower=[0.5, 0.7]), "sigma_lower does not descend to 0"),
    (config(sigma_lower=["a"]), "sigma_lower: no key '0' with a value of type float"),
]
ONE: list[tuple[Change, str]] = [
    (entry(block_name="../../etc"), r"block_metrics\[0\]: no block \(found '\.\./\.\./etc'\)"),
    (entry(block_name=7), "no key 'block_name' with a value of type str"),
    (entry(quant_paths=["image_transformer_block.mlp.fc3"]), "no path of mm0 .found 'image_tr"),
    (entry(quant_paths=[["a"]]), r"no path of mm0 .found \['a'\]"),
    (entry(quant_paths=["image_transformer_block.mlp.fc1"] * 2), "a path that is there twice"),
    (entry(quant_paths=["image_transformer_block.attn.q_proj"]), "q, k and v of mm0.img must all"),
    (entry(quant_paths=[]), "no quant_paths"),
    (entry(loss_history_stride100=["low"]), "no key '0' with a value of type float"),
    (entry(losses={"iteration": [0, 1], "loss": [1.0], "rounding_loss": []}), "losses do not fit"),
    (entry(losses={"iteration": [0.5], "loss": [1.0], "rounding_loss": [0.0]}), "losses do not"),
    (entry(errors={"other": {}}), r"unknown inputs \(found other\)"),
    (entry(output_error={"rtn": {"img": "big"}}), "no key 'img' with a value of type float"),
    (lambda f: (f / "weights/mm0.npz").unlink(), r"mm0\.npz"),
    (lambda f: damage.pickled_npz(f / "weights/mm0.npz", key=f"{STEM}__scale",
                                  marker=f / "unpickled"), f"mm0.npz: {STEM}__scale"),
    (member(f"{STEM}__weight_int", None), f"{STEM}__weight_int: no such key"),
    (member(f"{STEM}__scale", None), f"{STEM}__scale: no such key"),
    (member(f"{STEM}__weight_int", np.full((12, 6), 300)), "holds numbers that int8 does not"),
    (member(f"{STEM}__weight_int", np.full((12, 6), 0.5)), "holds numbers that int8 does not"),
    (member(f"{STEM}__weight_int", np.full((12, 6), "a")), "not int8 of 2 dims"),
    (member(f"{STEM}__weight_int", np.zeros((0, 6), np.int8)), "not int8 of 2 dims"),
    (member(f"{STEM}__scale", np.ones((12, 4))), "4 groups do not divide 6 inputs"),
    (member(f"{STEM}__scale", np.ones((11, 1))), r"does not fit the weight's \(12, 6\)"),
    (member(f"{STEM}__scale", np.zeros((12, 1))), "a value that no quantizer has .found 0.0"),
    (member(f"{STEM}__scale", np.full((12, 1), np.nan)), "a value that no quantizer has"),
    (member(f"{STEM}__a_scale", np.array([-1.0])), "a value that no quantizer has .found -1.0"),
    (member(f"{STEM}__a_scale", np.ones(3)), "does not fit the weight's"),
    (member(f"{STEM}__a_bits", np.int8([77])), "a value that no quantizer has .found 77"),
    (member(f"{STEM}__alpha", np.full((12, 6), 1 / 3)), "holds numbers that float32 does not"),
    (member(f"{STEM}__alpha", np.full((12, 6), np.inf, np.float32)), "a value that no quantizer"),
    (member(f"{STEM}__sigma_lower", np.float32([0.2])), "sigma_lower does not descend to 0"),
    (member(f"{STEM}__a_shift", np.zeros((1, 5), np.float32)), "does not fit the weight's"),
    (member("image_transformer_block_attn_k_proj__a_bits", np.int8([4])),
     "activation_bits of q, k and v of mm0.img are not the same"),
    (member(f"{STEM}__weight_int", np.zeros((12, 3), np.int8)), "mm0.img.mlp.fc1 has another"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WHOLE)
def test_an_output_that_cannot_be_used(tmp_path: Path, change: Change, message: str) -> None:
    source = make_output(tmp_path / "source")
    change(source)
    with pytest.raises(SourceError, match=message) as caught:
        ingest([source], tmp_path / "s.zarr")
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


@pytest.mark.parametrize(("change", "message"), ONE)
def test_a_block_that_cannot_be_used(tmp_path: Path, change: Change, message: str) -> None:
    source = make_output(tmp_path / "source", blocks=("mm0", "mm1", "mm2"))
    change(source)
    problems = ingest([source], tmp_path / "s.zarr").problems
    assert len(problems) == 1, problems
    (line,) = problems
    assert "\n" not in line
    assert re.search(message, line), line
    assert not (source / "unpickled").exists()
    assert quantized_blocks(open_store(tmp_path / "s.zarr")) == ["mm1", "mm2"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("weight_int", "int32"), ("weight_int", "float32"), ("alpha", "float64"), ("scale", ">f4")],
)
def test_what_casts_exactly_is_taken(tmp_path: Path, kind: str, dtype: str) -> None:
    source = make_output(tmp_path / "source", later=True)
    plain = members_of(source)
    name = f"{STEM}__{kind}"
    member(name, plain[f"mm0.{name}"].astype(dtype))(source)
    assert ingest([source], tmp_path / "s.zarr").problems == []
    export("adaround", open_store(tmp_path / "s.zarr"), tmp_path / "out")
    found = members_of(tmp_path / "out")
    assert found.keys() == plain.keys()
    assert all(np.array_equal(found[key], plain[key]) for key in plain)


def test_groups_of_steps_in_folders_of_their_own(tmp_path: Path) -> None:
    """`adaround_htg_v1`: each folder is an output; the whole is none."""
    whole = tmp_path / "htg"
    for group in ("0", "1"):
        make_output(whole / f"group_{group}", group_id=group)
    (whole / "config.json").write_text('{"format": "adaround_htg_v1", "n_groups": 2}')
    with pytest.raises(SourceError, match="folders group_N as a weight set of its own"):
        ingest([whole], tmp_path / "s.zarr")
    ingest([whole / "group_1"], tmp_path / "one.zarr")
    assert quantized_blocks(open_store(tmp_path / "one.zarr")) == ["mm0", "mm1"]


def test_a_second_output_does_not_mix_with_the_first(tmp_path: Path) -> None:
    first, second = make_output(tmp_path / "a"), make_output(tmp_path / "b", later=True)
    ingest([first], tmp_path / "s.zarr")
    with pytest.raises((StoreError, SourceError)):
        ingest([second], tmp_path / "s.zarr")
    found = open_store(tmp_path / "s.zarr")["weights/adaround/mlp.fc1"]["weight"]
    expected = members_of(first)[f"mm0.{STEM}__weight_int"]
    np.testing.assert_array_equal(found.sel(layer="mm0.img"), expected)
