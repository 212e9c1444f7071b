"""Bad items: one clear line each, the good ones stored, and after mending the same store."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from taqstore.pipelines.ingest import ingest

from support.same_stores import assert_same_bits, assert_same_stores, raw_arrays
from taqstore.run.mode import Mode
from taqstore.testing import RunShape, damage, make_run_folder
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(
    images=3, steps=4, blocks=2, hidden=4, image_tokens=3, text_tokens=2, latent=(2, 3),
    channels=4, stats_stride=2, cache_stride=2,
)  # fmt: skip
SAMPLE = "samples/0001_002.npz"
CACHED = "adaround_cache/samples/0001_002.npz"
STEP = "activations/timestep_stats/step_2.npz"
INDEX = "activations/timestep_stats/step_2_index.json"
STATISTICS = "activations/layer_statistics.json"
METADATA = "adaround_cache/metadata.json"
KEY = "mm0_img_mlp_fc2__avg_max"

Damage = Callable[[Path], Any]


Lost = dict[str, list[tuple[int, ...]]]


class Case(NamedTuple):
    """A defect, what its line must say, and the items (positions) that must stay unflagged."""

    name: str
    break_it: Damage
    line: str
    lost: Lost
    lines: int = 1


SITES = ("attn.o_proj", "attn.qkv", "mlp.fc1", "mlp.fc2")
ONE_IMAGE: Lost = {"latents": [(1,)]}
ONE_SAMPLE: Lost = {"blocks/img": [(1, 1)], "blocks/txt": [(1, 1)]}
ONE_STEP: Lost = {f"pooled/timestep_stats/{site}": [(1,)] for site in SITES}
ONE_SITE: Lost = {"pooled/timestep_stats/mlp.fc2": [(1,)]}


def on(file: str, function: Callable[..., Any], *given: Any, **options: Any) -> Damage:
    return lambda run: function(run / file, *given, **options)


def rewrite(file: str, change: Callable[[Any], Any]) -> Damage:
    return on(file, damage.edit_json, change)


def latents(name: str, line: str, function: Callable[..., Any], /, *given: Any, **how: Any) -> Case:
    return Case(f"latents-{name}", on(SAMPLE, function, *given, **how), SAMPLE + line, ONE_IMAGE)


X = (1, 2, 3, 4)
LATENTS = [
    latents("truncated", ".*not a complete npz", damage.truncate),
    latents("half-written", ".*not a complete npz", damage.truncate, keep=0.95),
    latents("empty", ".*not a complete npz", damage.truncate, keep=0),
    latents("flipped-bit", ": x: ", damage.flip_bit, member="x"),
    latents("no-sigma", ": sigma: no such key", damage.drop_key, "sigma"),
    latents("wrong-key", ": x: no such key", damage.rename_key, "x", "latent"),
    latents("shape", ": x: .*2, 3, 5", damage.replace_array, "x", np.zeros((1, 2, 3, 5), "f4")),
    latents("dtype", ": x: .*float64", damage.replace_array, "x", np.full(X, 0.1)),
    latents("halved", ": x: .*float16", damage.replace_array, "x", np.zeros(X, np.float16)),
    latents("id", ": image_id: .*7", damage.replace_array, "image_id", np.int32(7)),
    latents("step", ": step_index: .*3", damage.replace_array, "step_index", np.int32(3)),
    latents("final", ": is_final: ", damage.replace_array, "is_final", np.bool_(True)),
    latents("nan", ": x: NaN or Inf", damage.poison, "x", index=7),
    latents("inf", ": x: NaN or Inf", damage.poison, "x", value=-np.inf, index=23),
    latents("sigma", ": sigma: NaN or Inf", damage.poison, "sigma"),
    latents("timestep", ": timestep: ", damage.replace_array, "timestep", np.float16(123)),
    latents("terabytes", ": x: claims 8796", damage.claim_terabytes, key="x"),
    latents("up", ".*'../evil.npy' is not", damage.rename_key, "x", "../evil"),
    latents("slash", ".*'/etc/x.npy' is not", damage.rename_key, "x", "/etc/x"),
    latents("backslash", r".*evil.npy' is not", damage.rename_key, "x", "..\\evil"),
    Case("latents-hole", lambda run: damage.drop_step(run, step=0, image=1),
         "image 1: step 0 is missing", ONE_IMAGE),
    Case("latents-last", lambda run: damage.drop_step(run, step=4, image=1),
         "image 1: step 4 is missing", ONE_IMAGE),
    Case("manifest-hole", lambda run: damage.hole_in_manifest(run, image=1),
         "image 1: samples without a manifest entry.*image_id", ONE_IMAGE),
    Case("manifest-duplicate", lambda run: damage.duplicate_image(run, image=2, of=1),
         "image_id 1 is there 2 times|image 2: samples without", {"latents": [(1,), (2,)]}, 2),
    Case("manifest-no-prompt", rewrite("manifest.json", lambda d: d["images"][1].pop("prompt")),
         "manifest.json: image 1: no key 'prompt'", ONE_IMAGE),
]  # fmt: skip


def blocks(name: str, line: str, function: Callable[..., Any], /, *given: Any, **how: Any) -> Case:
    return Case(f"blocks-{name}", on(CACHED, function, *given, **how), CACHED + line, ONE_SAMPLE)


BLOCKS = [
    blocks("truncated", ".*not a complete npz", damage.truncate),
    blocks("flipped-bit", ": mm0__out0: ", damage.flip_bit, member="mm0__out0"),
    blocks("no-key", ": mm0__arg1: missing", damage.drop_key, "mm0__arg1"),
    blocks("new-key", ": mm9__arg0|mm0__arg1", damage.rename_key, "mm0__arg1", "mm9__arg0"),
    blocks("shape", ": mm0__arg0: ", damage.replace_array, "mm0__arg0", np.zeros((2, 3, 1, 5))),
    blocks("dtype", ": mm0__out0: ", damage.replace_array, "mm0__out0", np.full((2, 3, 1, 4), 0.1)),
    blocks("nan", ": mm0__arg0: NaN or Inf", damage.poison, "mm0__arg0"),
    blocks("nan-output", ": mm0__out0: NaN or Inf", damage.poison, "mm0__out0"),
    blocks("clock", ": mm0__arg2: ", damage.poison, "mm0__arg2", value=3.0),
    blocks("terabytes", ": mm0__arg0: claims", damage.claim_terabytes, key="mm0__arg0"),
    blocks("up", ".*'../evil.npy'", damage.rename_key, "mm0__arg0", "../evil"),
    Case("blocks-gone", lambda run: (run / CACHED).unlink(), CACHED + ": missing", ONE_SAMPLE),
    Case("blocks-path", rewrite(METADATA, lambda d: d["samples"][3].update(file="../../x.npz")),
         r"metadata.json: samples\[3\]: file is not 0001_002.npz", ONE_SAMPLE),
]  # fmt: skip


def stats(name: str, line: str, break_it: Damage, lost: Lost = ONE_SITE) -> Case:
    return Case(f"statistics-{name}", break_it, line, lost)


# A bad array spoils one site's step, a bad file that step of all four sites.
STATS = [
    stats("truncated", f"{STEP}: not a complete npz", on(STEP, damage.truncate), ONE_STEP),
    stats("gone", f"{STEP}: cannot be read", lambda run: (run / STEP).unlink(), ONE_STEP),
    stats("flipped-bit", f"{STEP}: {KEY}: ", on(STEP, damage.flip_bit, member=KEY)),
    stats("no-key", f"{STEP}: {KEY}: missing", on(STEP, damage.drop_key, KEY), ONE_STEP),
    stats("shape", f"{STEP}: {KEY}: ", on(STEP, damage.replace_array, KEY, np.zeros(17))),
    stats("dtype", f"{STEP}: {KEY}: ", on(STEP, damage.replace_array, KEY, np.zeros(16, "f4"))),
    stats("nan", f"{STEP}: {KEY}: NaN or Inf", on(STEP, damage.poison, KEY, index=3)),
    stats("terabytes", f"{STEP}: {KEY}: claims",
          on(STEP, damage.claim_terabytes, key=KEY), ONE_STEP),
    stats("up", f"{STEP}: member '../evil.npy'",
          on(STEP, damage.rename_key, KEY, "../evil"), ONE_STEP),
    stats("index", f"{INDEX}: not valid JSON", on(INDEX, damage.truncate), ONE_STEP),
    stats("layer", f"{STEP}: ", rewrite(INDEX, lambda d: d.pop("mm0.img.mlp.fc1")), ONE_STEP),
    stats("sigma", f"{STATISTICS}: sigma_map: no key '2'",
          rewrite(STATISTICS, lambda d: d["sigma_map"].pop("2")), ONE_STEP),
]  # fmt: skip
PARTS = {"latents": LATENTS, "blocks": BLOCKS, "activations": STATS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("made") / "run", shape=SHAPE)


@pytest.fixture(scope="module")
def whole(run: Path) -> dict[str, Path]:
    """Each part of the run in a store of its own."""
    paths = {only: run.parent / f"{only}.zarr" for only in ("latents", "blocks", "activations")}
    for only, path in paths.items():
        assert ingest([run], path, only=[only]).problems == []
    return paths


@pytest.fixture(scope="module")
def expected(whole: dict[str, Path]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of these stores."""
    return {only: raw_arrays(path) for only, path in whole.items()}


def check_good_items(store: Path, theirs: dict[str, np.ndarray], lost: Lost) -> None:
    """Everything but the lost items is flagged, and every flagged item has the right bytes."""
    ours = raw_arrays(store)
    assert sorted(ours) == sorted(theirs)
    for group in {name.rpartition("/")[0] for name in ours}:
        mask = np.ones_like(ours[f"{group}/written"])
        for item in lost.get(group, []):
            mask[item] = False
        assert_same_bits(ours[f"{group}/written"], mask, group)
        for name in (n for n in ours if n.startswith(f"{group}/") and ours[n].ndim > mask.ndim):
            for item in zip(*np.nonzero(mask), strict=True):
                assert_same_bits(ours[name][item], theirs[name][item], (name, item))


def check_lines(lines: list[str], case: Case) -> None:
    """One line each that names the file and key, and what to do."""
    assert len(lines) == case.lines, lines
    for line in lines:
        assert "\n" not in line
        assert len(line) < 500
        assert re.search(case.line, line), line
        assert "; " in line, f"no remedy: {line}"


@pytest.mark.parametrize("case", [*LATENTS, *BLOCKS, *STATS], ids=lambda case: case.name)
def test_bad_items(
    tmp_path: Path,
    run: Path,
    whole: dict[str, Path],
    expected: dict[str, dict[str, np.ndarray]],
    case: Case,
) -> None:
    broken, store = Path(shutil.copytree(run, tmp_path / "run")), tmp_path / "s.zarr"
    only = next(part for part, cases in PARTS.items() if case in cases)
    case.break_it(broken)
    summary = ingest([broken], store, only=[only])
    check_lines(summary.problems, case)
    check_good_items(store, expected[only], case.lost)
    refused = {path: c.refused for path, c in summary.groups.items() if c.refused}
    assert refused == {group: len(items) for group, items in case.lost.items()}
    assert verify_store(store).damage == ()
    shutil.rmtree(broken)
    shutil.copytree(run, broken)  # mended
    again = ingest([broken], store, only=[only], mode=Mode(resume=True))
    assert again.problems == []
    assert not any(c.refused for c in again.groups.values())
    assert_same_stores(store, whole[only])
