"""What `taqstore adaround` asks of a bucket does not depend on how long it optimises."""

from __future__ import annotations

from pathlib import Path

import pytest
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.models.rounding import Settings

from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store
from support.s3_server import S3Server
from support.same_stores import assert_same_bits
from support.uploaded import uploaded
from taqstore import open_store

pytestmark = needs_models


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("requests"), TINY)


def test_iterations_take_no_requests(filled: Path, bucket: str, s3: S3Server) -> None:
    checkpoint, totals = filled.with_name("w.safetensors"), []
    for iterations in (6, 60):
        address = uploaded(filled, f"{bucket}/{iterations}.zarr")
        settings = Settings(bits=3, iterations=iterations, batch_size=4, learning_rate=0.05)
        with s3.counted() as count:
            adaround(address, settings=settings, chosen=["mm0"], local_ckpt=checkpoint)
        totals.append({what: count[what] for what in ("GET", "PUT", "LIST", "HEAD")})
    assert totals[0] == totals[1]
    local = filled.with_name("local.zarr")
    filled.rename(local)
    adaround(local, settings=settings, chosen=["mm0"], local_ckpt=checkpoint)
    ours, theirs = open_store(address), open_store(local)
    assert set(ours) == set(theirs)
    for path in ours:
        if path.startswith("weights/"):
            for name, expected in theirs[path].data_vars.items():
                assert_same_bits(ours[path][name], expected, name)
