"""What all sites of a source must have in common to be one document: asked of all, not of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import TaqError, problem

_REMEDY = "keep runs that are not one in stores of their own"


def agreed(what: str, values: Mapping[str, Any]) -> Any:
    """The one value that all sites have.

    Parameters
    ----------
    what
        Whose value it is, as the refusal says it.
    values
        By site, one at least.

    Raises
    ------
    TaqError
        Two sites have different ones; both are named.
    """
    first, *others = values
    for other in others:
        if not np.array_equal(values[first], values[other]):
            found = f"{_brief(values[first])} of {first}, {_brief(values[other])} of {other}"
            raise TaqError(problem(f"{what} is not the same", found=found, remedy=_REMEDY))
    return values[first]


def by_step(sites: Mapping[str, xr.Dataset], coordinate: str) -> dict[int, Any]:
    """A coordinate of `step`, of the steps of all sites, ascending; sites without it have no say.

    Raises
    ------
    TaqError
        A step has two values.
    """
    found: dict[int, dict[str, Any]] = {}
    for site, dataset in sites.items():
        if coordinate in dataset.coords:
            values = dataset[coordinate].values
            for step, value in zip(dataset["step"].values, values, strict=True):
                found.setdefault(int(step), {})[site] = value
    return {
        step: agreed(f"{coordinate} of step {step}", values)
        for step, values in sorted(found.items())
    }


def common(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Fields that all of these documents have alike, in the order of the first."""
    first, *others = documents.values()
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }


def forwards(sites: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """What observations of all sites say of a run, in the terms of `layer_statistics.json`."""
    pairs = {
        (int(image), int(step))
        for dataset in sites.values()
        for image in np.unique(dataset["image"].values)
        for step in dataset["step"].values
        if image >= 0
    }
    images = sorted({image for image, _ in pairs})
    steps = sorted({int(step) for dataset in sites.values() for step in dataset["step"].values})
    return {
        "num_images": len(images),
        "num_timesteps": len(steps),
        "total_processed": len(pairs),
        "key_timesteps": steps,
        "selected_image_ids": images,
        "errors": 0,
    }


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
