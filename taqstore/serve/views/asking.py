"""How views ask: which groups, held in memory or read for once, and answers that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.ranges.rules import RULES, ClipRule
from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.names import site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import Shown, analysis_shown

if TYPE_CHECKING:
    import xarray as xr

SOURCE = Option("source", "Group prefix [default: first of those in the store].", str)
SITES = Option("site", "attn.qkv, mlp.fc2, … Repeatable.", "word", (), many=True)
LAYERS = Option("layer", "Glob over layers, or any spelling of one.", str)
BATCH = Option("batch", "Observed batches to use: A:B:S.", str)
ONE_SITE = Option("site", "Site [default: the first].", str)
ONE_LAYER = Option("layer", "Layer, in any spelling [default: the first].", str)
STEP = Option("step", "Step that is looked at [default: the middle one].", int, least=0)

# What stands in memory for one linear: all but moments, which nothing here asks of batches.
_SLAB = ("min", "max", "histogram", "count", "nonfinite", "tensor_min", "tensor_max")
# What asks for the extrema of channels, of all batches together.
_OF_CHANNELS = ("outliers", "shifts")
_LAYERS = 8
_SCHEME = ("bits", "symmetric", "narrow_range")
# Analyses that give more than is wanted, at a price: of these only what is wanted is computed.
_LAZY = (*_OF_CHANNELS, "temporal", "diagnostics")


@dataclass(frozen=True)
class Part:
    """What a view is asked about: a store and the batches of it that count.

    Parameters
    ----------
    service
        That has the store.
    store
        Its name.
    batch
        As of `query.select`; None: all.
    """

    service: Service
    store: str
    batch: str | None = None

    def paths(
        self, source: str | None, sites: Sequence[str] = (), layer: str | None = None
    ) -> list[str]:
        """Groups to ask, as `query.analyze` chooses them."""
        from taqstore.query.sites import choose_groups

        return choose_groups(self.service.store(self.store), source, sites=sites, layer=layer)

    def group(self, path: str) -> xr.Dataset:
        """A group as the store has it, lazy, of the batches alone."""
        from taqstore.query.select import select

        dataset = self.service.store(self.store)[path]
        return select(dataset, batch=self.batch) if self.batch is not None else dataset

    def held(self, path: str, *, channels: bool = False, moments: bool = False) -> xr.Dataset:
        """A group in memory with its batches merged; parts as of `Service.held`."""
        parts = {"channels": channels, "moments": moments}
        return self.service.held(self.store, path, batch=self.batch, **parts)

    def slab(self, path: str, layer: str) -> xr.Dataset:
        """One layer of a group in memory, batches apart."""
        return self.service.kept(
            self.store, ("slab", path, layer, self.batch), partial(self._slab, path, layer)
        )

    def _slab(self, path: str, layer: str) -> xr.Dataset:
        dataset = self.group(path)
        lost = {"mean", "m2"} if "batch" in dataset.dims else set[str]()
        one = dataset.drop_vars([name for name in lost if name in dataset.data_vars])
        return one.isel(layer=[_place(dataset, layer)]).compute()

    def answer(
        self,
        analysis: str,
        path: str,
        variables: Sequence[str],
        *,
        layer: str | None = None,
        small: bool = False,
        **options: Any,
    ) -> xr.Dataset:
        """Variables of an analysis of one group, in memory; kept.

        Parameters
        ----------
        layer
            Of this one alone; None: of all.
        small
            As of `quantities.Quantity`.

        Raises
        ------
        MissingError
            The group lacks what is needed, or the analysis gives none of the variables.
        """
        key = ("answer", analysis, path, self.batch, layer, *_frozen(options), *variables)
        make = partial(self._answer, analysis, path, variables, layer, small, options)
        return self.service.kept(self.store, key, make)

    def _answer(
        self,
        analysis: str,
        path: str,
        variables: Sequence[str],
        layer: str | None,
        small: bool,
        options: Mapping[str, Any],
    ) -> xr.Dataset:
        asked = dict(options)
        if analysis == "error" and not asked.keys() & {"lower", "upper", "cuts"}:
            asked = self._with_bounds(path, layer, asked)
        dataset = self._statistics(analysis, path, layer, asked, small=small)
        return _run(analysis, path, variables, asked, dataset)

    def _with_bounds(
        self, path: str, layer: str | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The range that a rule chooses in place of the rule."""
        ends = self.range_of(path, layer, options)
        kept = {key: options[key] for key in _SCHEME if key in options}
        return {**kept, "bounds": (ends["lower"], ends["upper"])}

    def range_of(self, path: str, layer: str | None, options: Mapping[str, Any]) -> xr.Dataset:
        """`lower` and `upper` of a rule; kept when bits change that it does not depend on."""
        row = RULES[options.get("clip", "absmax")]
        scheme = _SCHEME if row.by_bits else ("symmetric",)
        asked = {key: options[key] for key in (*scheme, "clip", *row.options) if key in options}
        return self.answer("scales", path, ("lower", "upper"), layer=layer, **asked)

    def priced(
        self,
        path: str,
        layer: str,
        bounds: tuple[xr.DataArray, xr.DataArray],
        variables: Sequence[str],
        **scheme: Any,
    ) -> xr.Dataset:
        """What ranges of one layer cost; they may have further dimensions."""
        dataset = self._statistics("error", path, layer, {}, small=False)
        return _run("error", path, variables, {"bounds": bounds, **scheme}, dataset)

    def _statistics(
        self,
        analysis: str,
        path: str,
        layer: str | None,
        options: Mapping[str, Any],
        *,
        small: bool,
    ) -> xr.Dataset:
        """What to ask, in the cheapest way that gives the same numbers."""
        row = RULES.get(str(options.get("clip", "absmax")))
        apart = row is not None and not row.merges
        by_channel = analysis in _OF_CHANNELS or options.get("per", "tensor") != "tensor"
        if layer is not None and (apart or by_channel):
            found = self.slab(path, layer)
        elif layer is not None:
            found = self.held(path, moments=analysis == "temporal")
            found = found.isel(layer=[_place(found, layer)])
        elif apart or ((small or _of_rollups(analysis, row)) and _has_rollups(self.group(path))):
            found = self.group(path)
        else:
            found = self.held(path, channels=by_channel, moments=analysis == "temporal")
        return found

    def shown(
        self,
        analysis: str,
        options: Mapping[str, Any],
        *,
        source: str | None = None,
        sites: Sequence[str] = (),
        layer: str | None = None,
        step: int | None = None,
    ) -> Shown:
        """The command and the Python that give the same numbers; options at defaults left out."""
        rows = {row.name: row.default for row in ANALYSES[analysis].options}
        said = {k: v for k, v in options.items() if v is not None and v != rows[k]}
        chosen = {
            "source": source,
            "site": tuple(sites),
            "layer": layer,
            "step": None if step is None else str(step),
            "batch": self.batch,
        }
        address = self.service.address(self.store)
        return analysis_shown(analysis, address, chosen=chosen, options=said)


def _run(
    analysis: str,
    path: str,
    variables: Sequence[str],
    options: Mapping[str, Any],
    dataset: xr.Dataset,
) -> xr.Dataset:
    from taqstore.query.analyze import analyze

    asked = _lazy(dataset) if analysis in _LAZY else dataset
    found = analyze(analysis, {path: asked}, source=split_group(path)[0], **options)[path]
    wanted = [name for name in variables if name in found.data_vars]
    if not wanted:
        what = f"{analysis} of {path} tells no {' or '.join(variables)}"
        raise MissingError(problem(what, found=", ".join(map(str, found.data_vars))))
    return _without(found)[wanted].compute()


def _of_rollups(analysis: str, row: ClipRule | None) -> bool:
    return analysis == "scales" and row is not None and row.needs == "extrema"


def _has_rollups(dataset: xr.Dataset) -> bool:
    """Whether extrema of whole tensors are read at once: no more than one number a batch."""
    return {"tensor_min", "tensor_max"} <= set(dataset.data_vars)


def _lazy(dataset: xr.Dataset) -> xr.Dataset:
    """The same in blocks of some layers, so that of an answer only what is wanted is computed.

    Ranges of all channels in float64 would be gigabytes of a large model.
    """
    from uuid import uuid4

    if dataset.chunks:
        return dataset
    # A token of our own: dask would read everything to make one.
    return dataset.chunk({"layer": _LAYERS}, token=uuid4().hex)


def _without(found: xr.Dataset) -> xr.Dataset:
    """Without coordinates that are larger than the answer."""
    lost = [name for name, c in found.coords.items() if {"bin", "channel", "batch"} & {*c.dims}]
    return found.drop_vars(lost)


def _frozen(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items())


def _place(dataset: xr.Dataset, layer: str) -> int:
    return [str(name) for name in dataset["layer"].values].index(layer)


def one_layer(
    part: Part, source: str | None, site: str | None, layer: str | None
) -> tuple[str, str, list[str], list[str]]:
    """Which linear is meant: the first there is, unless one is named.

    Returns
    -------
    Path of the group, label of the layer, all sites, and all layers of the site.

    Raises
    ------
    MissingError
        There is no such source, site or layer.
    """
    paths = part.paths(source)
    sites = [site_of(path) for path in paths]
    path = part.paths(source, [site] if site else (), layer if not site else None)[0]
    dataset = part.service.store(part.store)[path]
    layers = [str(name) for name in dataset["layer"].values]
    if layer is None or layer in layers:
        return path, layer or layers[0], sites, layers
    from taqstore.query.select import select

    try:
        found = select(dataset[["layer"]], layer=layer, site=site_of(path))["layer"].values
    except MissingError as error:
        what = f"no layer {layer!r} of {site_of(path)}"
        raise MissingError(problem(what, remedy=meant(layer, layers))) from error
    return path, str(found[0]), sites, layers


def steps_of(dataset: xr.Dataset) -> dict[str, Any]:
    """``steps`` and ``sigma`` of an answer; sigma is None where it is not known."""
    sigma = dataset["sigma"].values if "sigma" in dataset.coords else None
    return {"steps": dataset["step"].values.tolist(), "sigma": sigma}


def step_of(dataset: xr.Dataset, step: int | None) -> tuple[int, int]:
    """Position and label of a step, by its label; by default the middle one.

    Raises
    ------
    MissingError
        There is no such step.
    """
    labels = dataset["step"].values.tolist()
    if step is None:
        step = labels[len(labels) // 2]
    if step not in labels:
        raise MissingError(problem(f"no step {step}", found=", ".join(map(str, labels))))
    return int(labels.index(step)), int(step)


def layer_particulars(name: str) -> dict[str, Any]:
    """``block``, its ``number`` and ``stream`` of a layer; empty and None outside blocks."""
    from taqstore.errors import TaqError
    from taqstore.names import Block, parse_layer

    try:
        layer = parse_layer(name)
    except TaqError:
        return {"block": "", "number": None, "stream": ""}
    number = Block.parse(layer.block).index if layer.in_block else None
    return {"block": layer.block if layer.in_block else "", "number": number,
            "stream": layer.stream}  # fmt: skip


def along_steps(array: xr.DataArray) -> list[tuple[str, str, Any]]:
    """Label of the layer, its projection or nothing, and values over steps, for each linear."""
    dims = ("layer", "projection") if "projection" in array.dims else ("layer",)
    laid = array.transpose(*dims, "step")
    rows = []
    for place, name in enumerate(laid["layer"].values):
        one = laid.values[place]
        if len(dims) == 1:
            rows.append((str(name), "", one))
        else:
            labels = laid["projection"].values
            rows += [(str(name), str(p), one[i]) for i, p in enumerate(labels)]
    return rows


def rules_offered() -> list[dict[str, Any]]:
    """Rules for a menu: what they do, take and need."""
    return [
        {
            "rule": name,
            "label": row.label,
            "doc": row.doc,
            "options": list(row.options),
            "by_bits": row.by_bits,
            "needs": row.needs,
            "merges": row.merges,
        }
        for name, row in RULES.items()
    ]
