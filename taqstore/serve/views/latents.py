"""Latents and pictures of a run: what there is, and small pictures of it by image and step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taqstore.analysis.shared.option import Option
from taqstore.errors import MissingError, problem
from taqstore.names import LATENTS, PICTURES, TRAJECTORIES
from taqstore.serve.http.endpoint import File
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened
from taqstore.serve.views.latent_colours import DIMS, TEXT, LatentColours, colours_of, pooled

if TYPE_CHECKING:
    import xarray as xr

_PNG = "image/png"
_MOST_CELLS = 128
"""Steps of one strip: of more, evenly spaced ones are shown."""
_PIXELS = 1024

GROUP = Option("group", "latents, or a group of trajectories.", "word", LATENTS)
IMAGE = Option("image", "Which image, by its number.", int, least=0, needed=True)
STEP = Option("step", "Which step [default: the stored picture, else the last].", int, least=0)
SIDE = Option("side", "Pixels of a side at most.", int, 64, least=8, most=256)
SHEET = (GROUP,)
STRIP = (GROUP, IMAGE, SIDE)
ONE = (GROUP, IMAGE, STEP, SIDE.but(default=1024, most=_PIXELS))


def sheet(service: Service, *, store: str, group: str) -> dict[str, Any]:
    """What a contact sheet needs to know.

    Returns
    -------
    ``groups``: ``{"group", "label", "images"}`` of all that hold latents; of the one asked for
    ``steps``, ``shown`` (steps of a strip), ``sigma``, ``images``: ``{"image", "prompt", "seed",
    "cfg_weight", "picture"}``, whether a picture is stored; ``height``, ``width``, ``channels``;
    ``map``: ``text``, ``matrix``, ``offset``. Of a store without any latents ``groups`` and
    ``images`` alone, both empty.

    Raises
    ------
    MissingError
        The store holds latents, but not in this group.
    """
    if group == LATENTS and not _groups(service, store):
        return {"groups": [], "images": []}
    data = _latents(service, store, group)
    stored = _stored_pictures(service, store, group, data)
    colours = _colours(service, store, group)
    images = data["image"].values.tolist()
    about = [n for n in ("prompt", "seed", "cfg_weight") if n in data.coords]
    columns = [data[name].values.tolist() for name in about]
    rows = [dict(zip(about, row, strict=True)) for row in zip(*columns, strict=True)]
    rows = rows or [{} for _ in images]
    return {
        "groups": _groups(service, store),
        "group": group,
        "steps": data["step"].values.tolist(),
        "shown": data["step"].values[_shown(data.sizes["step"])].tolist(),
        "sigma": data["sigma"].values.tolist() if "sigma" in data.coords else None,
        "images": [
            {"image": image, **row, "picture": image in stored}
            for image, row in zip(images, rows, strict=True)
        ],
        **{name: data.sizes[dim] for name, dim in zip(("height", "width"), DIMS, strict=False)},
        "channels": data.sizes["latent_channel"],
        "map": {"text": TEXT, "matrix": colours.matrix, "offset": colours.offset},
        **_shown_lines(service, store, group, images[0] if images else 0),
    }


def strip(service: Service, *, store: str, group: str, image: int, side: int) -> File:
    """All steps of one image side by side as one PNG, from noise to picture.

    Raises
    ------
    MissingError
        No such group or image.
    """
    key = ("strip", group, image, side)
    make = partial(_strip, service, store, group, image, side)
    return File(service.kept(store, key, make), _PNG)


def picture(
    service: Service, *, store: str, group: str, image: int, side: int, step: int | None = None
) -> File:
    """One latent as colours, or the stored picture of an image, as a PNG.

    Raises
    ------
    MissingError
        No such group, image or step.
    """
    from taqstore.files.png import png_bytes

    data = _latents(service, store, group)
    one = _of(data, "image", image)
    if step is None and image in _stored_pictures(service, store, group, data):
        pixels = _of(service.store(store)[PICTURES], "image", image)["picture"]
        shown = pooled(pixels.transpose("height", "width", "colour").values, side)
        return File(png_bytes(np.asarray(shown).round().astype(np.uint8)), _PNG)
    chosen = one.isel(step=-1) if step is None else _of(one, "step", step)
    small = pooled(chosen["x"].transpose(*DIMS).values, side)
    return File(png_bytes(_colours(service, store, group).pixels(small)), _PNG)


def _strip(service: Service, store: str, group: str, image: int, side: int) -> bytes:
    from taqstore.files.png import png_bytes

    data = _of(_latents(service, store, group), "image", image)
    values = data["x"].isel(step=_shown(data.sizes["step"])).transpose("step", *DIMS).values
    pixels = _colours(service, store, group).pixels(pooled(values, side))
    count, height, width, colours = pixels.shape
    return png_bytes(pixels.transpose(1, 0, 2, 3).reshape(height, count * width, colours))


def _shown(count: int) -> NDArray[np.int64]:
    """Places of the steps of a strip."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_CELLS)).round().astype(np.int64))


def _groups(service: Service, store: str) -> list[dict[str, Any]]:
    from taqstore.kinds.trajectories import trajectory_groups

    held = service.store(store)
    named = {LATENTS: "latents of the run"} if LATENTS in held else {}
    named |= {path: f"judged: {label or path}" for path, label in trajectory_groups(held).items()}
    return [
        {"group": path, "label": label, "images": held[path].sizes["image"]}
        for path, label in named.items()
    ]


def _latents(service: Service, store: str, group: str) -> xr.Dataset:
    """Lazy, its whole images alone."""
    from taqstore.asked import meant

    held = service.store(store)
    known = [path for path in held if path == LATENTS or path.startswith(f"{TRAJECTORIES}/")]
    if group not in known:
        remedy = meant(group, known) if known else "taqstore generate makes them"
        raise MissingError(problem(f"no latents in {group!r}", where=store, remedy=remedy))
    return _whole(held[group])


def _whole(data: xr.Dataset) -> xr.Dataset:
    from taqstore.names import WRITTEN

    if WRITTEN not in data.variables:
        return data
    return data.isel(image=np.flatnonzero(data[WRITTEN].values)).drop_vars(WRITTEN)


def _of(data: xr.Dataset, dim: str, label: int) -> xr.Dataset:
    """One label of a dimension.

    Raises
    ------
    MissingError
        There is none such.
    """
    from taqstore.asked import listed

    places = np.flatnonzero(data[dim].values == label)
    if not places.size:
        found = listed([str(one) for one in data[dim].values.tolist()])
        raise MissingError(problem(f"no {dim} {label}", found=found))
    return data.isel({dim: int(places[0])})


def _colours(service: Service, store: str, group: str) -> LatentColours:
    make = partial(_fitted, service, store, group)
    return service.kept(store, ("latent colours", group), make)


def _fitted(service: Service, store: str, group: str) -> LatentColours:
    """Of the run's own latents where there are any: variants are then seen in the same colours."""
    same = LATENTS if LATENTS in service.store(store) else group
    mine, theirs = (_latents(service, store, path) for path in (group, same))
    fits = mine.sizes["latent_channel"] == theirs.sizes["latent_channel"]
    return colours_of(theirs if fits and theirs.sizes["image"] else mine)


def _stored_pictures(service: Service, store: str, group: str, data: xr.Dataset) -> set[int]:
    """Images of which there is a picture; those of latents that were replaced do not count."""
    from taqstore.store.attributes import attribute_of

    held = service.store(store)
    if group != LATENTS or PICTURES not in held:
        return set()
    pictures = _whole(held[PICTURES])
    of = attribute_of(pictures, "run", {}).get(LATENTS, "")
    if of and of != data.attrs.get("id", ""):
        return set()
    return set(pictures["image"].values.tolist())


def _shown_lines(service: Service, store: str, group: str, image: int) -> dict[str, str]:
    address = service.address(store)
    rows = (Option("image", "", str), Option("step", "", str))
    line = command_line(
        "query", address, after=[group, "x"], rows=rows, values={"image": str(image), "step": "0"}
    )
    same = LATENTS if LATENTS in service.store(store) else group
    code = [
        "import taqstore",
        "from taqstore.serve.views.latent_colours import colours_of",
        "",
        opened(address),
        f"latent = store[{group!r}]['x'].sel(image={image}, step=0).values",
        f"rgb = colours_of(store[{same!r}]).pixels(latent)",
    ]
    return {"cli": line, "python": "\n".join(code)}
