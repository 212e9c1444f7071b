"""What a user of the old scripts does today: NumPy and json on the statistics folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class NpzFolder:
    """An `activations/` folder; every answer opens exactly the files and members it needs."""

    path: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        """`layer_statistics.json`."""
        return _read_json(self.path / "layer_statistics.json")

    @property
    def steps(self) -> list[int]:
        """Step indices, ascending."""
        return sorted(map(int, self.document["step_keys"]))

    @cached_property
    def linears(self) -> list[str]:
        """Names of the linears, sorted."""
        return sorted(self.index(self.steps[0]))

    def npz(self, step: int) -> Path:
        """The arrays of one step."""
        return self.path / "timestep_stats" / f"step_{step}.npz"

    def index(self, step: int) -> dict[str, dict[str, Any]]:
        """The index of one step, read anew."""
        return _read_json(self.path / "timestep_stats" / f"step_{step}_index.json")

    def layer(self, linear: str) -> NDArray[np.float64]:
        """Extrema of one linear over all steps: (2, step, channel)."""
        rows = []
        for step in self.steps:
            with np.load(self.npz(step)) as file:
                rows.append([file[member(linear, name)] for name in ("avg_min", "avg_max")])
        return np.stack([np.stack([row[i] for row in rows]) for i in range(2)])

    def step(self, step: int) -> Vectors:
        """Extrema of every linear at one step: (2, channel) each."""
        with np.load(self.npz(step)) as file:
            return {
                name: np.stack([file[member(name, "avg_min")], file[member(name, "avg_max")]])
                for name in self.linears
            }

    def absmax(self) -> Vectors:
        """Largest magnitude of every linear at every step, from its channels: (step,) each."""
        found = []
        for step in self.steps:
            with np.load(self.npz(step)) as file:
                found.append([self._absmax(file, name) for name in self.linears])
        return dict(zip(self.linears, np.array(found).T, strict=True))

    def absmax_from_indexes(self) -> Vectors:
        """The same from the scalars the scripts keep beside the arrays."""
        indexes = [self.index(step) for step in self.steps]
        return {n: np.array([index[n]["tensor_absmax"] for index in indexes]) for n in self.linears}

    @staticmethod
    def _absmax(file: Any, name: str) -> float:
        low, high = file[member(name, "avg_min")], file[member(name, "avg_max")]
        return float(max(-low.min(), high.max()))

    def quant_config(self, out: Path, *, outliers: bool, indent: int | None) -> Path:
        """Write the v4 config as the source analyser does: everything loaded, then `json.dump`.

        Like the revisions of the script, it loads shifts, and extrema only where outlier channels
        are wanted.
        """
        members = ("avg_min", "avg_max", "shift") if outliers else ("shift",)
        loaded = {step: self._entries(step, members) for step in self.steps}
        per_step = {
            str(step): {name: _config_entry(entries[name]) for name in self.linears}
            for step, entries in loaded.items()
        }
        middle = loaded[self.steps[len(self.steps) // 2]]
        found = {n: o for n in self.linears if outliers and (o := _outliers(middle[n]))}
        counted = {"layers_with_outlier_channels": len(found)} if outliers else {}
        document = {
            "format": "per_timestep_quant_config_v4",
            "per_timestep": per_step,
            "sigma_map": self.document["sigma_map"],
            **({"outlier_config": found} if outliers else {}),
            "summary": {
                "total_timesteps": len(self.steps),
                "total_layers": len(self.linears),
                "total_decisions": sum(map(len, per_step.values())),
                "activation_bits": 8,
                "post_gelu_layers_with_shift": sum(n.endswith(".mlp.fc2") for n in self.linears),
                **counted,
                "scale_source": "tensor_absmax",
            },
            "metadata": self.document["metadata"],
        }
        with out.open("w") as file:
            json.dump(document, file, indent=indent)
        return out

    def _entries(self, step: int, members: Sequence[str]) -> dict[str, dict[str, Any]]:
        entries = self.index(step)
        with np.load(self.npz(step)) as file:
            present = set(file.files)
            for name, entry in entries.items():
                for part in members:
                    if member(name, part) in present:
                        entry[part] = file[member(name, part)]
        return entries


def member(linear: str, part: str) -> str:
    """Name of an array inside a step's npz."""
    return f"{linear.replace('.', '_')}__{part}"


def _config_entry(entry: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"bits": 8, "scale": entry["tensor_absmax"]}
    if "shift" in entry:
        config["shift"] = entry["shift"].tolist()
    return config


def _outliers(entry: dict[str, Any], threshold: float = 2.5) -> dict[str, Any] | None:
    """FORMATS 7: channels wider than 2.5 medians, and how much coarser their steps are."""
    low, high = entry["avg_min"], entry["avg_max"]
    absmax, width = np.maximum(np.abs(low), np.abs(high)), high - low
    median = float(np.median(width))
    wide = width > threshold * median
    if median < 1e-6 or not wide.any() or wide.all():
        return None
    normal, outlier = (float(absmax[chosen].max()) / 127 for chosen in (~wide, wide))
    factor = max(1.0, float(round(outlier / normal)))
    return {
        "outlier_indices": np.flatnonzero(wide).tolist(),
        "multiplier_vector": np.where(wide, factor, 1.0).tolist(),
        "scale_normal": normal,
        "scale_outlier": outlier,
    }


def _read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
