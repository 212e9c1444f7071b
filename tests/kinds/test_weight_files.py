"""Files with quantized weights and with activation configs, read back and read hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.weight_store import write_weights
from taqstore import open_store
from taqstore.errors import MissingError, SourceError
from taqstore.export.formats import export
from taqstore.files.safetensors import read_metadata, read_safetensors, write_safetensors
from taqstore.files.schema import DocumentError
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.kinds.weight_files import read_quant_config, read_quantized
from taqstore.names import parse_layer
from taqstore.store.reader import Store
from taqstore.testing import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(write_weights(tmp_path_factory.mktemp("weights") / "s.zarr"), chunks=None)


@pytest.fixture
def file(store: Store, tmp_path: Path) -> Path:
    export("safetensors", store, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_what_is_written_is_read(store: Store, file: Path) -> None:
    found = read_quantized(file)
    written = [x for block in quantized_blocks(store) for x in quantized_linears(store, block)]
    assert set(found) == {linear.name for linear in written}
    for linear in written:
        other = found[linear.name]
        assert other.weight.tobytes() == linear.weight.tobytes()
        assert other.step.tobytes() == linear.step.tobytes()
        assert other.rounding is None
        for name, values in vars(linear.input).items():
            if values is None:
                assert getattr(other.input, name) is None
            else:
                np.testing.assert_array_equal(getattr(other.input, name), values)


Tensors = dict[str, np.ndarray]
LINEAR = "mm0.img.mlp.fc2"


def rewritten(file: Path, change: Callable[[Tensors, dict[str, str]], None]) -> Path:
    tensors, metadata = dict(read_safetensors(file)), read_metadata(file)
    change(tensors, metadata)
    write_safetensors(file, tensors, **metadata)
    return file


def set_tensor(name: str, values: np.ndarray) -> Callable[[Tensors, dict[str, str]], None]:
    return lambda tensors, _: tensors.update({f"{LINEAR}.{name}": values})


def set_metadata(**texts: str) -> Callable[[Tensors, dict[str, str]], None]:
    return lambda _, metadata: metadata.update(texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_metadata(content="float16"), "no file of quantized weights .found float16"),
        (set_metadata(sigma_lower="[0.5,"), "the header's metadata are no JSON"),
        (set_metadata(sigma_lower='{"a": 1}'), "sigma_lower in the header is no list of numbers"),
        (set_metadata(sigma_lower="[[0.5], 0.0]"), "sigma_lower in the header is no list"),
        (set_metadata(sigma_lower="[0.0]"), r"sigma_lower of mm0\.\w+\.\S+ is not that of the"),
        (set_tensor("sigma_lower", np.float32([0.0])), r"tensors of mm0\.img\.mlp\.fc2 do not fit"),
        (set_tensor("sigma_lower", np.float32([0.0, 0.5])), "does not descend to 0"),
        (set_tensor("sigma_lower", np.float32([0.5, 0.2])), "does not descend to 0"),
        (lambda t, _: t.pop(f"{LINEAR}.sigma_lower"), r"mm0\.img\.mlp\.fc2 has no sigma_lower"),
        (lambda t, _: t.pop(f"{LINEAR}.step_size"), r"mm0\.img\.mlp\.fc2 has no step_size"),
        (set_tensor("weight", np.full((6, 10), 300, np.int32)), "weight holds numbers that int8"),
        (set_tensor("weight", np.zeros(60, np.int8)), "tensors of mm0.img.mlp.fc2 do not fit"),
        (set_tensor("step_size", np.ones((6, 3), np.float32)), "step_size .6, 3."),
        (set_tensor("step_size", np.ones((6, 0), np.float32)), "step_size .6, 0."),
        (set_tensor("step_size", np.float32(1)[()].reshape(())), "step_size .., "),
        (set_tensor("activation_shift", np.ones((2, 9), np.float32)), "activation_shift .2, 9."),
        (set_tensor("activation_multiplier", np.ones(9, np.float32)), "multiplier .9,."),
    ],
)
def test_files_that_do_not_fit_are_refused(
    file: Path, change: Callable[[Tensors, dict[str, str]], None], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_quantized(rewritten(file, change))
    assert "\n" not in str(caught.value)


def test_older_files_with_one_list_of_groups_are_read(store: Store, file: Path) -> None:
    def older(tensors: Tensors, metadata: dict[str, str]) -> None:
        for name in list(tensors):
            if ".mlp.fc2." not in name or name.endswith(".sigma_lower"):
                del tensors[name]
        metadata["sigma_lower"] = "[0.25, 0.0]"

    found = read_quantized(rewritten(file, older))
    assert {name.site for name in found} == {"mlp.fc2"}
    assert all(x.input.sigma_lower.tolist() == [0.25, 0.0] for x in found.values())


def test_names_that_are_no_linears_are_refused(file: Path) -> None:
    def rename(tensors: Tensors, metadata: dict[str, str]) -> None:
        for name in [n for n in tensors if n.startswith(LINEAR)]:
            tensors[f"../{name}"] = tensors.pop(name)

    with pytest.raises(MissingError, match="is not known"):
        read_quantized(rewritten(file, rename))


def config(**changes: Any) -> dict[str, Any]:
    """Two linears, three steps whose sigmas are not in the order of their indices' texts."""
    steps = {"2": 0.9, "10": 0.5, "4": 0.75}
    entry: dict[str, Any] = {
        s: {
            "mm0.img.attn.q_proj": {"bits": 8, "scale": sigma * 3},
            "mm0.img.mlp.fc2": {"bits": 8, "scale": sigma * 5, "shift": [sigma, -1.0, 0.5]},
        }
        for s, sigma in steps.items()
    }
    return {
        "format": "per_timestep_quant_config_v4",
        "per_timestep": entry,
        "sigma_map": steps,
        "outlier_config": {
            "mm0.img.mlp.fc2": {
                "outlier_indices": [1],
                "multiplier_vector": [1.0, 3.0, 1.0],
                "scale_normal": 0.1,
                "scale_outlier": 0.32,
            }
        },
        "summary": {
            "total_timesteps": 3, "total_layers": 2, "total_decisions": 6, "activation_bits": 8,
            "post_gelu_layers_with_shift": 1, "scale_source": "tensor_absmax",
        },
        "metadata": {},
        **changes,
    }  # fmt: skip


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_config(tmp_path: Path) -> None:
    """Clip bounds become steps; outliers three times as coarse leave 0.32 / 3 of 0.32 to cover."""
    found = read_quant_config(write(tmp_path / "c.json", config()))
    plain = found[parse_layer("mm0.img.attn.q_proj")]
    sigmas = np.array([0.9, 0.75, 0.5])
    np.testing.assert_array_equal(plain.step, (sigmas * 3 / 127).astype(np.float32))
    np.testing.assert_array_equal(plain.sigma_lower, np.float32([0.9, 0.75, 0.0]))
    assert plain.bits.tolist() == [8, 8, 8]
    assert plain.shift is None
    assert plain.multiplier is None
    shifted = found[parse_layer("mm0.img.mlp.fc2")]
    expected = sigmas * 5 / 127 * ((0.32 / 3) / 0.32)
    np.testing.assert_allclose(shifted.step, expected, rtol=1e-7)
    np.testing.assert_array_equal(shifted.shift, np.float32([[s, -1.0, 0.5] for s in sigmas]))
    assert shifted.multiplier is not None
    assert shifted.multiplier.tolist() == [1.0, 3.0, 1.0]


def test_an_exported_config_reaches_as_far_as_its_outliers(tmp_path: Path) -> None:
    """At the step they were taken from, both kinds of channels are inside the grid."""
    store = open_store(make_store(tmp_path / "s.zarr"))
    export("quant-config", store, tmp_path / "c.json", outliers=True)
    document = json.loads((tmp_path / "c.json").read_text())
    found = read_quant_config(tmp_path / "c.json")
    steps = sorted(map(int, document["per_timestep"]))
    middle = steps[len(steps) // 2]
    row = sorted(steps, key=lambda step: -document["sigma_map"][str(step)]).index(middle)
    assert document["outlier_config"]
    for name, outlier in document["outlier_config"].items():
        q = found[parse_layer(name)]
        assert q.multiplier is not None
        assert q.step[row] >= outlier["scale_normal"] * (1 - 1e-6)
        assert q.step[row] * q.multiplier.max() >= outlier["scale_outlier"] * (1 - 1e-6)
        bound = document["per_timestep"][str(middle)][name]["scale"]
        assert q.step[row] <= np.float32(bound / 127)


def test_steps_without_a_shift_leave_the_others_theirs(tmp_path: Path) -> None:
    document = config()
    del document["per_timestep"]["4"]["mm0.img.mlp.fc2"]["shift"]
    found = read_quant_config(write(tmp_path / "c.json", document))[parse_layer("mm0.img.mlp.fc2")]
    assert found.shift is not None
    expected = np.float32([[0.9, -1.0, 0.5], [0.0, 0.0, 0.0], [0.5, -1.0, 0.5]])
    np.testing.assert_array_equal(found.shift, expected)


def test_configs_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match="no JSON"):
        read_quant_config(path)
    with pytest.raises(DocumentError, match="per_timestep_quant_config_v4"):
        read_quant_config(write(path, config(format="per_timestep_quant_config_v3")))
    with pytest.raises(MissingError, match="no sigma of step 4"):
        read_quant_config(write(path, config(sigma_map={"2": 0.9, "10": 0.5})))
    document = config()
    del document["per_timestep"]["4"]["mm0.img.mlp.fc2"]
    with pytest.raises(MissingError, match=r"mm0\.img\.mlp\.fc2 is not in step 4"):
        read_quant_config(write(path, document))
