"""The Zarr tree is read by zarrita, which is what pages of browsers read Zarr with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import taqstore
from support.running import running
from taqstore.testing import RunShape, make_store

VERSION = "0.7.5"
GROUP = "activations/mlp.fc2"
SHAPE = RunShape(images=3, steps=6, blocks=2, hidden=8, image_tokens=5, text_tokens=3)
# Of floats of half width Node 20 has no arrays.
NAMES = ("mean", "m2", "histogram", "count", "sigma", "image", "layer", "written")
SCRIPT = """
import * as zarr from "zarrita";
const [url, ...names] = process.argv.slice(2);
const root = zarr.root(new zarr.FetchStore(url));
const found = {};
for (const name of names) {
  const array = await zarr.open.v3(root.resolve(name), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  const values = Array.from(data, (value) => {
    if (typeof value === "bigint") return Number(value);
    return Number.isNaN(value) ? null : value;
  });
  found[name] = { shape, values };
}
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> Path:
    """The script beside zarrita, which npm fetches once."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("zarrita was not tried: there is no Node.js here")
    folder = Path(request.config.cache.mkdir(f"zarrita-{VERSION}"))  # type: ignore[union-attr]
    if not (folder / "node_modules/zarrita/package.json").exists():
        words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            [*words, "--prefix", str(folder), f"zarrita@{VERSION}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"zarrita was not tried: npm does not fetch it ({done.stderr[-200:]})")
    path = folder / "read.mjs"
    path.write_text(SCRIPT)
    return path


def test_zarrita_reads_what_the_library_shows(script: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "run.zarr", shape=SHAPE)
    own = taqstore.open_store(store, incomplete=True)[GROUP]
    with running(store) as served:
        url = f"{served.url}/zarr/run.zarr/{GROUP}"
        words = ["node", str(script), url, *NAMES]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in NAMES:
        expected = own[name].values
        assert tuple(found[name]["shape"]) == expected.shape, name
        values = found[name]["values"]
        if expected.dtype.kind == "f":
            read = np.array(values, np.float64).astype(expected.dtype).reshape(expected.shape)
            np.testing.assert_array_equal(read, expected)
        else:
            assert values == expected.ravel().tolist(), name
