"""Variants `mixed`: each linear by its own format, as an allocation says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.evaluate.evaluate import evaluate
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.load import LoadedModel, load_pipeline

from support.live_capture import needs_models
from support.set_of_model import write_set
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import MissingError, MisuseError, SourceError, TaqError
from taqstore.names import parse_layer

pytestmark = needs_models
FORMAT = "taqstore_allocation_v1"
LINEARS = {
    "mm0.img.attn.q_proj": "mlx-w4-g64",
    "mm0.img.attn.k_proj": "rtn-w3",
    "mm1.txt.mlp.fc2": "clipped-w5-g32",
    "mm2.img.mlp.fc1": "own",
    "mm3.img.mlp.fc1": "float",
    "mm4.img.mlp.fc1": "comfy",
    "final_layer.final.linear": "rtn-w8",
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_pipeline("reference")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "p.txt").write_text("a handwritten seven", encoding="utf-8")
    path = folder / "s.zarr"
    generate(path, Request("reference", folder / "p.txt", 1, steps=2))
    write_set(path, model, "own", sites=lambda site: site == "mlp.fc1")
    return path


def written(path: Path, linears: Any = LINEARS, **more: Any) -> Path:
    path.write_text(json.dumps({"format": FORMAT, "linears": linears, **more}), "utf-8")
    return path


def planner(store: Path, model: LoadedModel, file: Path | None, **options: Any) -> Planner:
    return Planner(model, open_store(store), Options(allocation=file, **options))


def test_each_linear_is_as_the_variant_of_its_format_has_it(
    store: Path, model: LoadedModel, tmp_path: Path
) -> None:
    """Whatever options leave open is not for it: a format says all of itself."""
    plan = planner(store, model, written(tmp_path / "a.json"), bits=2, group_size=8)
    found = plan.plans(Variant.parse("mixed"))
    changed = {name: format for name, format in LINEARS.items() if format != "float"}
    assert {name.full for name in found} == {*changed}
    size = count = 0
    for name, format in changed.items():
        alone = Planner(model, open_store(store), Options(), ("own",) if format == "own" else ())
        reader = next(r for one in model.inputs() for r in one.readers if r.name.full == name)
        expected = alone.weights.weight(Variant.parse(format), reader)
        assert np.array_equal(found[parse_layer(name)].weight, expected)  # type: ignore[arg-type]
        count += int(np.prod(reader.shape))
        size += alone.weights.grid(Variant.parse(format), reader).packed_bytes(reader.shape)
    assert plan.packed(Variant.parse("mixed")) == (count, size)
    assert plan.weight_bits(Variant.parse("mixed")) == 0
    # Blocks choose among its linears; those outside of blocks are then left out.
    inside = plan.linears(Variant.parse("mixed@mm0,mm3"))
    assert [x.name.full for x in inside] == ["mm0.img.attn.q_proj", "mm0.img.attn.k_proj"]
    chosen = planner(store, model, written(tmp_path / "b.json"), chosen=["mm1"])
    assert [x.name.full for x in chosen.linears(Variant.parse("mixed"))] == ["mm1.txt.mlp.fc2"]


def test_what_is_rounded_beside_it_covers_the_same_linears(
    store: Path, model: LoadedModel, tmp_path: Path
) -> None:
    whole = {"mm0.img.mlp.fc1": "rtn-w3", "final_layer.final.linear": "float"}
    plan = planner(store, model, written(tmp_path / "a.json", whole))
    found = {x.name.full for x in plan.linears(Variant.parse("mlx-w4-g64"))}
    fc1 = {name for name in found if name.endswith("mlp.fc1")}
    assert found == {*fc1, "final_layer.final.linear"}
    assert len(fc1) == 11


def test_an_allocation_of_one_format_is_that_variant(store: Path, tmp_path: Path) -> None:
    """The whole command, beside the variant that it is the same as: equal to the last digit."""
    fc1 = [f"mm{i}.{s}.mlp.fc1" for i in range(6) for s in ("img", "txt") if (i, s) != (5, "txt")]
    file = written(tmp_path / "a.json", dict.fromkeys(fc1, "own"))
    made = CliRunner().invoke(
        cli,
        ["evaluate", str(store), "--variant", "mixed", "--variant", "own",
         "--allocation", str(file), "--csv"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert [line.split(",")[0] for line in made.stdout.splitlines()[2:4]] == ["mixed", "own"]
    found = evaluate(store, variants=[Variant("mixed"), Variant("own")],
                     options=Options(allocation=file)).result  # fmt: skip
    one, other = found.sel(variant="mixed"), found.sel(variant="own")
    assert float(one["relative_rms"]) == float(other["relative_rms"]) > 0
    assert int(one["packed_bytes"]) == int(other["packed_bytes"])


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "twice": '{"format": "taqstore_allocation_v1", "linears": {"mm0.img.mlp.fc1": "rtn",'
    ' "mm0.img.mlp.fc1": "float"}}',
    "no linears": json.dumps({"format": FORMAT, "linears": {}}),
    "other": json.dumps({"format": "per_timestep_quant_config_v4", "linears": {"a.b": "rtn"}}),
    "strange": json.dumps({"format": FORMAT, "linears": {"mm0.img.mlp.fc3": "rtn"}}),
    "tensor": json.dumps({"format": FORMAT, "linears": {"mm0.img.attn.qkv": "rtn"}}),
    "number": json.dumps({"format": FORMAT, "linears": {"mm0.img.mlp.fc1": 4}}),
    "same": json.dumps(
        {"format": FORMAT, "linears": {"mm0.img.mlp.fc1": "rtn", "mm0_img_mlp_fc1": "rtn"}}
    ),
    "inputs": json.dumps({"format": FORMAT, "linears": {"mm0.img.mlp.fc1": "rtn/a8-static"}}),
    "itself": json.dumps({"format": FORMAT, "linears": {"mm0.img.mlp.fc1": "mixed"}}),
    "width": json.dumps({"format": FORMAT, "linears": {"mm0.img.mlp.fc1": "comfy-w4"}}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_allocation_is_told_in_one_line(
    text: str, store: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, "utf-8")
    with pytest.raises(TaqError) as told:
        Options(allocation=file).check([Variant("mixed")])
    assert isinstance(told.value, SourceError) or "DocumentError" in type(told.value).__name__
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


def test_misuse(store: Path, model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="needs an allocation"):
        Options().check([Variant.parse("mixed/a8-static")])
    with pytest.raises(MisuseError, match="no variant takes --allocation"):
        Options(allocation=written(tmp_path / "a.json")).check([Variant("rtn")])
    with pytest.raises(MisuseError, match="bits and groups"):
        Variant.parse("mixed-w4")
    with pytest.raises(MissingError, match="no linear mm9"):
        planner(
            store, model, written(tmp_path / "b.json", {"mm9.img.mlp.fc1": "rtn"})
        ).check(Variant("mixed"))  # fmt: skip
    own = written(tmp_path / "c.json", {"mm0.img.mlp.fc2": "own"})
    with pytest.raises(MissingError, match=r"own has no mm0\.img\.mlp\.fc2"):
        planner(store, model, own).check(Variant("mixed"))
    other = written(tmp_path / "d.json", {"mm0.img.mlp.fc2": "other"})
    with pytest.raises(MisuseError, match="'other' is not known"):
        evaluate(store, variants=[Variant("mixed")], options=Options(allocation=other))


def test_a_store_is_left_as_it_was(store: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(store, before)
    file = written(tmp_path / "a.json")
    evaluate(store, variants=[Variant("mixed")], options=Options(allocation=file))
    for path in (p for p in before.rglob("*") if p.is_file()):
        assert (store / path.relative_to(before)).read_bytes() == path.read_bytes()
