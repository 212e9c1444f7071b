"""Named things that a store keeps: weight sets, trajectories, sensitivities; tables of `info`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.names import SENSITIVITY

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]
Masks = Mapping[str, np.ndarray]
"""Which items of a group are whole, over its item dims: readers leave out what is not."""
Rows = list[tuple[str, ...]]

SET_COLUMNS = ("weight set", "method", "grid", "bits", "group size", "linears", "weights")
"""Columns of `set_lines`."""
TRAJECTORY_COLUMNS = ("trajectories of", "group", "images")
"""Columns of `trajectory_lines`."""
SENSITIVITY_COLUMNS = ("sensitivity of", "format", "targets", "images")
"""Columns of `sensitivity_lines`."""


def describe_sets(groups: Groups) -> list[dict[str, Any]]:
    """What quantized weights the store holds, set by set."""
    from taqstore.kinds.quantized_linears import linear_names_of, run_of
    from taqstore.kinds.weight_sets import set_folders, set_groups, weight_sets

    found = []
    for name in weight_sets(groups):
        run = run_of(groups, name)
        said = [run["bits"]] if run.get("bits") else []
        sites = set_groups(groups, name).values()
        found.append(
            {
                "set": name,
                "folder": set_folders(groups)[name],
                "method": run.get("method", "adaround"),
                "grid": run.get("grid", "symmetric"),
                "bits": _widths(sites) or said,
                "group_size": run.get("group_size"),
                "linears": len(linear_names_of(groups, set=name)),
                "weights": sum(int(site["weight"].size) for site in sites),
            }
        )
    return found


def _widths(sites: Iterable[xr.Dataset]) -> list[int]:
    """Bits of the linears of a set, each once."""
    each = (np.unique(site["weight_bits"].values) for site in sites if "weight_bits" in site)
    return sorted({int(bits) for found in each for bits in found if bits})


def describe_trajectories(groups: Groups, masks: Masks) -> list[dict[str, Any]]:
    """What ran in each group of trajectories, and how many of its images are whole."""
    from taqstore.kinds.trajectories import trajectory_groups

    return [
        {
            "variant": variant,
            "group": path,
            "images": int(masks[path].sum()),
            "of_images": masks[path].size,
        }
        for path, variant in trajectory_groups(groups).items()
    ]


def describe_sensitivities(groups: Groups, masks: Masks) -> list[dict[str, Any]]:
    """Of each unit and format, the targets that are whole for so many images, as readers see."""
    from taqstore.kinds.sensitivity import UNITS, sensitivities

    whole, found = sensitivities(groups), []
    for unit in UNITS:
        head = f"{SENSITIVITY}/{unit}/"
        for path in sorted(path for path in groups if path.startswith(head)):
            format = path.removeprefix(head)
            kept, (images, targets) = whole.get((unit, format)), masks[path].shape
            found.append(
                {
                    "unit": unit,
                    "format": format,
                    "group": path,
                    "targets": 0 if kept is None else int(kept.sizes["target"]),
                    "of_targets": targets,
                    "images": 0 if kept is None else int(kept.sizes["image"]),
                    "of_images": images,
                }
            )
    return found


def set_lines(description: Mapping[str, Any]) -> Rows:
    """Rows for the table of weight sets."""
    return [
        (
            one["set"],
            str(one["method"]),
            str(one["grid"]),
            ", ".join(map(str, one["bits"])),
            str(one["group_size"] or "all inputs"),
            str(one["linears"]),
            f"{one['weights']:,}",
        )
        for one in description["weight_sets"]
    ]


def trajectory_lines(description: Mapping[str, Any]) -> Rows:
    """Rows for the table of trajectories."""
    return [
        (one["variant"], one["group"], f"{one['images']} of {one['of_images']}")
        for one in description["trajectories"]
    ]


def sensitivity_lines(description: Mapping[str, Any]) -> Rows:
    """Rows for the table of sensitivities."""
    return [
        (
            one["unit"],
            one["format"],
            f"{one['targets']} of {one['of_targets']}",
            f"{one['images']} of {one['of_images']}",
        )
        for one in description["sensitivities"]
    ]
