"""Budgets and steps by what a run measured: sensitivities of linears and of steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.table import ANALYSES
from taqstore.errors import MissingError, problem
from taqstore.names import ACTIVATIONS, kind_of
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import analysis_shown

if TYPE_CHECKING:
    import xarray as xr

_PASTE = {"frontier": "allocation", "policy": "policy"}
FRONTIER = ANALYSES["frontier"].options
POLICY = ANALYSES["policy"].options


def stored(service: Service, *, store: str) -> dict[str, Any]:
    """What a store holds that was measured: sensitivities, and trajectories of variants.

    Returns
    -------
    ``sensitivities`` and ``scores``: ``{"unit", "format", "inputs", "targets", "images"}`` each;
    ``variants``, names of what was run beside the model as it is.
    """
    from taqstore.kinds.sensitivity import scores, sensitivities
    from taqstore.query.variants import variant_paths

    opened = service.store(store)
    return {
        "sensitivities": [_told(*item) for item in sensitivities(opened).items()],
        "scores": [_told(*item) for item in scores(opened).items()],
        "variants": list(variant_paths(opened)),
        "cli": f"taqstore info {_quoted(service.address(store))}",
        "python": f"store = taqstore.open_store({service.address(store)!r})\n"
        "found = taqstore.kinds.sensitivities(store)",
    }


def _quoted(address: str) -> str:
    import shlex

    return shlex.quote(address)


def _told(key: tuple[str, str], data: xr.Dataset) -> dict[str, Any]:
    from taqstore.kinds.sensitivity import quantizes_inputs

    unit, name = key
    return {
        "unit": unit,
        "format": name,
        "inputs": quantizes_inputs(name),
        "targets": data.sizes["target"],
        "images": data.sizes.get("image", 0),
    }


def frontier_plan(service: Service, *, store: str, **asked: Any) -> dict[str, Any]:
    """Least predicted error at every budget of average bits, and who has which format at one.

    Returns
    -------
    ``average`` asked; ``budgets``: ``{"average_bits", "predicted_error", "first_order_error",
    "kept_float", …}`` each; ``uniform``: ``{"format", "bits", "error", "first_order"}``;
    ``allocation``: ``{"target", "format", "bits", "error"}``; ``basis``, ``note`` and
    ``bits_counted``.

    Raises
    ------
    MissingError
        The store has no sensitivities of linears, or none of these formats.
    MisuseError
        A budget below what the formats allow, or options that do not go together.
    """
    from taqstore.query.budgets import frontiers

    opened = service.store(store)
    if asked.get("average") is None and not asked.get("formats") and not asked.get("score"):
        key = ("plan budget",)
        asked["average"] = service.kept(
            store, key, lambda: float(frontiers(opened)["sensitivity"].attrs["average"])
        )
    data = _analyzed(service, store, "frontier", asked)
    return {
        "average": asked.get("average"),
        "budgets": _rows(data, "budget"),
        "uniform": _renamed(_rows(data, "format"), "uniform_"),
        "allocation": _renamed(_rows(data, "target"), "allocated_", {"allocated": "format"}),
        **{name: str(data.attrs.get(name, "")) for name in ("basis", "note", "bits_counted")},
        **_shown(service, store, "frontier", asked),
    }


def policy_plan(service: Service, *, store: str, **asked: Any) -> dict[str, Any]:
    """Which first and last steps to protect, by what quantizing inputs at each step does.

    Returns
    -------
    ``formats`` that steps were measured in, ``format`` told of; ``first`` and ``last`` (numbers of
    steps), ``values`` (first, last) of the predicted error or cost; ``steps``, ``step_error``;
    ``protected``: the best pair of each number of steps; ``chosen``; ``basis``, ``unit``.

    Raises
    ------
    MissingError
        The store has neither sensitivities of steps nor activations.
    MisuseError
        More protected steps than pairs allow.
    """
    from taqstore.kinds.sensitivity import sensitivities

    formats = [name for _, name in sensitivities(service.store(store), "step")]
    if len(formats) > 1 and asked.get("format") is None:
        asked["format"] = formats[0]
    data = _analyzed(service, store, "policy", asked)
    what = "error" if "predicted_error" in data else "cost"
    return {
        "formats": formats,
        "format": str(data.attrs["format"]),
        "first": data["first"].values,
        "last": data["last"].values,
        "values": data[f"predicted_{what}"].transpose("first", "last").values,
        "steps": data["step"].values,
        "step_error": data[f"step_{what}"].values,
        "protected": _rows(data.drop_vars("basis"), "protected"),
        "chosen": {end: int(data.attrs[f"chosen_{end}"]) for end in ("first", "last")},
        "basis": str(data.attrs["basis"]),
        "what": what,
        **_shown(service, store, "policy", asked),
    }


def _analyzed(service: Service, store: str, name: str, asked: Mapping[str, Any]) -> xr.Dataset:
    """The one result of an analysis of whole stores."""
    from taqstore.query.analyze import analyze, load

    def ask() -> xr.Dataset:
        # A frontier counts channels of inputs, which what is held has no need of.
        groups = _Held(service, store) if name == "policy" else service.store(store)
        results = load(analyze(name, groups, **asked))
        if not results:
            raise MissingError(problem(f"{name} tells nothing of this store"))
        return next(iter(results.values()))

    key = (name, *sorted((key, _hashable(value)) for key, value in asked.items()))
    return service.kept(store, key, partial(ask))


class _Held(Mapping[str, "xr.Dataset"]):
    """Groups of a store, statistics of them as they are held in memory."""

    def __init__(self, service: Service, store: str) -> None:
        self._service, self._name, self._store = service, store, service.store(store)

    def __getitem__(self, path: str) -> xr.Dataset:
        if kind_of(path) == ACTIVATIONS:
            return self._service.held(self._name, path)
        return self._store[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __len__(self) -> int:
        return len(self._store)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _rows(data: xr.Dataset, dim: str) -> list[dict[str, Any]]:
    """A row for each label of a dimension, of what has no other one."""
    if dim not in data.dims:
        return []
    names = [dim, *(str(name) for name in data.data_vars if data[name].dims == (dim,))]
    columns = [data[name].values.tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _renamed(
    rows: Sequence[dict[str, Any]], prefix: str, names: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    known = names or {}
    return [{known.get(k, k.removeprefix(prefix)): v for k, v in row.items()} for row in rows]


def _shown(service: Service, store: str, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Commands of the numbers, and of the document that other tools take."""
    said = {row.name: row.default for row in ANALYSES[name].options}
    options = {key: value for key, value in asked.items() if value != said[key]}
    shown = analysis_shown(name, service.address(store), options=options)
    paste = _PASTE[name]
    return {**shown, "config": {"cli": f"{shown['cli']} --paste {paste} -o {paste}.json"}}
