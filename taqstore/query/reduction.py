"""Reductions that a user names as text: ``step=max``, ``channel=p99.9``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from taqstore.asked import meant
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.store.given import handed

if TYPE_CHECKING:
    import xarray as xr

    from taqstore.arrays.plain import PlainGroup

    Reduction: TypeAlias = Callable[[Any, str], Any]

WAYS = ("max", "min", "mean", "std", "median", "p99.9")
"""How a dimension is reduced; of percentiles, an example."""
_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d+)?)")


@handed(blocks=True)
def reduce(dataset: xr.Dataset, *specs: str, skipna: bool = False) -> xr.Dataset:
    """Reduce one dimension after the other, lazily.

    Parameters
    ----------
    specs
        ``DIM=max``, ``min``, ``mean``, ``std`` (population), ``median`` or ``pNN[.N]`` (percentile,
        linear between order statistics). `max` and `min` keep the dtype; the others are float64.
    skipna
        Leave NaN out. By default NaN comes through, so that what is missing is never passed over.

    Returns
    -------
    Dataset
        Variables without the dimension are unchanged. Attribute `reduced` lists the reductions,
        `dropped` the non-numeric variables that had the dimension.

    Raises
    ------
    MissingError
        No data variable has the dimension.
    MisuseError
        The reduction is not known.
    """
    reduced: xr.Dataset = _reduced(dataset, specs, lambda how: _reduction(how, skipna))
    return reduced


def reduce_plain(group: PlainGroup, *specs: str) -> PlainGroup:
    """As `reduce`, of a group without xarray; the same numbers where it is `one_block`."""
    from taqstore.query.plain_reductions import plain_reduction

    def reduction(how: str) -> Reduction:
        return plain_reduction(how if how in WAYS[:-1] else _percentile(how))

    reduced: PlainGroup = _reduced(group, specs, reduction)
    return reduced


def _reduced(dataset: Any, specs: Sequence[str], reduction: Callable[[str], Reduction]) -> Any:
    dropped: list[str] = []
    for dim, how in map(parts_of, specs):
        dataset, lost = _reduce_one(dataset, dim, reduction(how))
        dropped += lost
    notes = {"reduced": ", ".join(specs), "dropped": ", ".join(dropped)}
    return dataset.assign_attrs({key: text for key, text in notes.items() if text})


def parts_of(spec: str) -> tuple[str, str]:
    """Dimension and reduction of ``DIM=HOW``.

    Raises
    ------
    MisuseError
        It is not written so, or the reduction is not known.
    """
    dim, separator, how = (part.strip() for part in spec.partition("="))
    if not separator:
        remedy = "write DIM=HOW, like step=max"
        raise MisuseError(problem(f"reduction {spec!r} has no '='", remedy=remedy))
    if how not in WAYS:
        _percentile(how)
    return dim, how


def _reduction(how: str, skipna: bool) -> Reduction:
    if how in ("max", "min"):
        return lambda array, dim: getattr(array, how)(dim, skipna=skipna, keep_attrs=True)
    if how in ("mean", "std"):
        # float64: float16 sums overflow at 65504, float32 ones lose digits over many tokens.
        return lambda array, dim: getattr(array.astype("f8"), how)(
            dim, skipna=skipna, keep_attrs=True
        )
    percentile = 50.0 if how == "median" else _percentile(how)

    def quantile(array: xr.DataArray, dim: str) -> xr.DataArray:
        whole = array.chunk({dim: -1}) if array.chunks is not None else array
        result = whole.astype("f8").quantile(percentile / 100, dim, skipna=skipna, keep_attrs=True)
        return result.drop_vars("quantile")

    return quantile


def _percentile(how: str) -> float:
    match = _PERCENTILE.fullmatch(how)
    if match is None or float(match[1]) > 100:
        remedy = f"{meant(how, WAYS)}; percentiles are p0 to p100"
        raise MisuseError(problem(f"reduction {how!r} is not known", remedy=remedy))
    return float(match[1])


def _reduce_one(dataset: Any, dim: str, reduction: Reduction) -> tuple[Any, list[str]]:
    """Reduce every numeric variable that has `dim`; names of the others that had it."""
    have = [name for name, array in dataset.data_vars.items() if dim in array.dims]
    if not have:
        dims = dict.fromkeys(d for v in dataset.data_vars.values() for d in v.dims)
        raise MissingError(problem(f"no variable has dimension {dim!r}", remedy=meant(dim, dims)))
    numeric = [name for name in have if dataset[name].dtype.kind in "fiub"]
    reduced = {name: _relabel(reduction(dataset[name], dim)) for name in numeric}
    # Left-over coordinates of the dimension go with it.
    rest = dataset.drop_dims(dim)
    order = [name for name in dataset.data_vars if name in reduced or name in rest]
    merged = rest.assign(reduced)[order]
    return merged, [str(name) for name in have if name not in reduced]


def _relabel(array: Any) -> Any:
    """Drop `original_dtype`: it speaks of stored values, and this one is computed."""
    array.attrs.pop("original_dtype", None)
    return array
