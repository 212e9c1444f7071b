"""A checkpoint stands for the file it is: no other file of the hub is taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.models.adapter import known
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import load_pipeline
from taqstore.pipelines.models.table import MODELS

from support.live_capture import needs_models
from support.live_models import TINY_FLUX, load_tiny
from taqstore.errors import TaqError

pytestmark = needs_models
ONE_FILE = {"sd3-medium": True, "flux-schnell": False}


@pytest.mark.parametrize(("name", "together"), ONE_FILE.items())
def test_the_vae_is_in_the_checkpoint_or_is_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, together: bool
) -> None:
    """DiffusionKit has one global for both; what it asks the hub for is seen here."""
    io, row, own = backend().model_io, MODELS[name], tmp_path / "own.safetensors"
    asked: list[str] = []

    def fetch(repo: str, file: str, *_: Any, **__: Any) -> str:
        asked.append(f"{repo}/{file}")
        return str(tmp_path / "hub" / file)

    monkeypatch.setattr(io, "hf_hub_download", fetch)
    with known(backend(), row, own, None):
        assert str(own) == io.LOCAl_SD3_CKPT
        assert io.hf_hub_download(row.hub, "config.json") == str(own)
    file = io._MMDIT[row.hub]["vae"]
    with known(backend(), row, own, None, part="vae") as fetched:
        used = io.LOCAl_SD3_CKPT or io.hf_hub_download(row.hub, file)
    expected = own if together else tmp_path / "hub" / file
    assert used == str(expected)
    assert asked == ([] if together else [f"{row.hub}/{file}"])
    assert list(fetched.values()) == ([] if together else [expected])


def test_a_checkpoint_without_a_vae_is_one_line(tmp_path: Path) -> None:
    """A denoiser alone samples; only its pictures cannot be had."""
    from dataclasses import replace

    checkpoint = load_tiny(tmp_path, TINY_FLUX).checkpoint
    model = load_pipeline(replace(TINY_FLUX, decoder="diffusionkit"), local_ckpt=checkpoint)
    with pytest.raises(TaqError, match=r"the VAE of .* does not load \(found .*; pictures need"):
        model.picture(backend().mx.zeros((1, 4, 4, 16)))
