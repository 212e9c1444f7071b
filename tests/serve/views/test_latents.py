"""Latents as pictures: the map is linear and told, and PNGs hold what it gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from support.given_service import GivenService
from support.trajectory_groups import trajectory_groups
from taqstore.errors import MissingError
from taqstore.files.png import png_bytes
from taqstore.serve.views.latent_colours import LatentColours, colours_of, pooled
from taqstore.serve.views.latents import picture, sheet, strip

RUN = "run.zarr"


def pixels_of(content: bytes | Path) -> np.ndarray:
    assert isinstance(content, bytes)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return np.asarray(image)


@pytest.fixture
def asked() -> GivenService:
    """Latents of five images at seven steps, pictures of three of them, and trajectories."""
    judged = trajectory_groups()
    latents = judged["trajectories/float"][["x"]].assign_attrs(id="these")
    pixels = np.random.default_rng(1).integers(0, 256, size=(3, 12, 9, 3), dtype=np.uint8)
    pictures = xr.Dataset(
        {"picture": (("image", "height", "width", "colour"), pixels)},
        {"image": latents["image"].values[:3]},
        {"run": '{"latents": "these"}'},
    )
    return GivenService({"latents": latents, "pictures": pictures, **judged})


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
def test_a_png_is_read_back_by_another(colours: int) -> None:
    rng = np.random.default_rng(colours)
    made = rng.integers(0, 256, size=(7, 11, colours), dtype=np.uint8)
    found = pixels_of(png_bytes(made))
    assert np.array_equal(found.reshape(made.shape), made)


def test_the_sheet_tells_the_map_that_is_drawn_by(asked: GivenService) -> None:
    told = sheet(asked, store=RUN, group="latents")
    latents = asked.groups["latents"]
    assert [one["image"] for one in told["images"]] == latents["image"].values.tolist()
    assert [one["prompt"] for one in told["images"]] == latents["prompt"].values.tolist()
    assert told["steps"] == told["shown"] == latents["step"].values.tolist()
    image, step = told["images"][1]["image"], told["steps"][3]
    shown = pixels_of(picture(asked, store=RUN, group="latents", image=image, side=64,
                              step=step).content)  # fmt: skip
    x = latents["x"].sel(image=image, step=step).transpose("height", "width", "latent_channel")
    matrix, offset = (np.asarray(told["map"][key]) for key in ("matrix", "offset"))
    wanted = np.clip(x.values.astype(np.float64) @ matrix.T + offset, 0, 255).round()
    assert np.array_equal(shown, np.broadcast_to(wanted, shown.shape).astype(np.uint8))


def test_a_strip_is_the_pictures_of_all_steps_side_by_side(asked: GivenService) -> None:
    told = sheet(asked, store=RUN, group="latents")
    image = told["images"][0]["image"]
    whole = pixels_of(strip(asked, store=RUN, group="latents", image=image, side=64).content)
    each = [
        pixels_of(
            picture(asked, store=RUN, group="latents", image=image, side=64, step=step).content
        )
        for step in told["shown"]
    ]
    assert np.array_equal(whole, np.concatenate(each, axis=1))


def test_a_stored_picture_is_shown_as_it_is(asked: GivenService) -> None:
    images = sheet(asked, store=RUN, group="latents")["images"]
    assert [one["picture"] for one in images] == [True, True, True, False, False]
    stored = asked.groups["pictures"]["picture"]
    for place, one in enumerate(images[:3]):
        told = {"store": RUN, "group": "latents", "image": one["image"]}
        whole = pixels_of(picture(asked, **told, side=64).content)
        assert np.array_equal(whole, stored.isel(image=place).values)
        small = pixels_of(picture(asked, **told, side=8).content)
        assert small.shape == (6, 5, 3)
    # Of the others the last latent is shown; and so are all where latents were replaced.
    last = {"store": RUN, "group": "latents", "image": images[4]["image"], "side": 64}
    at_end = picture(asked, **last, step=sheet(asked, store=RUN, group="latents")["steps"][-1])
    assert picture(asked, **last).content == at_end.content
    asked.groups["pictures"].attrs["run"] = '{"latents": "others"}'
    assert not any(one["picture"] for one in sheet(asked, store=RUN, group="latents")["images"])


def test_variants_are_seen_in_the_colours_of_the_run(asked: GivenService) -> None:
    told = [sheet(asked, store=RUN, group=one["group"])["map"]
            for one in sheet(asked, store=RUN, group="latents")["groups"]]  # fmt: skip
    assert len(told) == 5
    assert all(np.array_equal(one["matrix"], told[0]["matrix"]) for one in told)


def test_the_map_puts_the_mean_in_the_middle_and_what_is_no_number_apart() -> None:
    rng = np.random.default_rng(3)
    spread = np.array([4.0, 1.0, 0.5, 0.1, 0.01])
    x = rng.normal(2.0, spread, size=(3, 2, 40, 50, 5)).astype(np.float32)
    dims = ("image", "step", "height", "width", "latent_channel")
    found = colours_of(xr.Dataset({"x": (dims, x)}))
    mean = x[:, -1].reshape(-1, 5).astype(np.float64).mean(axis=0)
    # The middle is 127.5: either side of it, by the last bit of a product.
    assert set(found.pixels(mean[None])[0].tolist()) <= {127, 128}
    # Three standard deviations of the widest direction reach the end in every colour.
    bright = found.matrix @ (mean + 3 * spread * [1, 0, 0, 0, 0]) + found.offset
    assert bright.mean() == pytest.approx(255, abs=2)
    broken = mean.copy()
    broken[2] = np.nan
    assert found.pixels(broken[None])[0].tolist() == [255, 0, 255]


@pytest.mark.parametrize("channels", [1, 2])
def test_few_channels_are_grey(channels: int) -> None:
    dims = ("image", "step", "height", "width", "latent_channel")
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4, channels))
    found = colours_of(xr.Dataset({"x": (dims, x)}))
    assert found.matrix.shape == (1, channels)
    shown = found.pixels(x[0, 0])
    assert shown.shape == (4, 4, 3)
    assert (shown == shown[..., :1]).all()
    flat = colours_of(xr.Dataset({"x": (dims, np.ones_like(x))}))
    assert (flat.pixels(np.ones((2, channels))) == 128).all()


def test_large_ones_are_means_of_squares() -> None:
    values = np.arange(6 * 10 * 2, dtype=np.float32).reshape(6, 10, 2)
    small = pooled(values, 5)
    assert small.shape == (3, 5, 2)
    assert np.array_equal(small, values.reshape(3, 2, 5, 2, 2).mean(axis=(1, 3)))
    assert pooled(values, 10) is values
    assert pooled(np.ones((7, 3, 1)), 4).shape == (4, 2, 1)


def test_what_is_not_there_is_refused(asked: GivenService) -> None:
    with pytest.raises(MissingError, match="no image 99"):
        strip(asked, store=RUN, group="latents", image=99, side=64)
    with pytest.raises(MissingError, match="no step 99"):
        picture(asked, store=RUN, group="latents", image=100, side=64, step=99)
    for group in ("blocks/img", "activations/mlp.fc2", "../latents", "trajectories/none"):
        with pytest.raises(MissingError, match="no latents in"):
            sheet(asked, store=RUN, group=group)
    assert LatentColours(np.zeros((1, 2)), np.full(1, 127.5)).pixels(np.ones((1, 2))).shape == (
        1,
        3,
    )
