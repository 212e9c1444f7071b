"""Formats that complete a model: without one they are refused in words, whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.weight_store import write_weights
from taqstore import open_store
from taqstore.errors import MisuseError
from taqstore.export.formats import FORMATS, export


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.layout])
@pytest.mark.parametrize("given", [{}, {"base": None}, {"base": "model.safetensors"}])
def test_a_model_must_be_given(name: str, given: dict[str, str | None], tmp_path: Path) -> None:
    opened = open_store(write_weights(tmp_path / "w.zarr"), chunks=None)
    with pytest.raises(MisuseError, match=rf"{name} completes a model.*give base, a .*\.Base"):
        export(name, opened, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
