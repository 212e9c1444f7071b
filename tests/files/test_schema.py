"""Schemas are found, and decide about documents with NumPy vectors as about plain ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore.errors import MissingError, TaqError
from taqstore.files import schema as schemas
from taqstore.files.schema import (
    DocumentError,
    load_schema,
    schema_names,
    validate,
    validate_member,
)
from taqstore.metadata.provenance import make_record

NAMES = [
    "adaround-metadata",
    "calibration-manifest",
    "layer-statistics",
    "lut-schedule",
    "poly-schedule",
    "provenance",
    "quant-config-v3",
    "quant-config-v4",
    "temporal-analysis-multitier",
    "temporal-analysis-v4",
    "timestep-index",
]


def config(**entry: Any) -> dict[str, Any]:
    linear = {"bits": 8, "scale": 1.5, "shift": np.array([0.5, -1.0]), **entry}
    return {
        "format": "per_timestep_quant_config_v4",
        "per_timestep": {"0": {"mm0.img.mlp.fc2": linear}},
        "sigma_map": {"0": 1.0},
        "summary": {
            "total_timesteps": 1,
            "total_layers": 1,
            "total_decisions": 1,
            "activation_bits": 8,
            "post_gelu_layers_with_shift": 1,
            "scale_source": "tensor_absmax",
        },
        "metadata": {"note": ["é", None, True, 1]},
    }


def test_schemas_are_there_and_sound() -> None:
    assert set(NAMES) <= set(schema_names())
    for name in schema_names():
        jsonschema.Draft202012Validator.check_schema(load_schema(name))


def test_unknown_schema() -> None:
    with pytest.raises(MissingError, match=r"no schema '\.\./provenance'"):
        validate("../provenance", {})


def test_good_document() -> None:
    validate("quant-config-v4", config())


BAD_ENTRIES = {
    "bits": ({"bits": 1}, r"\.bits"),
    "extra": ({"step": 1.0}, "step"),
    "nan scale": ({"scale": float("nan")}, r"\.scale"),
    "text scale": ({"scale": "1.5"}, r"\.scale"),
    "bool scale": ({"scale": True}, r"\.scale"),
    "nan first": ({"shift": np.array([np.nan, 1.0])}, r"\.shift\[0\]"),
    "nan last": ({"shift": np.array([3.0, 1.0, np.nan])}, r"\.shift\[2\]"),
    "inf inside": ({"shift": np.array([3.0, np.inf, -1.0])}, r"\.shift\[1\]"),
    "minus inf": ({"shift": np.array([3.0, -np.inf, -1.0])}, r"\.shift\[1\]"),
    "nan in list": ({"shift": [1.0, float("nan")]}, r"\.shift\[1\]"),
    "matrix": ({"shift": np.ones((2, 2))}, r"\.shift"),
    "empty": ({"shift": np.array([])}, r"\.shift"),
    "text": ({"shift": np.array(["a", "b"])}, r"\.shift\[\d\]"),
    "bools": ({"shift": np.array([True])}, r"\.shift\[0\]"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_entry_is_named_by_its_path(case: str) -> None:
    entry, place = BAD_ENTRIES[case]
    with pytest.raises(DocumentError, match=place) as caught:
        validate("quant-config-v4", config(**entry), where="out.json")
    line = str(caught.value)
    assert line.startswith("out.json: at $.per_timestep")
    assert "\n" not in line
    assert len(line) < 400
    assert isinstance(caught.value, (TaqError, ValueError))


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_a_member_alone_gets_the_same_verdict(case: str) -> None:
    document = config(**BAD_ENTRIES[case][0])
    with pytest.raises(DocumentError) as whole:
        validate("quant-config-v4", document, where="x")
    with pytest.raises(DocumentError) as alone:
        validate_member(
            "quant-config-v4", "per_timestep", "0", document["per_timestep"]["0"], where="x"
        )
    assert str(alone.value) == str(whole.value)


@pytest.mark.parametrize("key", ["00", "-1", "first", "1.0"])
def test_step_keys_are_plain_indices(key: str) -> None:
    with pytest.raises(DocumentError, match="per_timestep"):
        validate_member("quant-config-v4", "per_timestep", key, {})


def test_nan_deep_in_free_metadata() -> None:
    document = {**config(), "metadata": {"a": [{"b": float("inf")}]}}
    with pytest.raises(DocumentError, match=r"\$\.metadata\.a\[0\]\.b"):
        validate("quant-config-v4", document)


numbers = st.one_of(st.floats(width=32), st.integers(-5, 5))


@given(st.lists(numbers, min_size=1, max_size=6), st.sampled_from(["indices", "multipliers"]))
def test_vectors_get_the_verdict_of_their_lists(values: list[float], where: str) -> None:
    """Integer and bounded items too, where the extremes alone would not decide."""
    entry: dict[str, Any] = {
        "outlier_indices": [0],
        "multiplier_vector": [1.0],
        "scale_normal": 0.1,
        "scale_outlier": 0.2,
    }
    key = "outlier_indices" if where == "indices" else "multiplier_vector"
    verdicts = []
    for form in (np.array(values), np.array(values).tolist()):
        document = {**config(), "outlier_config": {"mm0.img.mlp.fc2": {**entry, key: form}}}
        try:
            validate("quant-config-v4", document)
            verdicts.append(True)
        except DocumentError:
            verdicts.append(False)
    assert verdicts[0] == verdicts[1]


# Of what a schema may say, everything that ours say, and what they do not.
RULES = st.sampled_from(
    [
        {"type": "number", "minimum": 1}, {"type": "integer", "maximum": 2},
        {"type": ["null", "string"]},
        {"const": "a"}, {"enum": ["a", None, 1]}, {"const": 1}, {"pattern": "^a"}, {"minLength": 2},
        {"type": "boolean"}, {"exclusiveMinimum": 0}, {"exclusiveMaximum": 1.5}, {"minItems": 2},
        {"maxItems": 1}, {"anyOf": [{"type": "string"}]}, True, False, {"$ref": "#"}, {},
    ]
)  # fmt: skip
SCHEMAS = st.recursive(
    RULES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string"]),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
            "additionalProperties": inner,
            "propertyNames": inner,
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "items": inner,
            "patternProperties": st.just({"^c": {"type": "string"}}),
            "prefixItems": st.just([{"type": "null"}]),
        },
    ),
    max_leaves=6,
)
ODD = [None, True, False, 0, 1, 2.0, 1.5, -1, float("nan"), float("inf"), "", "a", "ab", 1 << 1030]
LEAVES = st.one_of(
    st.sampled_from(ODD),
    st.lists(numbers, max_size=3).map(np.array),
    st.lists(st.booleans(), max_size=2).map(np.array),
    st.just(np.ones((2, 2))),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "ab"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def verdict(validator: Any, value: Any) -> bool:
    """What jsonschema says."""
    try:
        return bool(validator.is_valid(value))
    except ValueError:  # an array that it compares with a constant
        return False


@settings(max_examples=500, deadline=None)
@given(SCHEMAS, VALUES)
def test_what_is_passed_without_jsonschema_fits_by_jsonschema(schema: Any, value: Any) -> None:
    validator = schemas._Validator(schema)
    try:
        checks = schemas._checks_of(schema, validator)
        passed = all(check(value) for check in checks)
    except RecursionError:  # a schema that is itself of itself
        return
    assert not passed or verdict(validator, value)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_documents_that_fit_are_passed_without_jsonschema(name: str, draw: st.DataObject) -> None:
    """Made of a config with one value exchanged: both say the same, so jsonschema is not asked."""
    document = {**config(), "outlier_config": {}}
    places: list[tuple[Any, Any]] = [(document, key) for key in document]
    for holder, key in places:
        if isinstance(holder[key], dict):
            places += [(holder[key], inner) for inner in holder[key]]
    holder, key = draw.draw(st.sampled_from(places))
    holder[key] = draw.draw(st.one_of(st.just(holder[key]), VALUES))
    fits = verdict(schemas._validator("quant-config-v4", ""), document)
    assert schemas._fits("quant-config-v4", "", document) == fits
    assert not schemas._fits(name, "", document) or name == "quant-config-v4"


def test_provenance_record() -> None:
    record = make_record(
        "ingest",
        parameters={"only": None, "workers": 2},
        inputs=[{"name": "run", "kind": "folder"}],
        groups=["latents"],
        counts={"written": 3},
    )
    validate("provenance", record)
    for key in ("id", "time", "command", "parameters", "inputs", "groups", "versions", "counts"):
        broken = copy.deepcopy(record)
        del broken[key]
        with pytest.raises(DocumentError, match=key):
            validate("provenance", broken)
    with pytest.raises(DocumentError, match=r"\$\.time"):
        validate("provenance", {**record, "time": "yesterday"})


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("quant-config-v4", "expected/quant_config.json"),
        ("quant-config-v4", "expected/quant_config_p999.json"),
        ("quant-config-v4", "expected/quant_config_with_outliers.json"),
        ("quant-config-v3", "expected/quant_config_multitier.json"),
        ("temporal-analysis-v4", "expected/layer_temporal_analysis.json"),
        ("temporal-analysis-multitier", "expected/layer_temporal_analysis_multitier.json"),
        ("poly-schedule", "sd3_medium/polynomial_clipping_schedule_512_p100.json"),
        ("lut-schedule", "sd3_medium/lut_schedule_512_p100.json"),
        ("calibration-manifest", "calibration_data/manifest.json"),
        ("adaround-metadata", "calibration_data/adaround_cache/metadata.json"),
        ("layer-statistics", "calibration_data/activations/layer_statistics.json"),
        ("timestep-index", "calibration_data/activations/timestep_stats/step_6_index.json"),
    ],
)
def test_documents_of_the_source_fit_only_their_schema(
    reference: Path, name: str, file: str
) -> None:
    document = json.loads((reference / file).read_text())
    validate(name, document, where=file)
    for other in set(NAMES) - {name}:
        with pytest.raises(DocumentError):
            validate(other, document)
