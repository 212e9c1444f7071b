"""Which first and last steps deserve inputs that are not quantized, or with more bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.error import error
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import Cuts
from taqstore.analysis.shared.effects import Effects, Groups
from taqstore.analysis.shared.inputs import finish
from taqstore.analysis.table import of_row
from taqstore.arrays.lazy import cut, read_once
from taqstore.errors import MissingError, MisuseError, StoreError, problem
from taqstore.kinds.formats.input_formats import InputFormat
from taqstore.kinds.sensitivity import sensitivities
from taqstore.names import ACTIVATIONS, split_group
from taqstore.statistics.bins import Floats
from taqstore.store.attributes import attribute_of

NAME = "policy"
WHOLE = 16
"""Bits of inputs that are not quantized."""
_UNIT = "step"
_DEFAULT = "a4-static"
_MEASURED = "sensitivity"
_AS_FIRST: Any = {"coords": "minimal", "compat": "override", "join": "override"}


@dataclass(frozen=True)
class _Costs:
    """What each step costs where it is quantized, and where it is protected.

    Parameters
    ----------
    steps
        Their labels.
    images
        Of how many images.
    quantized, protected
        Vectors ``(step, value)`` of an image, which add, relative to the norm of its final latent.
        Static costs are one image whose steps have a direction each, so that they add as squares.
    """

    steps: tuple[int, ...]
    images: int
    quantized: Callable[[int], Floats]
    protected: Callable[[int], Floats] | None = None

    def pairs(self, most: tuple[int, int]) -> tuple[Floats, Floats]:
        """Lengths of sums, means over images: ``(first, last)``, and ``(step,)`` of each alone.

        NaN where first and last are more than there are.
        """
        count, shape = len(self.steps), (most[0] + 1, most[1] + 1)
        sums, alone = np.zeros((self.images, *shape)), np.zeros((self.images, count))
        for image in range(self.images):  # memory is that of one
            rows = self.quantized(image)
            alone[image] = np.linalg.norm(rows, axis=-1)
            between = _running(rows)
            ends = None if self.protected is None else _running(self.protected(image))
            for first, last in product(*map(range, shape)):
                if first + last > count:
                    continue
                total = between[count - last] - between[first]
                if ends is not None:
                    total = total + ends[first] + (ends[count] - ends[count - last])
                sums[image, first, last] = np.linalg.norm(total)
        inside = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) <= count
        return np.where(inside, sums.mean(axis=0), np.nan), alone.mean(axis=0)


def _running(rows: Floats) -> Floats:
    """Sums of the first 0, 1, … rows."""
    return np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])


@of_row(NAME, blocks=False)
def policy(
    groups: Groups,
    *,
    format: str | None = None,
    protect: int = 6,
    max_first: int = 6,
    max_last: int = 6,
    protect_bits: int = WHOLE,
    static: bool = False,
) -> dict[str, xr.Dataset]:
    """Predicted error of every pair of numbers of first and last steps that are protected.

    The error of a policy is the mean over images of ``|sum of deltas| / |final|`` over the steps
    that stay quantized, with the deltas of `sensitivity/step/<format>`: what quantizing inputs at
    one step alone does to the final latent. Effects add as vectors, to first order.

    Where these are not there, or with `static`, the cost of step k is the expected error of inputs
    as a share of their mean square, averaged over linears' inputs, times the square of
    ``sigma[k] - sigma[k + 1]``, which is how far the step goes; costs add as squares. It is an
    order of steps, not an error of the latent.

    Parameters
    ----------
    groups
        A store.
    format
        Of the steps between; None: the only one that was measured, or `a4-static`.
    protect
        Number of protected steps of the policy that is chosen; fewer if there are fewer steps.
    max_first, max_last
        Pairs that are considered.
    protect_bits
        Of inputs at protected steps; 16: as they are. Fewer take the sensitivities of `format` with
        these bits.
    static
        Use statistics even where there are sensitivities.

    Returns
    -------
    Dataset
        (first, last): `predicted_error`. (protected): `best_first`, `best_last`, `best_error` of
        the best pair of as many steps, and `half_first`, `half_last`, `half_error` of the first and
        the last half of them, one more at the start of an odd number. (step): `step_error`, of the
        step alone. `basis` (protected) says what they come from; static ones are no errors and are
        called `predicted_cost`, `best_cost`, `half_cost`, `step_cost`. Attributes `chosen_first`,
        `chosen_last`, `basis`.

    Raises
    ------
    MissingError
        The store has neither sensitivities of steps nor activations.
    MisuseError
        Several formats were measured and none is named, or `protect` is beyond the pairs.
    """
    asked = _format(groups, format)
    InputFormat.parse(asked)
    measured = {name: data for (_, name), data in sensitivities(groups, _UNIT).items()}
    if protect > max_first + max_last:
        what = f"{protect} protected steps are more than --max-first and --max-last allow"
        raise MisuseError(problem(what, found=f"{max_first} and {max_last}"))
    if asked in measured and not static:
        costs, source = _of_deltas(measured, asked, protect_bits), measured[asked]
        basis = _MEASURED
    else:
        costs, source = _of_statistics(groups, asked, protect_bits)
        basis = "static expected error"
    table, alone = costs.pairs((max_first, max_last))
    result = _result(costs.steps, table, alone)
    chosen = min(protect, max_first + max_last, len(costs.steps))
    best = result.sel(protected=chosen)
    result["basis"] = ("protected", np.array([basis] * result.sizes["protected"], dtype=object))
    if basis != _MEASURED:  # no error of the latent, and not called so
        result = result.rename({n: str(n).replace("_error", "_cost") for n in result
                                if str(n).endswith("_error")})  # fmt: skip
    stamped = result.assign_attrs(
        basis=basis,
        chosen_first=int(best["best_first"]),
        chosen_last=int(best["best_last"]),
        steps=len(costs.steps),
    )
    return {
        NAME: finish(
            stamped,
            source,
            NAME,
            format=asked,
            protect=chosen,
            max_first=max_first,
            max_last=max_last,
            protect_bits=protect_bits,
        )
    }


def _format(groups: Groups, asked: str | None) -> str:
    there = [name for _, name in sensitivities(groups, _UNIT)]
    if asked is not None:
        return asked
    if len(there) > 1:
        what = "sensitivities of steps are there in several formats"
        raise MisuseError(problem(what, remedy=f"choose one with --format: {', '.join(there)}"))
    return there[0] if there else _DEFAULT


def _of_deltas(measured: dict[str, xr.Dataset], format: str, bits: int) -> _Costs:
    names = [format]
    if bits != WHOLE:
        names.append(InputFormat.parse(format).with_bits(bits))
        if names[1] not in measured:
            what = f"no sensitivities of steps in {names[1]}"
            remedy = f"taqstore sensitivity --unit step --format {names[1]}"
            raise MissingError(problem(what, found=", ".join(measured), remedy=remedy))
    known = Effects.of({name: measured[name] for name in names})
    steps = sorted(int(name) for name in known.targets)
    vectors = [_vectors(data, steps, known.norm) for data in known.datasets]
    return _Costs(tuple(steps), len(known.norm), *vectors)


def _vectors(data: xr.Dataset, steps: Sequence[int], norm: Floats) -> Callable[[int], Floats]:
    """Deltas (step, value) of an image by the norm of its final latent."""
    places = {int(str(name)): index for index, name in enumerate(data["target"].values)}
    count = attribute_of(data, "run", {}).get("steps", max(steps) + 1)
    missing = [step for step in range(max(int(count), max(steps) + 1)) if step not in places]
    if missing:
        what = f"the sensitivity of step {missing[0]} was not measured"
        remedy = "taqstore sensitivity --resume measures the rest"
        raise MissingError(problem(what, found=f"{len(places)} steps", remedy=remedy))
    ordered = data["delta"].isel(target=[places[step] for step in steps])
    ordered = ordered.transpose("image", "target", ...)

    def of(image: int) -> Floats:
        values = np.asarray(ordered.isel(image=image).values, np.float64)
        found: Floats = values.reshape(len(steps), -1) / norm[image]
        broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if broken.size:
            number = int(data["image"].values[image])
            what = f"quantized at step {steps[broken[0]]}, the final latent is no number"
            raise StoreError(
                problem(what, found=f"image {number}", remedy="choose another --format")
            )
        return found

    return of


def _of_statistics(groups: Groups, format: str, bits: int) -> tuple[_Costs, xr.Dataset]:
    paths = [path for path in groups if split_group(path)[0] == ACTIVATIONS]
    if not paths:
        what = "neither sensitivities of steps nor activations in the store"
        remedy = "taqstore sensitivity --unit step measures, taqstore collect observes"
        raise MissingError(problem(what, remedy=remedy))
    known = InputFormat.parse(format)
    formats = [known] if bits == WHOLE else [known, InputFormat.parse(known.with_bits(bits))]
    found = []
    for one in formats:
        parts = [_shares(groups[path], one) for path in paths]
        shares = np.concatenate([part.values for part in parts], axis=1)
        found.append(_apart(_step_costs(shares, parts[0])))
    steps = tuple(int(step) for step in parts[0]["step"].values)
    return _Costs(steps, 1, *found), groups[paths[0]]


def _shares(dataset: xr.Dataset, format: InputFormat) -> xr.DataArray:
    """Expected error of inputs by their mean square (step, layer)."""
    if format.steps == "grouped" or format.shift:
        what = f"no static cost of {format.name}: it is told of static and step formats"
        raise MisuseError(problem(what, remedy=f"--format a{format.bits}-static"))
    cuts: Cuts = "static" if format.steps == "static" else None
    rule: Rule = "mse" if format.mse else "absmax"
    parts = [
        error(part, bits=format.bits, clip=rule, cuts=cuts)["sqnr"].compute()
        for part in map(read_once, cut(dataset, "layer") or [dataset])
    ]
    share: xr.DataArray = 10 ** (-xr.concat(parts, "layer", **_AS_FIRST) / 10)
    return share.transpose("step", "layer")


def _step_costs(shares: Floats, like: xr.DataArray) -> Floats:
    sigma = np.append(like["sigma"].values.astype(np.float64), 0.0)
    found: Floats = np.sqrt(np.nanmean(shares, axis=1)) * -np.diff(sigma)
    return found


def _apart(costs: Floats) -> Callable[[int], Floats]:
    """One image whose steps have a direction each."""
    return lambda _: np.diag(costs)


def _result(steps: Sequence[int], table: Floats, alone: Floats) -> xr.Dataset:
    first, last = (range(size) for size in table.shape)
    most = min(len(steps), table.shape[0] + table.shape[1] - 2)
    rows = []
    for count in range(most + 1):
        pairs = [(f, count - f) for f in first if count - f in last]
        best = min(pairs, key=lambda pair: (table[pair], pair))
        half = (count - count // 2, count // 2)
        known = half in pairs
        rows.append((*best, table[best], *half, table[half] if known else np.nan))
    columns = list(zip(*rows, strict=True))
    names = ("best_first", "best_last", "best_error", "half_first", "half_last", "half_error")
    return xr.Dataset(
        {
            **{n: ("protected", np.array(c)) for n, c in zip(names, columns, strict=True)},
            "predicted_error": (("first", "last"), table),
            "step_error": ("step", alone),
        },
        {
            "protected": np.arange(most + 1),
            "first": list(first),
            "last": list(last),
            "step": list(steps),
        },
    )
