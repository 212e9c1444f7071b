"""`generate`, `cache`, `collect` and `profile` as typed: what they write, refuse and survive."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_blocks
from taqstore.pipelines.models.load import to_numpy
from taqstore.pipelines.models.sampling import make_schedule

from support.forks import Fork, Forks, forks
from support.live_capture import needs_models
from support.live_models import TINY, load_tiny, write_checkpoint
from support.same_stores import assert_same_bits, assert_same_stores
from taqstore import open_store
from taqstore.cli import cli
from taqstore.names import COMMIT
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
PROMPTS = ("a cat", "a dog, big", "ein Vogel")
LIVE = ["--stride", "1"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    return write_checkpoint(folder / "w.safetensors")


def arguments(command: str, store: Path, weights: Path, *more: str) -> list[str]:
    given = [command, str(store), "--local-ckpt", str(weights)]
    if command == "generate":
        prompts = str(weights.with_name("prompts.txt"))
        given += ["--model", "tiny", "--prompts", prompts, "--steps", "4"]
    return [*given, *more]


def run(command: str, store: Path, weights: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, arguments(command, store, weights, *more))


def succeed(command: str, store: Path, weights: Path, *more: str) -> Result:
    result = run(command, store, weights, *more)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(command: str, store: Path, weights: Path, *more: str) -> str:
    result = run(command, store, weights, *more)
    assert result.exit_code != 0
    return str(result.exception)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A store of three images with both tracks, every command run once, in this process."""
    store = tmp_path_factory.mktemp("whole") / "run.zarr"
    succeed("generate", store, weights, "--images", "3")
    succeed("cache", store, weights, *LIVE)
    succeed("collect", store, weights, *LIVE)
    return store


@pytest.fixture(scope="module")
def processes() -> Iterator[Forks]:
    """Begins commands that know the tiny models, as processes of their own."""
    needed = ("models.backend:backend", "generate", "cache", "collect.collect", "gptq.gptq")
    modules = [f"taqstore.pipelines.{name}" for name in needed]
    with forks("zarr.codecs", *modules, "support.live_models") as made:
        yield made


def finish(processes: Forks, *words: str) -> None:
    done = processes.run(*words)
    assert done.returncode == 0, done.stderr


def wait_for(condition: Callable[[], bool], process: Fork) -> None:
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def flagged(store: Path, group: str) -> int:
    """Items whose flag is on disk."""
    if not (store / "zarr.json").exists():
        return 0
    opened = open_store(store)
    return int(opened.mask(group).sum()) if group in opened else 0


def test_latents_say_all_that_made_them(whole: Path) -> None:
    latents = open_store(whole)["latents"]
    assert latents["prompt"].values.tolist() == list(PROMPTS)
    assert latents["seed"].values.tolist() == [42, 43, 44]
    assert latents["is_final"].values.tolist() == [False] * 4 + [True]
    assert latents["timestep"].dtype == np.float16
    assert (latents["sigma"].values[0], latents["sigma"].values[-1]) == (1.0, 0.0)
    run = attribute_of(latents, "run")
    assert {k: run[k] for k in ("model", "steps", "shift", "negative_prompt")} == {
        "model": "tiny", "steps": 4, "shift": 3.0, "negative_prompt": "",
    }  # fmt: skip
    assert len(run["weights"]) == 64
    record = open_store(whole).provenance[0]
    assert record["versions"]["mlx"] != "not installed"
    assert record["parameters"]["cfg_weight"] == 7.5


def test_blocks_are_the_streams_of_a_forward_in_float16(whole: Path, weights: Path) -> None:
    store, model = open_store(whole), load_tiny(weights.parent, TINY)
    schedule = make_schedule(model, 4)
    conditioning = model.encode_text(PROMPTS[1], cfg_weight=7.5)
    prompt = model.prepare(conditioning, schedule.timesteps)
    x = backend().mx.array(store["latents"]["x"].sel(image=1, step=2).values[None])
    with watching_blocks(model.mmdit) as streams:
        backend().mx.eval(model.denoise(x, schedule.timesteps[2], schedule.sigmas[2], prompt))
    for name, stream in streams.by_name().items():
        cached = store[f"blocks/{name}"].sel(image=1, step=2)
        assert cached["boundary"].values.tolist() == sorted(stream)
        assert str(cached["timestep"].dtype) == "float16"
        for boundary, tensor in stream.items():
            values = cached["x"].sel(boundary=boundary).values
            assert_same_bits(values, to_numpy(tensor)[:, :, 0], (name, boundary))
    pooled = store["blocks/pooled"]["pooled_conditioning"].sel(image=1)
    assert_same_bits(pooled.values, to_numpy(conditioning.pooled))


def test_the_whole_store_is_sound_and_read_by_the_exporters(whole: Path, tmp_path: Path) -> None:
    assert verify_store(whole).damage == ()
    for kind in ("calibration-samples", "adaround-cache", "timestep-stats"):
        result = CliRunner().invoke(cli, ["export", kind, str(whole), "-o", str(tmp_path / kind)])
        assert result.exit_code == 0, (kind, result.output, result.exception)


def test_images_are_added_and_fresh_processes_give_the_same(
    whole: Path, weights: Path, tmp_path: Path, processes: Forks
) -> None:
    """Later images alone in a process of their own, against all images in one process."""
    store = tmp_path / "run.zarr"
    succeed("generate", store, weights, "--images", "1")
    finish(processes, *arguments("generate", store, weights, "--images", "3", "--resume"))
    for command in ("cache", "collect"):
        finish(processes, *arguments(command, store, weights, *LIVE, "--images", "2"))
        succeed(command, store, weights, *LIVE, "--images", "0-1", "--resume")
    ours, theirs = open_store(store), open_store(whole)
    for group in theirs:
        dim = "batch" if "batch" in theirs[group].dims else "image"
        found = ours[group].sel({dim: theirs[group][dim]})
        for name, variable in theirs[group].data_vars.items():
            assert_same_bits(found[name].values, variable.values, f"{group} {name}")


def test_another_configuration_is_refused_by_the_names_of_what_differs(
    whole: Path, weights: Path
) -> None:
    said = refused(
        "generate", whole, weights, "--images", "3", "--resume", "--cfg", "3", "--seed", "1"
    )
    assert "cfg_weight (store 7.5, asked 3.0); seed (store 42, asked 1)" in said
    assert "steps" not in said
    assert "already holds 3 of the 3 items" in refused("generate", whole, weights, "--images", "3")
    assert "step (store int64[0, 1" in refused("cache", whole, weights, "--resume")
    said = refused("collect", whole, weights, *LIVE, "--resume", "--histogram-bits", "4")
    assert "bin_left" in said
    assert "boundary (store" in refused(
        "cache", whole, weights, *LIVE, "--resume", "--blocks", "mm0,mm1"
    )
    assert "no block mm7" in refused("cache", whole, weights, "--blocks", "mm7")


def test_ingested_latents_run_through_the_model_that_is_named(
    whole: Path, weights: Path, tmp_path: Path
) -> None:
    folder, store = tmp_path / "calibration_data", tmp_path / "ingested.zarr"
    for words in (
        ["export", "calibration-samples", str(whole), "-o", str(folder)],
        ["ingest", str(folder), str(store)],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, (done.output, done.exception)
    assert "name it with --model" in refused("collect", store, weights, *LIVE)
    for command in ("cache", "collect"):
        succeed(command, store, weights, "--model", "tiny", *LIVE)
    ours, theirs = open_store(store), open_store(whole)
    for path in (p for p in theirs if p.startswith(("activations/", "blocks/"))):
        # What they were made from has another id; what was seen is the same to the bit.
        xr.testing.assert_identical(
            ours[path].load().drop_attrs(deep=False), theirs[path].load().drop_attrs(deep=False)
        )
    assert "model tiny" in CliRunner().invoke(cli, ["info", str(store)]).output


def test_new_latents_refuse_the_old_ones_blocks(weights: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    succeed("generate", store, weights, "--images", "1")
    succeed("cache", store, weights)
    succeed("generate", store, weights, "--images", "1", "--force", "--seed", "7")
    assert "other settings: latents (store" in refused("cache", store, weights, "--resume")
    succeed("cache", store, weights, "--force")
    assert verify_store(store).damage == ()


def test_cache_says_what_it_will_write_and_what_is_free(
    whole: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "run.zarr"
    succeed("generate", store, weights, "--images", "1")
    result = succeed("cache", store, weights, "--stride", "2", "--blocks", "mm1")
    image, text, pooled = 2 * 8 * 32 * 2, 2 * 5 * 32 * 2, 2 * 24 * 2
    needed = 2 * 2 * (image + text) + pooled
    assert f"({needed} bytes), free: " in result.stderr
    usage = SimpleNamespace(total=10, used=9, free=1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    said = refused("cache", store, weights, "--stride", "1", "--force")
    assert "bytes will not fit (found 1 bytes free)" in said


def test_resume_does_only_what_is_missing(whole: Path, weights: Path) -> None:
    for command in ("generate", "cache", "collect"):
        more = ["--images", "3"] if command == "generate" else LIVE
        result = succeed(command, whole, weights, *more, "--resume", "--json")
        groups = json.loads(result.stdout)["groups"]
        assert all(c["written"] == 0 and c["skipped"] > 0 for c in groups.values())
    assert "exclude each other" in run("collect", whole, weights, "--resume", "--force").output


def test_pictures_are_saved(weights: Path, tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    succeed(
        "generate", tmp_path / "run.zarr", weights, "--images", "2", "--save-images", str(pictures)
    )
    assert [p.name for p in sorted(pictures.iterdir())] == ["0000.png", "0001.png"]
    with Image.open(pictures / "0000.png") as picture:
        assert picture.size == (4, 8)


def test_profile_collects_what_is_missing_and_draws(weights: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "run.zarr", tmp_path / "figures"
    succeed("generate", store, weights, "--images", "1")
    result = succeed("profile", store, weights, "-o", str(out))
    assert list(open_store(store)) == ["activations/mlp.fc2", "latents"]
    assert "median_range" in result.stdout
    kinds = {path.name.split("_")[0] for path in out.iterdir() if path.suffix == ".png"}
    assert kinds == {"range", "histogram", "channels", "heatmap", "negative"}
    before = len(open_store(store).provenance)
    succeed("profile", store, weights, "-o", str(out))
    assert len(open_store(store).provenance) == before


def test_ctrl_c_leaves_a_whole_store_and_says_how_to_go_on(
    weights: Path, tmp_path: Path, processes: Forks
) -> None:
    store = tmp_path / "run store.zarr"
    process = processes.start(*arguments("generate", store, weights, "--images", "400"))
    wait_for(lambda: flagged(store, "latents") >= 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert verify_store(store).damage == ()
    assert not list(store.rglob("*.partial"))
    done = flagged(store, "latents")
    assert 2 <= done < 400
    words = shlex.split(said.splitlines()[-1])
    assert words[:2] == ["taqstore", "generate"]
    assert words[-1] == "--resume"
    assert Path(words[2]) == store
    again = processes.start(*words[1:])
    wait_for(lambda: flagged(store, "latents") > done, again)
    assert flagged(store, "latents") > done
    again.kill()
    again.communicate()


def test_ctrl_c_in_gptq_says_how_to_go_on(
    whole: Path, weights: Path, tmp_path: Path, processes: Forks
) -> None:
    """A real signal once a layer is flagged; what is printed makes what an unbroken run does."""
    stores = [Path(shutil.copytree(whole, tmp_path / name)) for name in ("a store.zarr", "b.zarr")]
    # Enough layers that some are left once the first is flagged, however slowly that is noticed.
    small = ["--weight-group-size", "16", "--set", "w3"]
    process = processes.start(*arguments("gptq", stores[0], weights, *small))
    # By the flag's file: to open the store takes as long as the layers that are left.
    weights_of_set = stores[0] / "weights" / "w3"
    wait_for(lambda: any(weights_of_set.glob(f"*/{COMMIT}/c*")), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert verify_store(stores[0]).damage == ()
    words = shlex.split(said.splitlines()[-1])
    assert words == ["taqstore", *arguments("gptq", stores[0], weights, *small), "--resume"]
    finish(processes, *words[1:])
    succeed("gptq", stores[1], weights, *small)
    assert_same_stores(*stores)


def test_both_tracks_at_once_killed_and_resumed_equal_a_serial_run(
    whole: Path, weights: Path, tmp_path: Path, processes: Forks
) -> None:
    """Two processes on one store, SIGKILLed at random moments of writing, until both are done."""
    store, rng = tmp_path / "run.zarr", np.random.default_rng(1)
    succeed("generate", store, weights, "--images", "3")
    tracks = {"cache": "blocks/img", "collect": "activations/mlp.fc2"}
    for _ in range(2):
        running = {
            c: processes.start(*arguments(c, store, weights, *LIVE, "--resume")) for c in tracks
        }
        for command, process in running.items():
            before = flagged(store, tracks[command])
            wait_for(
                lambda c=command, n=before: flagged(store, tracks[c]) > n,  # type: ignore[misc]
                process,
            )
            time.sleep(float(rng.uniform(0, 0.05)))
            process.kill()
            process.communicate()
    for command in tracks:
        finish(processes, *arguments(command, store, weights, *LIVE, "--resume"))
    assert_same_stores(store, whole, attributes=False)
    assert verify_store(store).damage == ()


@pytest.mark.parametrize(
    ("command", "expected"),
    [("cache", ["a", "r"]), ("collect", ["a", "r"]), ("profile", ["a", "r"]), ("evaluate", ["r"])],
)
def test_a_store_is_opened_once(
    command: str, expected: list[str], weights: Path, tmp_path: Path, openings: list[str]
) -> None:
    """Once to read and, where it is written to, once to write."""
    store = tmp_path / "run.zarr"
    succeed("generate", store, weights, "--images", "1")
    openings.clear()
    more = {"profile": ["-o", str(tmp_path / "figures")], "evaluate": ["--variant", "rtn"]}
    succeed(command, store, weights, *more.get(command, []))
    assert sorted(openings) == expected


def test_a_picture_that_cannot_be_had_costs_no_latents(tmp_path: Path, weights: Path) -> None:
    """The image is committed before it is decoded, and the exit code is that of the latents."""
    pictures, store = tmp_path / "pictures", tmp_path / "s.zarr"
    (pictures / "0001.png" / "in the way").mkdir(parents=True)
    done = succeed("generate", store, weights, "--images", "3", "--save-images", str(pictures))
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert line.startswith("note: PNG files left out, of which the store has the pictures: ")
    assert "0001.png" in line
    assert [p.is_file() for p in sorted(pictures.iterdir())] == [True, False, True]
    assert open_store(store)["latents"]["image"].values.tolist() == [0, 1, 2]
    assert verify_store(store).damage == ()
