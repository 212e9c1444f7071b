"""`--staging` holds for the command that it is given to."""

from __future__ import annotations

import os

import pytest

from support.cli_runner import Runner
from taqstore.arrays.staged import VARIABLE


@pytest.mark.parametrize("before", [None, "7GB"])
def test_it_holds_for_one_command(
    taq: Runner, tmp_path: object, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(VARIABLE, before)
    done = taq("adaround", f"{tmp_path}/none.zarr", "--staging", "2GB")
    assert done.code == 1
    assert "no store here" in done.err
    assert os.environ.get(VARIABLE) == before


def test_no_size_is_misuse(taq: Runner, tmp_path: object) -> None:
    done = taq("adaround", f"{tmp_path}/none.zarr", "--staging", "much")
    assert done.code == 2
    assert "no size: 'much'" in done.err
