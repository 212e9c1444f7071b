"""`calibration-samples`: the folder of latents that the source's later stages read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.files.documents import write_document
from taqstore.files.png import save_picture
from taqstore.files.staged import whole_folder
from taqstore.files.written import Summary, make_folder, save_all, save_npz, summarize
from taqstore.kinds import nonfinite
from taqstore.names import LATENTS, PICTURES
from taqstore.query.sites import needed_group
from taqstore.store.attributes import attribute_of

MANIFEST = "source_manifest"
_CONTENT = ("manifest.json", "samples/*.npz", "latents/*.npy", "images/*.png")
# Scale and shift of the SD3 latent space; the source undoes them before it saves final latents.
LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609


def calibration_samples(
    groups: Mapping[str, xr.Dataset], out: Path, *, force: bool = False
) -> Summary:
    """Write ``samples/{image}_{step}.npz``, ``latents/``, ``images/`` and ``manifest.json``.

    One image is in memory at a time. Final latents are ``float16(x / 1.5305 + 0.0609)``. Pictures
    are written where the store holds those of these latents; `images_saved` says whether all are.

    Raises
    ------
    MissingError
        The store has no `latents`.
    TaqError
        The folder exists, or cannot be written.
    """
    remedy = "ingest a calibration_data folder, or generate latents"
    dataset = needed_group(groups, LATENTS, remedy=remedy)
    final = np.flatnonzero(dataset["is_final"].values)
    with whole_folder(out, content=_CONTENT, force=force) as folder:
        samples = make_folder(folder / "samples")
        latents = make_folder(folder / "latents") if final.size else None
        save_all(_jobs(dataset, samples, latents))
        saved = _save_pictures(groups, dataset, folder)
        every = saved == dataset.sizes["image"] > 0
        document = _manifest(dataset, latents_saved=latents is not None, images_saved=every)
        write_document(folder / "manifest.json", "calibration-manifest", document)
    missing = f"pictures of {saved} of {dataset.sizes['image']} images are in the store"
    return summarize(
        out,
        "" if every else f"{missing}: images_saved is false",
        "" if final.size else "no final step in the store: latents_saved is false",
        "" if "cfg_scale" in document else guidance_note(dataset, "cfg_scale of all"),
    )


def _jobs(dataset: xr.Dataset, samples: Path, latents: Path | None) -> Iterator[Callable[[], None]]:
    steps = dataset["step"].values
    sigma, timestep = dataset["sigma"].values, dataset["timestep"].values
    final = dataset["is_final"].values.astype(bool)
    dims = ("step", "height", "width", "latent_channel")
    for position, label in enumerate(dataset["image"].values):
        image = int(label)
        trajectory = dataset["x"].isel(image=position).load().transpose(*dims).values
        for k, step in enumerate(steps):
            arrays = {
                "x": trajectory[k][np.newaxis],
                "timestep": timestep[k],
                "sigma": sigma[k],
                "step_index": np.int32(step),
                "image_id": np.int32(image),
                "is_final": np.bool_(final[k]),
            }
            yield partial(save_npz, samples / f"{image:04d}_{int(step):03d}.npz", arrays)
            if final[k] and latents is not None:
                yield partial(_save_final, latents / f"{image:04d}.npy", arrays["x"])


def _save_pictures(groups: Mapping[str, xr.Dataset], latents: xr.Dataset, folder: Path) -> int:
    """Write the pictures of these latents, and count them; those of latents before them are not."""
    if PICTURES not in groups:
        return 0
    pictures = groups[PICTURES]
    of = attribute_of(pictures, "run", {}).get(LATENTS, "")
    there = set(pictures["image"].values.tolist()) if of == latents.attrs.get("id", "") else set()
    chosen = [int(image) for image in latents["image"].values if image in there]
    if chosen:
        make_folder(folder / "images")
    dims = ("height", "width", "colour")
    for image in chosen:
        pixels = pictures["picture"].sel(image=image).transpose(*dims).values
        save_picture(pixels, folder / "images" / f"{image:04d}.png")
    return len(chosen)


def _save_final(fresh: Path, x: np.ndarray) -> None:
    # Python floats are weak: the arithmetic stays in float32, as the source did it.
    np.save(fresh, (x / LATENT_SCALE + LATENT_SHIFT).astype(np.float16))


def _manifest(dataset: xr.Dataset, *, latents_saved: bool, images_saved: bool) -> dict[str, Any]:
    """The source's own fields where the store kept them; counts and images from the store."""
    calls = int((~dataset["is_final"].values.astype(bool)).sum())
    images = _images(dataset, calls)
    guidance = guidance_of(dataset, "cfg_scale")
    return {
        "num_steps": calls,
        **guidance,
        "num_images": dataset.sizes["image"],
        **attribute_of(dataset, MANIFEST, {}),
        "n_completed": dataset.sizes["image"],
        "latent_size": [dataset.sizes["height"], dataset.sizes["width"]],
        "images_saved": images_saved,
        "latents_saved": latents_saved,
        "images": images,
    }


def guidance_of(latents: xr.Dataset, name: str) -> dict[str, float]:
    """The guidance weight under this name, where images have one and the same; else nothing."""
    weights = _weights_of(latents)
    return {name: weights[0]} if len(weights) == 1 else {}


def guidance_note(latents: xr.Dataset, name: str) -> str:
    """What is said where images have different guidance weights."""
    weights = _weights_of(latents)
    return f"no {name}: images have {nonfinite.listed(weights)}" if len(weights) > 1 else ""


def _weights_of(latents: xr.Dataset) -> list[float]:
    """Guidance weights of the images that have one."""
    found = latents["cfg_weight"].values
    return [float(weight) for weight in np.unique(found[~np.isnan(found)])]


def _images(dataset: xr.Dataset, calls: int) -> list[dict[str, Any]]:
    """Entries of the images the source's manifest listed; others have no guidance weight."""
    columns = (dataset[name].values for name in ("image", "prompt", "seed", "cfg_weight"))
    return [
        {
            "image_id": int(image),
            "prompt": str(prompt),
            "seed": int(seed),
            "cfg_weight": float(guidance),
            "num_steps": calls,
            "filename": f"{int(image):04d}.png",
            "latent_filename": f"{int(image):04d}.npy",
        }
        for image, prompt, seed, guidance in zip(*columns, strict=True)
        if not np.isnan(guidance)
    ]
