"""An exporter made up for tests: one line per group of a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize
from taqstore.query.sites import site_groups


def toy(
    groups: Mapping[str, xr.Dataset], out: Path, *, source: str = "toy", force: bool = False
) -> Summary:
    lines = [
        f"{site} {float(data['max'].max())}" for site, data in site_groups(groups, source).items()
    ]
    with whole_file(out, force=force) as fresh:
        fresh.write_text("\n".join(lines), encoding="utf-8")
    return summarize(out)
