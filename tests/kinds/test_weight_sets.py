"""Weight sets: several in one store never mix, the old place is read, variables may be absent."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from support.weight_store import RUN, SHAPES, site_template, site_values, write_weights
from taqstore import create_store, open_store
from taqstore.cli import cli
from taqstore.errors import LayoutError, MissingError, MisuseError
from taqstore.kinds.quantized_linears import (
    linear_names_of,
    quantized_blocks,
    quantized_linear,
    quantized_linears,
    run_of,
    weight_groups_of,
)
from taqstore.kinds.templates import latents_template
from taqstore.kinds.weight_sets import (
    check_set,
    chosen_set,
    folder_of,
    set_folders,
    weight_sets,
    width_sites,
)
from taqstore.kinds.weights import weights_template
from taqstore.names import SITES, parse_layer
from taqstore.upkeep.info import describe_store
from taqstore.upkeep.merge import merge
from taqstore.upkeep.verify import verify_store

SETS = {"adaround": 6, "gptq": 7, "a-2_b": 8}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "s.zarr"
    for name, seed in SETS.items():
        write_weights(path, set=name, seed=seed, blocks=("mm0", "mm1") if seed < 8 else ("mm0",))
    return path


def test_every_set_has_its_own_values(several: Path) -> None:
    store = open_store(several)
    assert weight_sets(store) == ("a-2_b", "adaround", "gptq")
    assert quantized_blocks(store, set="gptq") == ["mm0", "mm1"]
    assert quantized_blocks(store, set="a-2_b") == ["mm0"]
    for (name, seed), site in itertools.product(SETS.items(), SITES):
        expected = site_values(site_template(site, set=name), seed=seed)
        found = weight_groups_of(store, name)[site]
        for variable, values in expected.items():
            assert found[variable].values.tobytes() == values.tobytes(), (name, site, variable)
    assert not verify_store(several).damage


def test_one_of_several_is_asked_for(several: Path) -> None:
    store = open_store(several)
    for ask in (
        lambda: quantized_blocks(store),
        lambda: list(quantized_linears(store, "mm0")),
        lambda: linear_names_of(store),
        lambda: run_of(store),
    ):
        with pytest.raises(MisuseError, match="choose one with --weights: a-2_b, adaround, gptq"):
            ask()
    with pytest.raises(MissingError, match=r"no weight set 'other'.*a-2_b, adaround, gptq"):
        quantized_blocks(store, set="other")


def test_linears_by_name_are_those_of_their_block(several: Path) -> None:
    store = open_store(several)
    names = linear_names_of(store, set="gptq")
    by_block = [x for block in ("mm0", "mm1") for x in quantized_linears(store, block, set="gptq")]
    assert names == [linear.name for linear in by_block]
    assert {name.block for name in linear_names_of(store, set="a-2_b")} == {"mm0"}
    for expected in by_block:
        found = quantized_linear(store, expected.name, set="gptq")
        assert found.dequantized().tobytes() == expected.dequantized().tobytes()
        assert (found.bits, found.offset) == (RUN["bits"], None)
    with pytest.raises(MissingError, match=r"no quantized weights of mm1\.txt\.mlp\.fc2"):
        quantized_linear(store, parse_layer("mm1.txt.mlp.fc2"), set="gptq")


def test_the_old_place_is_the_set_adaround(tmp_path: Path) -> None:
    old = open_store(write_weights(tmp_path / "old.zarr", old=True))
    new = open_store(write_weights(tmp_path / "new.zarr"))
    assert "weights/mlp.fc2" in old
    assert "weights/adaround/mlp.fc2" in new
    assert weight_sets(old) == weight_sets(new) == ("adaround",)
    assert folder_of(old, "adaround") == "weights"
    assert folder_of(old, "gptq") == "weights/gptq"
    for asked in (None, "adaround"):
        for block in quantized_blocks(old, set=asked):
            pairs = zip(
                quantized_linears(old, block, set=asked),
                quantized_linears(new, block, set=asked),
                strict=True,
            )
            for before, after in pairs:
                assert before.name == after.name
                assert before.bits == after.bits == RUN["bits"]
                assert before.dequantized().tobytes() == after.dequantized().tobytes()


def test_a_new_set_counts_alone_where_both_places_are() -> None:
    paths = ["weights/mlp.fc2", "weights/adaround/mlp.fc1", "weights/gptq/mlp.fc1", "latents"]
    assert set_folders(paths) == {"adaround": "weights/adaround", "gptq": "weights/gptq"}
    assert set_folders(["weights/gptq/reconstruction", "reconstruction"]) == {}


def test_a_set_that_nothing_is_written_of_does_not_ask(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "s.zarr")
    with create_store(path) as writer:
        writer.group(site_template("mlp.fc1", set="begun"))
    store = open_store(path)
    assert chosen_set(store) == "adaround"
    assert chosen_set(store, "begun") == "begun"
    with pytest.raises(MissingError, match="no block of the quantized weights is complete"):
        quantized_blocks(store, set="begun")


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "a.b", "a/b", "..", "reconstruction", "a" * 33, "ä", "a b", "a\n"]
)
def test_names_that_no_set_has(name: str) -> None:
    with pytest.raises(MisuseError, match="is no name of a weight set"):
        check_set(name)
    with pytest.raises(MisuseError):
        weights_template("mlp.fc1", set=name, layers=["mm0.img"], shape=(4, 4))


def test_affine_weights_without_inputs(tmp_path: Path) -> None:
    """What another quantizer leaves: offsets, widths by linear, no rounding, inputs as they are."""
    rng = np.random.default_rng(5)
    template = weights_template(
        "mlp.fc1", set="gptq", layers=["mm0.img", "mm0.txt"], shape=(4, 6), groups=3,
        offset=True, rounding=False, activations=False, attrs={"run": {"method": "gptq"}},
    )  # fmt: skip
    assert [a.name for a in template.arrays] == ["weight", "step_size", "offset", "weight_bits"]
    weight = rng.integers(-4, 4, (2, 4, 6)).astype(np.int8)
    step, offset = rng.uniform(0.1, 1, (2, 2, 4, 3)).astype(np.float32)
    offset[1] = np.nan  # a linear whose grid is symmetric
    bits = np.int8([3, 5])
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(template)
        for layer in (0, 1):
            parts = {"weight": weight, "step_size": step, "offset": offset, "weight_bits": bits}
            for name, whole in parts.items():
                group.put(name, (layer,) + (0,) * (whole.ndim - 1), whole[layer : layer + 1])
            group.commit([(layer,)])
    store = open_store(tmp_path / "s.zarr")
    for layer, name in enumerate(("mm0.img", "mm0.txt")):
        found = quantized_linear(store, parse_layer(f"{name}.mlp.fc1"))
        plain = np.zeros((4, 6), np.float32)
        for row, column in np.ndindex(4, 6):
            plain[row, column] = (
                np.float32(weight[layer, row, column]) * step[layer, row, column // 2]
            )
            if layer == 0:
                plain[row, column] += offset[layer, row, column // 2]
        assert found.dequantized().tobytes() == plain.tobytes()
        assert (found.offset is None) == (layer == 1)
        assert found.bits == bits[layer]
        assert found.rounding is None
        assert found.input.bits.tolist() == [0]
        assert np.isnan(found.input.step).all()
    assert quantized_blocks(store) == ["mm0"]
    assert not verify_store(tmp_path / "s.zarr").damage


def test_linears_of_one_site_that_differ_in_outputs() -> None:
    shapes = {"mm0.img": (12, 2), "mm0.txt": (12, 2), "mm1.txt": (4, 2), "mm1.img": (12, 2)}
    found = width_sites(shapes, "adaln.linear")
    assert found == {
        "adaln.linear": ["mm0.img", "mm0.txt", "mm1.img"], "adaln.linear.o4": ["mm1.txt"],
    }  # fmt: skip
    assert width_sites({"a": (4, 1), "b": (8, 1)}, "x.y") == {"x.y": ["b"], "x.y.o4": ["a"]}


def test_templates_refuse_what_does_not_fit() -> None:
    with pytest.raises(LayoutError, match=r"^mlp\.fc1: 4 groups do not divide 6 inputs"):
        weights_template("mlp.fc1", set="x", layers=["mm0.img"], shape=SHAPES["mlp.fc1"], groups=4)


def test_info_lists_sets(several: Path) -> None:
    found = {one["set"]: one for one in describe_store(open_store(several))["weight_sets"]}
    assert list(found) == ["a-2_b", "adaround", "gptq"]
    assert [one["linears"] for one in found.values()] == [12, 21, 21]
    assert found["gptq"] | {"weights": 0} == {
        "set": "gptq", "folder": "weights/gptq", "method": "adaround", "grid": "symmetric",
        "bits": [4], "group_size": None, "linears": 21, "weights": 0,
    }  # fmt: skip
    shown = CliRunner().invoke(cli, ["info", str(several)]).stdout
    assert "weight set  method" in shown


def test_a_layer_of_statistics_is_no_set_unless_it_is_asked_for(several: Path) -> None:
    store = open_store(several)
    with pytest.raises(MissingError, match="choose source=weights/a-2_b or weights/adaround"):
        store.layer("mm0.img.mlp.fc2")
    found = store.layer("mm0.img.mlp.fc2", source="weights/gptq")
    assert found["weight"].dims == ("out", "in")


def test_merging_leaves_sets_out_by_name(several: Path, tmp_path: Path) -> None:
    stores = []
    for name in ("one", "two"):
        stores.append(write_weights(tmp_path / f"{name}.zarr", set="gptq"))
        image = 0 if name == "one" else 1
        template = latents_template(
            images=[image], prompts=[name], seeds=[image], cfg_weight=1.0,
            sigmas=np.float32([1.0, 0.0]), timesteps=np.float32([1000, 0]), shape=(2, 2, 4),
            attrs={"run": {"model": "made"}},
        )  # fmt: skip
        with create_store(stores[-1]) as writer:
            group = writer.group(template)
            group.put("x", (0, 0, 0, 0, 0), np.full((1, 2, 2, 2, 4), image, np.float32))
            group.commit([(0,)])
    outcome = merge(*stores, tmp_path / "out.zarr")
    assert "weights/gptq/mlp.fc1 is not made of images or batches; left out" in outcome.notes
    assert list(open_store(tmp_path / "out.zarr")) == ["latents"]
