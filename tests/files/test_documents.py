"""JSON files appear whole or not at all, with Python's digits, one step in memory at a time."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from support import source_documents as source
from support.documents import as_plain
from support.statistics_synthetic import STEPS, run_groups, synthetic_run
from taqstore.errors import TaqError
from taqstore.export.documents.quant_config import quant_config
from taqstore.files.documents import Members, write_document
from taqstore.files.schema import DocumentError

Groups = dict[str, xr.Dataset]
RUN, DOCUMENT = synthetic_run()


@pytest.fixture(scope="module")
def groups() -> Groups:
    return run_groups(RUN, DOCUMENT)


AWKWARD = [5e-324, 1e-7, 0.1 + 0.2, 1e16, 1e22, 123456789012345680.0, -0.0, 1.7976931348623157e308]


def broken_config(groups: Groups, bad: float) -> tuple[Groups, int]:
    """A shift that turns bad at the last step."""
    path = "pooled/timestep_stats/mlp.fc2"
    shift = groups[path]["shift"].copy(deep=True)
    shift[-1, 1, 5] = bad
    return {**groups, path: groups[path].assign(shift=shift)}, STEPS[-1]


def test_floats_are_written_with_pythons_digits(tmp_path: Path) -> None:
    vector = np.array([*AWKWARD, *np.random.default_rng(3).normal(size=500)])
    shift = np.concatenate([vector, np.float32(vector[8:])])
    entry = {"bits": 8, "scale": 0.1, "shift": shift}
    groups = synthetic_document({"0": {"mm0.img.mlp.fc2": entry}})
    got = written(tmp_path / "a.json", groups)
    floats = got["per_timestep"]["0"]["mm0.img.mlp.fc2"]["shift"]
    assert [repr(v) for v in floats] == [repr(v) for v in shift.tolist()]


def written(path: Path, document: Any) -> Any:
    write_document(path, "quant-config-v4", document)
    return json.loads(path.read_text("utf-8"))


def synthetic_document(steps: dict[str, Any]) -> dict[str, Any]:
    config = source.config_v4(RUN, DOCUMENT, clip="absmax", outliers=False)
    return {**config, "per_timestep": Members(lambda: iter(steps.items()))}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_file_where_a_number_is_not_finite(groups: Groups, tmp_path: Path, bad: float) -> None:
    broken, step = broken_config(groups, bad)
    target = tmp_path / "config.json"
    with pytest.raises(DocumentError) as caught:
        write_document(target, "quant-config-v4", quant_config(broken))
    line = str(caught.value)
    place = f"$.per_timestep['{step}']['mm0.txt.mlp.fc2'].shift[5]"
    assert line.startswith(f"config.json: at {place}")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_file(groups: Groups, tmp_path: Path) -> None:
    target = tmp_path / "config.json"
    target.write_text("old")
    with pytest.raises(TaqError, match="--force"):
        write_document(target, "quant-config-v4", quant_config(groups))
    with pytest.raises(DocumentError):
        write_document(
            target, "quant-config-v4", quant_config(broken_config(groups, np.nan)[0]), force=True
        )
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    write_document(target, "quant-config-v4", quant_config(groups), force=True)
    assert json.loads(target.read_text())["format"] == "per_timestep_quant_config_v4"
    assert list(tmp_path.iterdir()) == [target]


def test_an_unwritable_target_is_one_line(groups: Groups, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TaqError) as caught:
        write_document(tmp_path / "file" / "a.json", "quant-config-v4", quant_config(groups))
    assert "\n" not in str(caught.value)
    assert "file" in str(caught.value)


def test_members_are_made_when_they_are_written(tmp_path: Path) -> None:
    """One at a time: every entry but the last has been let go when the next is asked for."""
    made: list[weakref.ref[np.ndarray]] = []

    def steps() -> Iterator[tuple[str, Any]]:
        for step in range(5):
            assert sum(shift() is not None for shift in made) <= 1
            yield str(step), {"mm0.img.mlp.fc2": entry(float(step))}

    def entry(value: float) -> dict[str, Any]:
        shift = np.full(3, value)
        made.append(weakref.ref(shift))
        return {"bits": 8, "scale": 1.0, "shift": shift}

    got = written(
        tmp_path / "a.json",
        {**synthetic_document({}), "per_timestep": Members(steps)},
    )
    assert list(got["per_timestep"]) == ["0", "1", "2", "3", "4"]
    assert len(made) == 5


def test_nothing_is_read_of_shifts_before_writing(groups: Groups) -> None:
    """Making the document touches rollups only."""
    path = "pooled/timestep_stats/mlp.fc2"
    lazy = groups[path].chunk({"layer": 2})
    forbidden = lazy["shift"].data.map_blocks(_refuse, dtype=np.float64)
    document = quant_config({**groups, path: lazy.assign(shift=(lazy["shift"].dims, forbidden))})
    with pytest.raises(RuntimeError, match="read"):
        as_plain(document)


def _refuse(block: np.ndarray) -> np.ndarray:
    if block.size:
        raise RuntimeError("read")
    return block


FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e-3, 1e-3)


@settings(deadline=None, max_examples=60)
@given(st.lists(FLOATS, min_size=1, max_size=6), FLOATS, st.text("ab 01.e-,:", max_size=12))
def test_bytes_are_those_of_pythons_json(many: list[float], one: float, text: str) -> None:
    """Numbers, small ones too, in lists and vectors, and texts that look like them."""
    vector = np.array(many)
    steps, given_steps = (
        {str(k): {"mm0.img.mlp.fc2": {"bits": 8, "scale": one, "shift": shift}} for k in (0, 12)}
        for shift in (many, vector)
    )
    told: Any = {"text": text, "list": [one, text, [], {}], "one": one, "none": None}
    summary = {
        "total_timesteps": 2, "total_layers": 1, "total_decisions": 2, "activation_bits": 8,
        "post_gelu_layers_with_shift": 1, "scale_source": "tensor_absmax",
    }  # fmt: skip
    plain = {"format": "per_timestep_quant_config_v4", "per_timestep": steps,
             "sigma_map": {"0": one}, "summary": summary, "metadata": told}  # fmt: skip
    with TemporaryDirectory() as folder:
        for number, entries in enumerate((steps, given_steps)):
            told["vector"] = many if number == 0 else vector
            streamed = {**plain, "per_timestep": Members(partial(iter, entries.items()))}
            write_document(Path(folder) / f"{number}.json", "quant-config-v4", streamed)
            told["vector"] = many
            text = (Path(folder) / f"{number}.json").read_text("utf-8")
            assert text == json.dumps(plain, indent=2)
