"""Groups of quantized weights: commits layer by layer, read back bit for bit, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore import create_store, open_store
from taqstore.errors import LayoutError
from taqstore.kinds.weights import reconstruction_template, time_group_of, weights_template
from taqstore.layout.template import Template
from taqstore.names import SITES
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

LAYERS = ("mm0.img", "mm0.txt", "mm1.img")


def template(site: str = "mlp.fc2", **options: Any) -> Template:
    settings = {"groups": 3, "sigma_lower": (0.7, 0.25, 0.0), "shifted": True, "multiplied": True}
    return weights_template(
        site, layers=LAYERS, shape=(5, 6), attrs={"run": {"bits": 4}}, **settings | options
    )


def values(made: Template) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([3, len(made.path)])
    return {
        a.name: rng.integers(-8, 8, made.shape(a)).astype(a.dtype)
        if a.dtype.startswith("int")
        else rng.normal(size=made.shape(a)).astype(a.dtype)
        for a in made.arrays
    }


@pytest.mark.parametrize("site", SITES)
def test_layers_commit_one_by_one(tmp_path: Path, site: str) -> None:
    made = template(site, rounding_dtype="float16")
    written = values(made)
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(made)
        for layer in (2, 0):
            for name, whole in written.items():
                group.put(name, (layer,) + (0,) * (whole.ndim - 1), whole[layer : layer + 1])
            if layer == 2:
                group.commit([(layer,)])
    for chunks in ("auto", None):
        found = open_store(tmp_path / "s.zarr", chunks=chunks)[f"weights/adaround/{site}"]
        assert found["layer"].values.tolist() == ["mm1.img"]  # the other has no flag
        assert ("projection" in found.dims) == (site == "attn.qkv")
        for name, whole in written.items():
            assert found[name].dtype == whole.dtype
            assert found[name].values.tobytes() == whole[2:].tobytes(), name
    assert found["sigma_lower"].values.tolist() == [np.float32(0.7), 0.25, 0.0]
    assert attribute_of(found, "run") == {"bits": 4}
    assert not verify_store(tmp_path / "s.zarr").damage


def test_blocks_commit_one_by_one(tmp_path: Path) -> None:
    made = reconstruction_template(
        blocks=("mm0", "mm1"), streams=("img", "txt"), iterations=[0, 5, 10]
    )
    written = values(made)
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(made)
        for name, whole in written.items():
            group.put(name, (1,) + (0,) * (whole.ndim - 1), whole[1:])
        group.commit([(1,)])
    found = open_store(tmp_path / "s.zarr")["reconstruction"]
    assert found["block"].values.tolist() == ["mm1"]
    assert found["rounding_method"].values.tolist() == ["adaround", "rtn", "clipped"]
    error = found["output_error"].sel(block="mm1", stream="txt", rounding_method="rtn")
    assert float(error) == written["output_error"][1, 1, 1]
    assert not verify_store(tmp_path / "s.zarr").damage


def test_time_groups_at_and_between_their_ends() -> None:
    lower = [0.7, 0.25, 0.0]
    sigmas = np.float32([1.0, 0.7, 0.69999, 0.25, 0.2, 0.0])
    expected = [next(g for g, low in enumerate(lower) if np.float32(low) <= s) for s in sigmas]
    assert time_group_of(sigmas, lower).tolist() == expected == [0, 0, 1, 1, 2, 2]
    assert time_group_of(np.float32(0.4), [0.0]) == 0


def test_refusals() -> None:
    with pytest.raises(LayoutError, match=r"^mlp\.fc2: 4 groups do not divide 6 inputs"):
        template(groups=4)
    for lower in ([0.0, 0.5], [0.5, 0.5, 0.0], [0.5, 0.1], []):
        with pytest.raises(LayoutError, match="sigma_lower must descend to 0"):
            template(sigma_lower=lower)
