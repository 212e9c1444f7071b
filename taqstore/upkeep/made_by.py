"""Who made the images of a store, and how: model, guidance, steps, seeds, prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.plain import PlainGroup
from taqstore.errors import printable
from taqstore.names import LATENTS, SAMPLES
from taqstore.store.attributes import attribute_of

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]
UNKNOWN = "not recorded"
_PROMPT_FILES = (".txt", ".csv")
_NOTHING: Any = PlainGroup()
_OF_RUN = ("weights", "dtype", "use_t5", "shift", "negative_prompt")


def describe_run(groups: Groups, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What a store tells of the run that made its images; None for each thing that it does not.

    Attributes of the groups tell, then their coordinates, then the manifest that came with ingested
    latents; prompts are named by the provenance record of the command that read them. None where
    the store has no images, and names no model either.

    Parameters
    ----------
    groups
        All groups that can be read.
    records
        Provenance, oldest first.
    """
    made = next((groups[path] for path in (LATENTS, SAMPLES) if path in groups), _NOTHING)
    run = _run(groups)
    manifest = attribute_of(made, "source_manifest", {})
    manifest = manifest if isinstance(manifest, Mapping) else {}
    found = {
        "model": _plain(run.get("model", manifest.get("model_version"))),
        **{name: _plain(run.get(name, manifest.get(name))) for name in _OF_RUN},
        "images": int(made.sizes["image"]) if "image" in made.sizes else None,
        "guidance": _ends(made, "cfg_weight") or _pair(manifest.get("cfg_scale")),
        "steps": _steps(made) or _whole(manifest.get("num_steps")),
        "seeds": _ends(made, "seed") or _pair(manifest.get("seed_base")),
        "prompts": list(dict.fromkeys(_prompt_files(records, manifest))),
        "different_prompts": len(set(made["prompt"].values.tolist())) if "prompt" in made else None,
    }
    return found if any(value not in (None, []) for value in found.values()) else None


def run_lines(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Head and text of a line for each thing told by `describe_run`."""
    weights = run["weights"]
    model = [str(run["model"] or UNKNOWN), f"dtype {run['dtype'] or UNKNOWN}"]
    if weights:
        model.append(f"weights {str(weights)[:16]}")
    count = run["different_prompts"]
    prompts = ", ".join(run["prompts"]) or f"file {UNKNOWN}"
    steps = [f"{run['steps'] or UNKNOWN}", f"guidance {_range(run['guidance'])}"]
    if run["shift"] is not None:
        steps.append(f"shift {run['shift']:g}")
    images = UNKNOWN if run["images"] is None else str(run["images"])
    lines = [
        ("model", ", ".join(model)),
        ("images", f"{images}, seeds {_range(run['seeds'])}"),
        ("steps", ", ".join(steps)),
        ("prompts", f"{prompts}, {count} different" if count else prompts),
    ]
    if run["negative_prompt"]:
        lines.append(("without", str(run["negative_prompt"])))
    return [(head, printable(text)) for head, text in lines]


def _run(groups: Groups) -> Mapping[str, Any]:
    """What the first group that a running model filled says of its run, latents before others."""
    order = [path for path in (LATENTS, SAMPLES) if path in groups]
    for path in [*order, *(path for path in groups if path not in order)]:
        run = attribute_of(groups[path], "run")
        if isinstance(run, Mapping) and "model" in run:
            return run
    return {}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _pair(value: Any) -> list[Any] | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return [value, value] if number else None


def _ends(data: xr.Dataset, name: str) -> list[Any] | None:
    """Least and largest value of a coordinate."""
    values = data[name].values if name in data else np.empty(0)
    if values.dtype.kind not in "iuf" or not values.size or np.isnan(values).any():
        return None
    return [values.min().item(), values.max().item()]


def _steps(data: xr.Dataset) -> int | None:
    """Steps at which the model was called: the final latent is no model input."""
    if "step" not in data.sizes or "is_final" not in data:
        return None
    return int(data.sizes["step"] - data["is_final"].values.sum())


def _prompt_files(
    records: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> Iterator[str]:
    """Names of files with prompts, without their folders."""
    named = False
    for record in records:
        if {LATENTS, SAMPLES}.isdisjoint(record["groups"]):
            continue
        for entry in record["inputs"]:
            if PurePosixPath(str(entry["name"])).suffix in _PROMPT_FILES:
                named = True
                yield str(entry["name"])
    path = manifest.get("prompt_path")
    if not named and isinstance(path, str) and path:
        yield PureWindowsPath(path).name


def _range(ends: Sequence[Any] | None) -> str:
    if ends is None:
        return UNKNOWN
    low, high = (f"{end:.10g}" for end in ends)
    return low if low == high else f"{low} to {high}"
