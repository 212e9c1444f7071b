"""Weight sets and MLX's own quantizer as variants: the same linears, the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.evaluate.evaluate import defaults, evaluate, summary
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel, load_pipeline
from taqstore.pipelines.models.quantized.quantized_model import LinearPlan, quantize
from taqstore.pipelines.models.sampling import make_schedule, trajectory

from support.live_capture import needs_models
from support.set_of_model import write_set
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import MissingError, MisuseError, TaqError
from taqstore.kinds.quantized_linears import linear_names_of, quantized_linear
from taqstore.names import MODEL_SITES, SITES
from taqstore.quantization.integer_grid import symmetric_grid
from taqstore.quantization.weight_grid import dequantized, round_to_nearest, weight_steps

pytestmark = needs_models
STEPS = 2


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_pipeline("reference")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> Path:
    """One image, and two sets: `whole` of every linear as MLX rounds, `some` of two sites."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "p.txt").write_text("a handwritten seven", encoding="utf-8")
    path = folder / "s.zarr"
    generate(path, Request("reference", folder / "p.txt", 1, steps=STEPS))
    write_set(path, model, "whole")
    write_set(
        path, model, "some", sites=lambda site: site in ("mlp.fc1", "adaln.linear"),
        grid=lambda x: symmetric_grid(x.matrix(), bits=3 if x.name.block == "mm0" else 6),
    )  # fmt: skip
    return path


def planner(store: Path, model: LoadedModel, *beside: str, **options: object) -> Planner:
    return Planner(model, open_store(store), Options(**options), beside)  # type: ignore[arg-type]


def test_mlx_is_what_mlx_makes_of_every_linear_of_the_set(store: Path, model: LoadedModel) -> None:
    mx, plan = backend().mx, planner(store, model, "whole")
    found = plan.plans(Variant.parse("mlx/a16"))
    readers = {r.name: r for one in model.inputs() for r in one.readers}
    assert set(found) == set(readers) == set(linear_names_of(open_store(store), set="whole"))
    assert {name.site for name in found} == {*SITES, *MODEL_SITES}
    for name, one in found.items():
        assert one.input is None
        packed = mx.quantize(mx.array(readers[name].matrix()), group_size=64, bits=4)
        expected = np.array(mx.dequantize(*packed, group_size=64, bits=4))
        assert one.weight is not None
        assert one.weight.tobytes() == expected.tobytes()
    # The set is on MLX's grid: the same weights, but for ties and the rounding of the offset.
    own = plan.plans(Variant.parse("whole/a16"))
    for name, one in own.items():
        apart = np.abs(one.weight - found[name].weight) > 1e-6  # type: ignore[operator]
        assert apart.mean() < 2e-3
        stored = quantized_linear(open_store(store), name, set="whole").dequantized()
        assert np.array_equal(one.weight, stored)  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [(), ("whole",), ("some",), ("some", "whole")])
def test_what_is_rounded_here_covers_what_the_sets_do(
    store: Path, model: LoadedModel, beside: tuple[str, ...]
) -> None:
    opened, plan = open_store(store), planner(store, model, *beside)
    names = {n for name in beside for n in linear_names_of(opened, set=name)}
    every = [r.name for one in model.inputs() for r in one.readers]
    expected = names or {name for name in every if name.site in SITES}
    for variant in ("rtn/a16", "clipped", "mlx"):
        assert {x.name for x in plan.linears(Variant.parse(variant))} == expected
    # Whatever is compared, a set is of its own linears.
    some = {x.name for x in plan.linears(Variant.parse("some"))}
    assert some == set(linear_names_of(opened, set="some"))
    inside = {x.name for x in plan.linears(Variant.parse("rtn@mm1"))}
    assert inside == {name for name in expected if name.block == "mm1"}


def test_bytes_are_those_of_packed_weights(store: Path, model: LoadedModel) -> None:
    """Against what MLX itself packs, with half-precision scales and biases."""
    mx, plan = backend().mx, planner(store, model, "whole")
    size = count = 0
    for one in model.inputs():
        for reader in one.readers:
            weight = mx.array(reader.matrix()).astype(mx.float16)
            size += sum(part.nbytes for part in mx.quantize(weight, group_size=64, bits=4))
            count += weight.size
    for variant in ("whole", "mlx/a16", "rtn-w4-g64"):
        assert plan.packed(Variant.parse(variant)) == (count, size)
    assert plan.packed(Variant.parse("float")) == (0, 0)
    # By linear where widths differ: 3 bits in one block, 6 in the others, a step for each output.
    bits = groups = 0
    for one in model.inputs():
        for reader in one.readers:
            if one.site in ("mlp.fc1", "adaln.linear"):
                out, into = reader.shape
                bits += out * into * (3 if reader.name.block == "mm0" else 6)
                groups += out
    assert plan.packed(Variant.parse("some"))[1] == bits // 8 + 4 * groups


def test_the_table_has_bytes_errors_and_what_was_judged(store: Path) -> None:
    ways = [Variant.parse(name) for name in ("whole/a16", "mlx/a16", "rtn-g64", "some")]
    found = evaluate(store, variants=ways, options=Options())
    result = found.result
    assert result["variant"].values.tolist() == ["float", "whole/a16", "mlx/a16", "rtn-g64", "some"]
    table = summary(result).set_index("variant")
    assert table.loc["whole/a16", "of_float16"] == pytest.approx(0.28125)
    assert table.loc["mlx/a16", "packed_bytes"] == table.loc["whole/a16", "packed_bytes"]
    assert table.loc["rtn-g64", "weights"] == table.loc["mlx/a16", "weights"]
    assert table.loc["whole/a16", "weights"] == result.attrs["model_weights"]
    assert np.isnan(table.loc["float", "of_float16"])
    assert table.loc["float", "relative_rms"] == 0
    near = table.loc["whole/a16", "relative_rms"] / table.loc["mlx/a16", "relative_rms"]
    assert near == pytest.approx(1, abs=1e-3)
    assert not result["observed"].any()
    assert result.attrs["judged"] == "judged on images 0: none of them was observed"


def test_one_set_is_chosen_or_named(store: Path, model: LoadedModel) -> None:
    plan = planner(store, model, set="some")
    sites = {x.name.site for x in plan.linears(Variant.parse("rtn"))}
    assert sites == {"mlp.fc1", "adaln.linear"}
    names = [way.name for way in defaults(planner(store, model))]
    assert names == ["float", "rtn", "clipped", "some", "whole"]
    with pytest.raises(MissingError, match=r"no weight set 'other'.*some, whole"):
        plan.check(Variant.parse("other/a16"))
    with pytest.raises(TaqError, match=r"no steps were learned: use whole/a8-step"):
        plan.plans(Variant.parse("whole/a8-learned"))
    plan = planner(store, model, bits=7)
    with pytest.raises(TaqError, match=r"MLX does not quantize mm0\.img\.attn\.q_proj: 7 bits"):
        plan.plans(Variant.parse("mlx"))


def test_the_command_takes_sets(store: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(store), "--variant", "some/a16", "--json"]
    done = CliRunner().invoke(cli, [*words, "--weights", "some"])
    assert done.exit_code == 0, done.output
    first = json.loads(done.stdout)["tables"][0]
    (row,) = [row for row in first["rows"] if row["variant"] == "some/a16"]
    assert row["packed_bytes"] > 0
    assert "note: judged on images 0: none of them was observed" in done.stderr
    words[3] = "rtn"
    missing = CliRunner().invoke(cli, [*words, "--weights", "nothing"])
    assert "no weight set 'nothing' in the store; there is some, whole" in str(missing.exception)
    file = CliRunner().invoke(cli, [*words, "--weights", "nothing.safetensors"])
    assert file.exit_code == 2
    assert "'nothing.safetensors' does not exist" in file.stderr


def test_a_set_of_gptq_beside_roundings_of_the_same_linears(store: Path, tmp_path: Path) -> None:
    """Made by the commands; `--weights gptq` says which linears the others round."""
    path = shutil.copytree(store, tmp_path / "s.zarr")
    at = ["--sites", "mlp.fc1"]
    for words in (
        ["collect", str(path), "--stride", "1", "--second-moment", "64", *at],
        ["gptq", str(path), *at],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, (done.output, done.exception)
    ways = [word for name in ("gptq/a16", "rtn", "mlx/a16") for word in ("--variant", name)]
    done = CliRunner().invoke(cli, ["evaluate", str(path), *ways, "--weights", "gptq", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    rows = {row["variant"]: row for row in json.loads(done.stdout)["tables"][0]["rows"]}
    assert list(rows) == ["float", "gptq/a16", "rtn", "mlx/a16"]
    assert len({rows[name]["weights"] for name in ("gptq/a16", "rtn", "mlx/a16")}) == 1
    assert rows["gptq/a16"]["packed_bytes"] == rows["mlx/a16"]["packed_bytes"]
    assert rows["gptq/a16"]["relative_rms"] < 0.9 * rows["mlx/a16"]["relative_rms"]
    assert "judged on images 0: all of them were observed; --held-out N" in done.stderr


def test_held_out_images_are_none_of_the_store(store: Path, tmp_path: Path) -> None:
    ways = [Variant.parse("mlx/a16")]
    options = Options(set="whole")
    found = evaluate(store, variants=ways, options=options, held_out=2).result
    assert found["image"].values.tolist() == [1, 2]
    assert found.attrs["judged"] == "judged on held-out images 1-2: none of them was observed"
    assert list(open_store(store)["latents"]["image"].values) == [0]
    (tmp_path / "q.txt").write_text("the number four", encoding="utf-8")
    other = evaluate(store, variants=ways, options=options, held_out=2, prompts=tmp_path / "q.txt")
    assert other.prompts == ["the number four"] * 2
    assert other.result["relative_rms"][1] != found["relative_rms"][1]


def test_every_linear_acts_in_the_forward(store: Path, model: LoadedModel) -> None:
    """Each site alone changes the guided output: adaLN and embedders run quantized too."""

    def last(made: LoadedModel) -> np.ndarray:
        schedule = make_schedule(model, STEPS)
        text = made.encode_text("a handwritten two", cfg_weight=3.0)
        prompt = made.prepare(text, schedule.timesteps)
        *_, x = trajectory(made, prompt, schedule, seed=3, latent_size=(8, 8))
        return np.array(x)

    def coarse(weight: np.ndarray) -> np.ndarray:
        steps = weight_steps(weight, bits=2, clip="absmax")
        return dequantized(round_to_nearest(weight, steps, bits=2), steps)

    plain = last(model)
    for site in (*SITES, *MODEL_SITES):
        names = [r for one in model.inputs() if one.site == site for r in one.readers]
        plans = {r.name: LinearPlan(coarse(r.matrix())) for r in names}
        assert not np.array_equal(last(quantize(model, plans)), plain), site
    assert np.array_equal(last(model), plain)


def test_a_word_that_is_no_set_is_misuse(store: Path) -> None:
    with pytest.raises(MisuseError, match=r"'wholly/a16' is not known; did you mean whole/a16\? "):
        evaluate(store, variants=[Variant.parse("rtn"), Variant.parse("wholly/a16")])
