"""Static scores of targets, all so that the larger is the worse: what `ranks` judges.

Scores of weights are kept by `taqstore sensitivity`; those of inputs are made here, from
observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from taqstore.analysis.error import error
from taqstore.analysis.ranges.steps import Cuts
from taqstore.errors import MissingError, MisuseError
from taqstore.kinds.formats.input_formats import InputFormat
from taqstore.kinds.sensitivity import STATIC
from taqstore.names import ACTIVATIONS, SITES, linear_names, parse_layer
from taqstore.statistics.bins import Floats

Groups = Mapping[str, xr.Dataset]
Scores = dict[str, Floats]

BASELINES = ("weights", "input_channels", "sigma")
"""What costs nothing to know: a score that does no better says nothing."""


def weight_scores(kept: xr.Dataset | None, sensitivity: xr.Dataset) -> Scores:
    """Scores (target,) of quantized weights, by name.

    Parameters
    ----------
    kept
        Group of `scores`; None: the number of weights alone.
    """
    found: Scores = {"weights": sensitivity["weights"].values.astype(np.float64)}
    if kept is None:
        return found
    there = {str(name): place for place, name in enumerate(kept["target"].values)}
    places = [there.get(str(name), -1) for name in sensitivity["target"].values]
    there_is = np.array(places) >= 0
    of = {
        name: np.where(there_is, kept[name].values.astype(np.float64)[places], np.nan)
        for name in STATIC
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = np.sqrt(of["weight_power"] / found["weights"])
        found |= {
            "weight_absmax": of["weight_absmax"],
            "weight_crest": of["weight_absmax"] / rms,
            "weight_kurtosis": of["weight_kurtosis"],
            "weight_sqnr": -of["weight_sqnr"],
            "weight_error": of["weight_error"],
            "weight_mean_error": of["weight_error"] / found["weights"],
            "imatrix_error": of["imatrix_error"],
            "imatrix_relative": of["imatrix_error"] / of["imatrix_power"],
            "moment_error": of["moment_error"],
            "moment_relative": of["moment_error"] / of["output_power"],
            "output_power": of["output_power"],
        }
    return found


@dataclass(frozen=True)
class _Tensor:
    """What is known of one tensor at each step: ``(step,)``, with what its linears read of it."""

    channels: int
    absmax: Floats
    kurtosis: float
    power: Floats
    error: Floats


def input_scores(groups: Groups, unit: str, format: str, sensitivity: xr.Dataset) -> Scores:
    """Scores (target,) of quantized inputs, by name; NaN where the store lacks what it takes."""
    targets = [str(name) for name in sensitivity["target"].values]
    tensors, sigma = _tensors(groups, format)
    if unit == "step":
        return _of_steps(tensors, sigma, targets)
    found = [_of_target([t for key, t in tensors.items() if _reads(unit, name, key)])
             for name in targets]  # fmt: skip
    scores = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {"input_channels": sensitivity["input_channels"].values.astype(np.float64), **scores}


def _reads(unit: str, target: str, key: tuple[str, str]) -> bool:
    layer, site = key
    if unit == "linear":
        read = parse_layer(target).input
        return (read.layer, read.site) == key
    return target == (site if unit == "site" else parse_layer(layer).block)


def _of_target(tensors: list[_Tensor]) -> dict[str, float]:
    if not tensors:
        names = ("input_absmax", "input_kurtosis", "input_error", "input_sqnr", "input_power")
        return dict.fromkeys(names, float("nan"))
    sizes = np.array([one.channels for one in tensors], np.float64)
    error = float(sizes @ [one.error.mean() for one in tensors])
    power = float(sizes @ [one.power.mean() for one in tensors])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "input_absmax": float(max(one.absmax.max() for one in tensors)),
            "input_kurtosis": float(sizes @ [one.kurtosis for one in tensors] / sizes.sum()),
            "input_error": error,
            "input_sqnr": float(10 * np.log10(np.divide(error, power))),
            "input_power": power,
        }


def _of_steps(
    tensors: Mapping[tuple[str, str], _Tensor], sigma: Floats, targets: list[str]
) -> Scores:
    """Of all tensors at each step."""
    steps = [int(name) for name in targets]
    nothing = np.full(len(steps), np.nan)
    if not tensors or max(steps) >= len(sigma):
        return {"sigma": nothing}
    every = list(tensors.values())
    shares = np.mean([one.error / one.power for one in every], axis=0)
    whole: Scores = {
        "sigma": sigma,
        "input_absmax": np.max([one.absmax for one in every], axis=0),
        "input_error": np.sum([one.channels * one.error for one in every], axis=0),
        "input_sqnr": 10 * np.log10(shares),
        "step_cost": np.sqrt(shares) * -np.diff(np.append(sigma, 0)),
    }
    return {name: values[steps] for name, values in whole.items()}


def _tensors(groups: Groups, format: str) -> tuple[dict[tuple[str, str], _Tensor], Floats]:
    """What is known of each tensor of blocks, by layer and site; and sigma of each step."""
    found: dict[tuple[str, str], _Tensor] = {}
    sigma = np.zeros(0)
    for site in SITES:
        path = f"{ACTIVATIONS}/{site}"
        if path not in groups:
            continue
        dataset = groups[path]
        sigma = np.asarray(dataset["sigma"].values, np.float64)
        priced = _priced(dataset, format)
        kurtosis = _kurtosis(dataset)
        ends = [dataset[name].transpose("batch", "layer", "step").values.astype(np.float64)
                for name in ("tensor_min", "tensor_max")]  # fmt: skip
        absmax = np.abs(ends).max(axis=(0, 1))
        readers = len(linear_names(parse_layer(f"{dataset['layer'].values[0]}.{site}")))
        for place, layer in enumerate(map(str, dataset["layer"].values)):
            found[layer, site] = _Tensor(
                dataset.sizes["channel"] * readers, absmax[place], float(kurtosis[place]),
                *(part[place] for part in priced),
            )  # fmt: skip
    return found, sigma


def _priced(dataset: xr.Dataset, format: str) -> tuple[Floats, Floats]:
    """Mean square and expected error ``(layer, step)``; NaN of formats that are not priced."""
    known = InputFormat.parse(format)
    nothing = np.full((dataset.sizes["layer"], dataset.sizes["step"]), np.nan)
    if known.steps == "grouped" or known.shift:
        return nothing, nothing
    cuts: Cuts = "static" if known.steps == "static" else None
    try:
        found = error(dataset, bits=known.bits, clip="mse" if known.mse else "absmax", cuts=cuts)
    except (MissingError, MisuseError):
        return nothing, nothing
    one = found[["error", "sqnr"]].transpose("layer", "step").compute()
    return one["error"].values * 10 ** (one["sqnr"].values / 10), one["error"].values


def _kurtosis(dataset: xr.Dataset) -> Floats:
    """``(layer,)`` fourth central moment by squared variance, of all values at all steps.

    Every value counts as the middle of its bin of the histogram.
    """
    counts = dataset["histogram"].sum(("batch", "step")).transpose("layer", "bin").values
    middle = (dataset["bin_left"].values + dataset["bin_right"].values) / 2
    held = np.where(counts > 0, np.asarray(middle, np.float64), 0)  # ends may be infinite
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (counts * held).sum(axis=1, keepdims=True) / total
        centred = np.where(counts > 0, held - mean, 0)
        square, fourth = ((counts * centred**power).sum(axis=1) / total[:, 0] for power in (2, 4))
        return np.asarray(fourth / square**2)
