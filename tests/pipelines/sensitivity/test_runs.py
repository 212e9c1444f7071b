"""Runs of `sensitivity`: stopped and gone on with, shared, dry, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.sensitivity import job
from taqstore.pipelines.sensitivity.sensitivity import sensitivity

from support.cli_runner import Runner
from support.same_files import files_of
from taqstore.errors import MissingError, MisuseError, StoreError
from taqstore.kinds.sensitivity import sensitivities
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.reader import open_store
from taqstore.upkeep.merge import merge
from taqstore.upkeep.verify import verify_store

TARGETS = ("mm0.img.attn.q_proj", "mm0.img.mlp.fc1", "final_layer.final.linear")
GROUP = "sensitivity/linear/rtn-w3"
SCORES = "scores/linear/rtn-w3"


def run(store: Path, **options: Any) -> Outcome:
    return sensitivity(store, **{"formats": ["rtn-w3"], "seeds": 2, "targets": TARGETS} | options)


def data_of(store: Path) -> dict[str, str]:
    return {
        n: s for n, s in files_of(store, GROUP, SCORES).items() if "/c/" in n and "/items/" not in n
    }


@pytest.fixture(scope="module")
def whole(judged_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = shutil.copytree(judged_store, tmp_path_factory.mktemp("whole") / "run.zarr")
    assert run(Path(path)).groups[GROUP].written == 6
    return Path(path)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    store: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, kept = job.put_effects, []

    def stopping(*given: Any) -> int:
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(given)
        return put(*given)

    with monkeypatch.context() as patch:
        patch.setattr(job, "put_effects", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    with pytest.raises(StoreError, match="--resume keeps them"):
        run(store)
    outcome = run(store, mode=Mode(resume=True))
    assert (outcome.groups[GROUP].written, outcome.groups[GROUP].skipped) == (3, 3)
    assert (outcome.groups[SCORES].written, outcome.groups[SCORES].skipped) == (0, 3)
    assert data_of(store) == data_of(whole)
    assert not verify_store(store).damage
    assert run(store, mode=Mode(resume=True)).written == 0
    assert run(store, mode=Mode(force=True)).groups[GROUP].written == 6


def test_processes_share_the_targets(
    store: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run comes in while the first item is held: it takes all but that one."""
    put, theirs = job.put_effects, []

    def interrupted(*given: Any) -> int:
        if not theirs:
            theirs.append(None)
            theirs[0] = run(store, mode=Mode(resume=True))
        return put(*given)

    with monkeypatch.context() as patch:
        patch.setattr(job, "put_effects", interrupted)
        ours = run(store)
    assert theirs[0].groups[GROUP].written == 5
    assert ours.groups[GROUP].written == 1
    assert any("left to another process" in note for note in theirs[0].notes)
    assert data_of(store) == data_of(whole)


def test_more_images_grow_the_groups_and_two_machines_merge(
    store: Path, whole: Path, judged_store: Path, tmp_path: Path
) -> None:
    run(store, seeds=1, targets=TARGETS[:2])
    run(store, seeds=2, targets=TARGETS[:2], mode=Mode(resume=True))
    other = Path(shutil.copytree(judged_store, tmp_path / "other.zarr"))
    run(other, targets=TARGETS[1:])
    out = tmp_path / "out.zarr"
    merge(store, other, out, duplicates="skip")
    assert data_of(out) == data_of(whole)
    [found], [wanted] = (sensitivities(open_store(p)).values() for p in (out, whole))
    assert found.drop_attrs().identical(wanted.drop_attrs())


def test_a_dry_run_writes_nothing(store: Path) -> None:
    before = files_of(store, ".")
    plan = run(store, mode=Mode(dry_run=True)).plan
    assert files_of(store, ".") == before
    assert plan is not None
    assert {path: (group.to_write, group.done) for path, group in plan.groups.items()} == {
        "trajectories/float": (2, 0),
        GROUP: (6, 0),
        GROUP.replace("sensitivity", "scores"): (3, 0),
    }
    assert plan.amount == 18 + 6
    done = run(store)
    assert {path: counts.bytes_out for path, counts in done.groups.items()} == {
        path: group.bytes for path, group in plan.groups.items() if path in done.groups
    }


def test_what_a_format_cannot_be_of_is_named(store: Path) -> None:
    wanted = ("x_embedder.embed.image", "mm0.img.mlp.fc1")
    outcome = run(store, formats=["mlx-w4-g128"], targets=wanted, seeds=1)
    group = "sensitivity/linear/mlx-w4-g128"
    assert (outcome.groups[group].written, outcome.groups[group].refused) == (1, 1)
    [note] = outcome.notes
    assert note == (
        f"{group}: not measured: 64 inputs are no groups of 128: x_embedder.embed.image"
    )
    with pytest.raises(MissingError, match="no target can be quantized so"):
        run(store, formats=["mlx-w4-g128"], targets=wanted[:1], seeds=1, mode=Mode(resume=True))


def test_few_bits_cost_more_than_many(store: Path) -> None:
    run(store, formats=["rtn-w2", "rtn-w8"], targets=["mm1.img.mlp.fc2"], seeds=1)
    found = sensitivities(open_store(store))
    two, eight = (found["linear", f"rtn-w{bits}"]["latent_error"].values.item() for bits in (2, 8))
    assert two > 20 * eight > 0
    assert np.isfinite(two)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": ["float"]}, "float quantizes nothing"),
        ({"formats": ["nothing"]}, "format 'nothing' is not known"),
        ({"formats": ["rtn/a8-static"]}, "no name of a format"),
        ({"unit": "step"}, "weights are the same at all steps"),
        ({"unit": "layer"}, "unit 'layer' is not known"),
        ({"targets": ["mm9.*"]}, "no target 'mm9"),
        ({"sites": ["mlp.fc3"]}, "site 'mlp.fc3' is not known"),
        ({"blocks": ["mm77"], "targets": ()}, r"block 'mm77' is not known; there is .*mm0"),
        ({"unit": "step", "sites": ["mlp.fc1"], "formats": ["a4-static"]}, "does not choose among"),
        ({"seeds": 0}, "seeds must be"),
    ],
)
def test_misuse_is_refused_before_anything_is_written(
    judged_store: Path, options: dict[str, Any], said: str
) -> None:
    before = files_of(judged_store, ".")
    with pytest.raises(MisuseError, match=said):
        run(judged_store, **options)
    assert files_of(judged_store, ".") == before


def test_the_command_tells_targets_the_worst_first(store: Path, taq: Runner) -> None:
    words = ("sensitivity", store, "--format", "rtn-w2", "--seeds", 1, "--unit", "linear")
    told = taq(*words, "--targets", "mm0.img.attn.?_proj", "--json")
    assert told.code == 0
    rows = json.loads(told.out)["targets"]
    errors = [row["latent_error"] for row in rows]
    assert len(rows) == 4
    assert errors == sorted(errors, reverse=True)
    [found] = sensitivities(open_store(store)).values()
    by_name = {row["linear"]: row for row in rows}
    for name in found["target"].values:
        one = found.sel(target=name)
        assert by_name[name]["latent_error"] == one["latent_error"].values.item()
        assert by_name[name]["worst_step"] == one["worst_step"].values.item()
    assert taq(*words).code == 1
    assert taq(*words, "--format", "float", "--resume").code == 2


@pytest.mark.parametrize("unit", ["linear", "block", "site", "step"])
def test_inputs_that_were_never_observed_leave_nothing(tmp_path: Path, unit: str) -> None:
    prompts, store = tmp_path / "prompts.txt", tmp_path / "run.zarr"
    prompts.write_text("a handwritten two", encoding="utf-8")
    generate(store, Request("reference", prompts, 1, steps=2))
    before = files_of(store, ".")
    with pytest.raises(MissingError, match="never observed"):
        run(store, unit=unit, formats=["a4-static"], targets=())
    assert files_of(store, ".") == before
