"""A store's own names by every spelling of a layer, a linear, a site, a block or a group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import taqstore
from support.sensitivity_store import LINEARS, write_sensitivities
from taqstore import names
from taqstore.errors import MissingError
from taqstore.kinds.weights import weights_template
from taqstore.names.spellings import SITE_SPELLINGS
from taqstore.store.writer import create_store
from taqstore.testing import RunShape, make_run_folder, make_store

SET = "weights/mine"


def _write_weights(path: Path, site: str, layers: list[str]) -> None:
    template = weights_template(site, set="mine", layers=layers, shape=(2, 4), rounding=False,
                                activations=False)  # fmt: skip
    with create_store(path) as writer:
        group = writer.group(template)
        sizes = {array.name: template.shape(array) for array in template.arrays}
        for layer in range(len(layers)):
            for array in template.arrays:
                shape = template.shard_shape(array)
                start = tuple(layer if d == "layer" else 0 for d in array.dims)
                part = tuple(min(n, m) for n, m in zip(shape, sizes[array.name], strict=True))
                group.put(array.name, start, np.zeros(part, array.dtype))
            group.commit([(layer,)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> taqstore.Store:
    path = tmp_path_factory.mktemp("named") / "store.zarr"
    make_store(path, shape=RunShape(images=2))
    _write_weights(path, "adaln.linear", ["mm0.img", "mm0.txt"])
    return taqstore.open_store(path)


def spellings(name: names.LayerName) -> dict[str, str]:
    """What every program calls a linear input, by the program."""
    found = {
        "full": name.full,
        "npz": names.array_key(name.full),
        "tracer": names.tracer_name(name),
        "slashes": name.full.replace(".", "/", 1),
        "mlx": f"{names.path_in_model(name)}.weight",
    }
    if not names.Block.parse(name.block).unified:
        linear = names.parse_layer(names.linear_names(name)[0])
        found["checkpoint"] = names.checkpoint_tensor(name)
        found["diffusers"] = names.diffusers_module(linear)
    return found


def test_every_spelling_of_every_layer_is_a_label_to_select_by(store: taqstore.Store) -> None:
    tried = 0
    for path in store:
        if not path.startswith("activations/"):
            continue
        for label in map(str, store[path]["layer"].values):
            full = names.parse_layer(f"{label}.{names.site_of(path)}")
            linear = names.parse_layer(names.linear_names(full)[-1])
            told = {**spellings(full), **{f"linear {k}": v for k, v in _of_linear(linear).items()}}
            for how, text in told.items():
                assert store.name(text) == label, how
                assert store.name(text, group=path) == label, how
                tried += 1
            assert store[path].sel(layer=store.name(full.full)).layer == label
    assert tried > 100


def _of_linear(linear: names.LayerName) -> dict[str, str]:
    return {"full": linear.full, "npz": names.array_key(linear.full)}


@pytest.mark.parametrize("spelling", SITE_SPELLINGS)
def test_every_spelling_of_a_site_is_a_site_of_the_store(
    store: taqstore.Store, spelling: str
) -> None:
    site = SITE_SPELLINGS[spelling]
    for text in (spelling, spelling.replace("_", ".", 1)):
        if site in map(names.site_of, store):
            assert store.name(text) == site
        else:
            with pytest.raises(MissingError, match=f"no site {site};"):
                store.name(text)


@pytest.mark.parametrize(
    ("spelling", "block"),
    [
        *((text, "mm1") for text in ("mm1", "mm_01", "mm01", "blocks.1", "blocks_1")),
        *((f"{p}joint_blocks.1", "mm1") for p in ("", "model.diffusion_model.")),
        *((f"{p}transformer_blocks.1", "mm1") for p in ("", "transformer.", "multimodal_")),
    ],
)
def test_every_spelling_of_a_block(store: taqstore.Store, spelling: str, block: str) -> None:
    assert names.parse_block(spelling) == block
    assert store.name(spelling) == block
    mlp = store["activations/mlp.fc2"]
    assert set(mlp.layer[mlp.block == store.name(spelling)].values) >= {f"{block}.img"}


def test_unified_blocks_are_their_own_layers() -> None:
    for text in ("uni4", "uni_04", "unified_transformer_blocks.4.transformer_block"):
        assert names.parse_block(text) == "uni4"


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("/activations/mlp.fc2/", "activations/mlp.fc2"),
        ("activations/fc2", "activations/mlp.fc2"),
        ("activations/o_in", "activations/attn.o_proj"),
        ("mine/adaln_linear", f"{SET}/adaln.linear"),
        (f"{SET}/norm1.linear", f"{SET}/adaln.linear"),
    ],
)
def test_every_spelling_of_a_group(store: taqstore.Store, spelling: str, key: str) -> None:
    assert store.name(spelling) == key
    assert store[store.name(spelling)] is store[key]


def test_sources_are_named_in_short_or_in_full(tmp_path: Path) -> None:
    from taqstore.pipelines.ingest import ingest

    ingest([make_run_folder(tmp_path / "run", shape=RunShape(images=2))], tmp_path / "store.zarr")
    store = taqstore.open_store(tmp_path / "store.zarr")
    for path in store:
        source, site = names.split_group(path)
        if source.startswith("pooled/"):
            short = f"{names.site_of(source)}/{names.array_key(site)}"
            assert store.name(short) == store.name(path) == path


def test_a_label_is_that_of_the_group_asked_for(store: taqstore.Store) -> None:
    assert store.name("mm0.img.adaln.linear") == "mm0.img"
    assert store.name("mm0.txt.adaln.linear", group=f"{SET}/adaln.linear") == "mm0.txt"
    assert store.name("mm0.txt.adaln.linear", group="mine/adaln_linear") == "mm0.txt"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mm77.img", "no layer mm77.img; .*mm0.img"),
        ("mm_77", "no block mm77; .*mm0"),
        ("pooled.fc1", "no site pooled.fc1; .*mlp.fc2"),
        ("mm0.img.fc9", "no spelling of a group, a site, a layer or a block"),
        ("", "no spelling"),
        ("../latents", "no spelling"),
    ],
)
def test_what_is_not_there_is_refused_by_what_is(
    store: taqstore.Store, text: str, told: str
) -> None:
    with pytest.raises(MissingError, match=told) as caught:
        store.name(text)
    assert "\n" not in str(caught.value)


def test_a_group_without_such_a_label_says_what_it_has(store: taqstore.Store) -> None:
    with pytest.raises(MissingError, match=r"adaln\.linear: no layer 'mm1\.img'.*mm0\.img, mm0"):
        store.name("mm1.img", group=f"{SET}/adaln.linear")
    with pytest.raises(MissingError, match="no group 'here'"):
        store.name("mm1.img", group="here")


def test_a_target_is_called_by_what_its_group_is_of(tmp_path: Path) -> None:
    for unit in ("linear", "block", "site"):
        write_sensitivities(tmp_path / "store.zarr", unit=unit, formats=["rtn-w4"], images=[0])
    store = taqstore.open_store(tmp_path / "store.zarr")
    linears = store["sensitivity/linear/rtn-w4"]
    assert store.name("mm_01_img_oproj", group="sensitivity/linear/rtn-w4") == "mm1.img.attn.o_proj"
    for linear in LINEARS:
        told = store.name(names.array_key(linear), group="sensitivity/linear/rtn-w4")
        assert linears.sel(target=told).target == linear
    assert store.name("blocks.1", group="sensitivity/block/rtn-w4") == "mm1"
    assert store.name("qkv_in", group="sensitivity/site/rtn-w4") == "attn.qkv"
    with pytest.raises(MissingError, match="no group 'linear/rtn-w4'"):  # there are scores too
        store.name("mm0.img", group="linear/rtn-w4")
