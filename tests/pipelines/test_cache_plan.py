"""`cache --plan`: sizes told by templates alone are those of a run, and of the paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from taqstore.pipelines.cache import cache
from taqstore.pipelines.cache_plan import GroupSize, Requests, Wanted, plan_cache
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.model_shapes import SHAPES
from taqstore.pipelines.models.table import MODELS

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.s3_server import S3Server
from taqstore.errors import MisuseError, TaqError

SMALL = Wanted(images=2, steps=3, stride=2)


def streams_by_hand(name: str, images: int, steps: int) -> dict[str, int]:
    """Bytes of values of each stream, from nothing but the sizes that the papers tell."""
    bytes_of = {
        # rows x (64 x 64 image | 77 + 77 text) tokens x channels x boundaries, float16
        "sd3-medium": {
            "img": 2 * 64 * 64 * 1536 * 25 * 2,
            "txt": 2 * (77 + 77) * 1536 * 24 * 2,
        },
        "flux-dev": {
            "img": 64 * 64 * 3072 * 20 * 2,
            "txt": 512 * 3072 * 20 * 2,
            "uni": (64 * 64 + 512) * 3072 * 39 * 2,
        },
        # 81 frames are 21 latents of 30 x 52 tokens
        "wan2.2-a14b": {"img": 2 * 21 * 30 * 52 * 5120 * 41 * 2},
    }
    return {stream: size * images * steps for stream, size in bytes_of[name].items()}


@pytest.mark.parametrize(
    ("name", "images", "whole", "rolling"),
    [
        ("sd3-medium", 1000, 32.6e12, 2.6e12),
        ("flux-dev", 1000, 83.5e12, 4.2e12),
        ("wan2.2-a14b", 128, 176.1e12, 8.6e12),
    ],
)
def test_internet_scale(name: str, images: int, whole: float, rolling: float) -> None:
    plan = plan_cache(SHAPES[name], Wanted(images, 50, stride=1))
    assert plan.whole.bytes == pytest.approx(whole, rel=0.003)
    assert plan.rolling.bytes == pytest.approx(rolling, rel=0.015)
    assert plan.forwards == images * 50
    found = {group.path.rpartition("/")[2]: group.bytes for group in plan.whole.groups}
    for stream, size in streams_by_hand(name, images, 50).items():
        # Checksums of chunks and the index of a shard are all that is added: 20 bytes a boundary.
        assert 0 < found[stream] - size <= images * 50 * (41 * 20 + 4)


@needs_models
def test_sizes_of_models_that_run_are_their_configs() -> None:
    from taqstore.pipelines.models.backend import backend
    from taqstore.pipelines.models.table import resolve

    io = backend().model_io
    for name in ("reference", "sd3-medium", "flux-schnell"):
        row, shape = MODELS[name], SHAPES[name]
        config = resolve(row.config)() if row.config else io._CONFIG[row.hub]
        assert (shape.width, shape.multimodal, shape.unified, shape.pooled) == (
            config.hidden_size,
            config.depth_multimodal,
            config.depth_unified,
            config.pooled_text_embed_dim,
        )
        assert shape.rows == 1 + row.guidance
        height, width = row.latent_size
        assert SHAPES[name].image_tokens((height * 8, width * 8), 1) == height * width // 4


def make_latents(store: str | Path, folder: Path) -> None:
    prompts = folder / "prompts.txt"
    prompts.write_text("a two\na seven", encoding="utf-8")
    generate(store, Request("reference", prompts, 2, steps=SMALL.steps))


@needs_models
@pytest.mark.parametrize("chosen", [None, ("mm1", "mm5")])
def test_a_run_writes_what_is_planned(tmp_path: Path, chosen: tuple[str, ...] | None) -> None:
    store = tmp_path / "run.zarr"
    make_latents(store, tmp_path)
    cache(store, stride=SMALL.stride, chosen=chosen)
    wanted = Wanted(SMALL.images, SMALL.steps, SMALL.stride, chosen=chosen)
    for group in plan_cache(SHAPES["reference"], wanted).whole.groups:
        assert measured(store, group) == group


def measured(store: Path, group: GroupSize) -> GroupSize:
    """A group as it lies on disk."""
    name = "pooled_conditioning" if group.path.endswith("pooled") else "x"
    shards = [path for path in (store / group.path / name / "c").rglob("*") if path.is_file()]
    files = [path for path in (store / group.path).rglob("*") if path.is_file()]
    (size,) = {path.stat().st_size for path in shards}
    return GroupSize(group.path, len(shards), size, len(files))


@needs_models
def test_requests_are_those_of_a_server(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    store = f"{bucket}/run.zarr"
    make_latents(store, tmp_path)
    with s3.counted() as count:
        cache(store, stride=SMALL.stride)
    plan = plan_cache(SHAPES["reference"], SMALL).whole
    of_items = ("/x/c/", "/pooled_conditioning/c/", "/items/commit/c.")
    puts = [key for key in count.keys("PUT") if any(part in key for part in of_items)]
    assert len(puts) == plan.requests.put
    assert len([k for k in count.keys("GET") if of_items[2] in k]) == plan.requests.get
    # Documents, coordinates, locks, closed flags and the record of the run.
    assert plan.requests.put < count["PUT"] <= plan.requests.put + 120


def test_what_large_objects_take_and_cost() -> None:
    requests = Requests()
    requests.add(1000, 20 << 20)  # begun, in four parts of 5 MB, ended; a claim and a flag
    assert (requests.put, requests.get, requests.list, requests.delete) == (8000, 2000, 1, 1)
    assert requests.cost(5.0, 0.4) == pytest.approx((8001 * 5 + 2000 * 0.4) / 1e6)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"stride": 0}, {"size": (7, 64)}, {"frames": -1}])
def test_no_such_plan(wrong: dict[str, object]) -> None:
    with pytest.raises(MisuseError, match="at least 1"):
        plan_cache(SHAPES["sd3-medium"], Wanted(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.frames == 1])
def test_no_video_of_a_model_of_images(name: str) -> None:
    with pytest.raises(MisuseError, match=f"{name} makes no video"):
        plan_cache(SHAPES[name], Wanted(frames=5))
    still = plan_cache(SHAPES[name], Wanted(frames=1))
    assert still.whole == plan_cache(SHAPES[name], Wanted()).whole


def test_no_such_block() -> None:
    with pytest.raises(TaqError, match="mm24"):
        plan_cache(SHAPES["sd3-medium"], Wanted(chosen=("mm24",)))


def test_the_command_needs_neither_model_nor_store(taq: Runner) -> None:
    told = taq("cache", "--plan", "--stride", "1", "--put-price", "5", "--workers", "2",
               "--forward-seconds", "2")  # fmt: skip
    assert told.code == 0
    rows = [line.split() for line in told.out.splitlines()]
    assert [row[0] for row in rows[1::2]] == list(SHAPES)
    sd3 = next(row for row in rows if row[:2] == ["sd3-medium", "whole"])
    assert sd3[2:4] == ["32.6", "TB"]
    assert sd3[-4:] == ["13", "h", "53", "min"]
    videos = taq("cache", "--plan", "--frames", "5", "--json")
    assert [plan["model"] for plan in json.loads(videos.out)] == ["wan2.2-a14b"]
    one = taq("cache", "--plan", "--model", "wan2.2-a14b", "--num-images", "128", "--stride", "1",
              "--json")  # fmt: skip
    assert json.loads(one.out)["whole"]["bytes"] == pytest.approx(176e12, rel=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--plan", "x.zarr"), "--plan needs no STORE"),
        (("--plan", "--resume"), "--resume is for running"),
        (("x.zarr", "--steps", "3"), "--steps is for --plan"),
        ((), "Missing argument 'STORE'"),
        (("--plan", "--size", "9"), "no size"),
    ],
)
def test_what_contradicts_is_misuse(taq: Runner, words: tuple[str, ...], said: str) -> None:
    told = taq("cache", *words)
    assert told.code == 2
    assert said in told.err
