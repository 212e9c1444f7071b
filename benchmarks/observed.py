"""Observations of SD3-Medium's size: as a store, and as npz files read by a plain NumPy loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.statistics.histogram import Layout
from taqstore.testing import make_sd3_store

from .inputs import Inputs
from .measure import Run

LAYOUT = Layout("float16", 5)
PARTS = ("min", "max", "histogram")
STEPS = 25
BATCHES = 5
_PREFIX = "activations/"

Values = dict[tuple[int, str], Any]


def store_of(inputs: Inputs) -> Path:
    """25 steps (times the scale) and 5 batches of 189 linear inputs."""
    steps = max(2, round(STEPS * inputs.scale))

    def make(path: Path) -> None:
        make_sd3_store(path, steps=steps, batches=BATCHES)

    return inputs.once("stores/observed.zarr", make)


def folder_of(inputs: Inputs) -> Path:
    """The same extrema and histograms: a deflated npz per step, members ``{input}__{part}``."""
    return inputs.once("source/observed", lambda path: _write_npz(store_of(inputs), path))


def _write_npz(store: Path, folder: Path) -> None:
    folder.mkdir()
    groups = sites(store)
    first = next(iter(groups.values()))
    for position, step in enumerate(first["step"].values.tolist()):
        arrays = {
            f"{layer}.{site}__{part}": group[part].isel(step=position, layer=number).values
            for site, group in groups.items()
            for number, layer in enumerate(group["layer"].values.tolist())
            for part in PARTS
        }
        np.savez_compressed(folder / f"step_{step}.npz", allow_pickle=False, **arrays)


def sites(store: Any, *, chunks: Any = None) -> dict[str, Any]:
    """Observed groups by site."""
    from taqstore import open_store

    opened = open_store(store, chunks=chunks)
    return {path.removeprefix(_PREFIX): opened[path] for path in opened}


def scales_of_all(
    inputs: Inputs, rules: Sequence[Mapping[str, Any]], selection: Mapping[str, str] | None = None
) -> Run:
    """Scales of all sites by some rules, worked out together; the answer is that of the last."""
    from taqstore import open_store
    from taqstore.query.analyze import analyze, load

    store = open_store(store_of(inputs))

    def run(call: int) -> Any:
        lazy = [analyze("scales", store, selection=selection, **rule) for rule in rules]
        every = {(n, path): one for n, found in enumerate(lazy) for path, one in found.items()}
        loaded = load(every)
        return {path: loaded[len(rules) - 1, path] for path in lazy[-1]}

    return run


def loop(
    folder: Path, parts: tuple[str, ...], answer: Callable[..., Any]
) -> Iterator[tuple[tuple[int, str], Any]]:
    """Step by step and input by input: what scripts do."""
    for path in sorted(folder.glob("*.npz")):
        step = int(path.stem.removeprefix("step_"))
        with np.load(path) as file:
            names = [name.removesuffix("__min") for name in file.files if name.endswith("__min")]
            for name in names:
                yield (step, name), answer(*(file[f"{name}__{part}"] for part in parts))


def absmax(low: NDArray[Any], high: NDArray[Any]) -> float:
    """Clip bound of a tensor from extrema (batch, channel)."""
    return float(max(-low.min(), high.max()))


def channel_absmax(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    """Clip bounds of channels from extrema (batch, channel)."""
    bound = np.maximum(-low.min(axis=0), high.max(axis=0))
    return np.asarray(bound.astype(np.float64))


def percentile(share: float) -> Callable[[NDArray[Any]], float]:
    """Rule that takes a percentile of |x| from histograms (batch, bin)."""
    low, high = (side[LAYOUT.zero_bin :] for side in LAYOUT.representable())

    def rule(counts: NDArray[Any]) -> float:
        total = counts.astype(np.int64).sum(axis=0)
        folded = total[LAYOUT.zero_bin :] + total[LAYOUT.zero_bin - 1 :: -1]
        reached = np.cumsum(folded)
        position = (reached[-1] - 1) * share
        rank = int(position)
        values = []
        for place in (rank, min(rank + 1, int(reached[-1]) - 1)):
            index = int(np.searchsorted(reached, place, side="right"))
            within = (place - (reached[index] - folded[index]) + 0.5) / folded[index]
            values.append(low[index] + within * (high[index] - low[index]))
        return float(values[0] + (position - rank) * (values[1] - values[0]))

    return rule


def by_input(results: dict[str, Any]) -> Values:
    """Results of all sites as the loop gives them: values by (step, input)."""
    found: Values = {}
    for path, result in results.items():
        alpha = result["alpha"].transpose("step", "layer", ...)
        for i, step in enumerate(alpha["step"].values.tolist()):
            for j, layer in enumerate(alpha["layer"].values.tolist()):
                value = alpha.values[i, j]
                found[step, f"{layer}.{path.removeprefix(_PREFIX)}"] = value
    return dict(sorted(found.items()))
