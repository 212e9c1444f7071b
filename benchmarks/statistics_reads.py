"""Three reads of the statistics: a layer over all steps, a step over all layers, all absmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import peers
from .inputs import Inputs
from .measure import Contender, Run
from .npz_folder import NpzFolder, Vectors
from .peers import EXTREMA, SITES
from .question import Question
from .rows import Target

if TYPE_CHECKING:
    from taqstore import Store

NPZ = "np.load"
INDEXES, ROLLUP = "index JSON", "tensor_absmax"
MAPPED, LAZY = "chunks=None", "default"

PerSite = dict[str, NDArray[Any]]


def _open(inputs: Inputs, mode: str) -> Store:
    from taqstore import open_store

    store = inputs.store("statistics")
    return open_store(store, chunks=None) if mode == MAPPED else open_store(store)


def _sites(store: Store) -> list[str]:
    return [group for group in store if group.startswith(SITES)]


def _files(inputs: Inputs) -> list[Path]:
    found = [inputs.source("statistics"), inputs.store("statistics")]
    return [*found, peers.h5_statistics(inputs)] if peers.installed("h5py") else found


@dataclass(frozen=True)
class _Labels:
    """Which linears a site's layers are: stores keep q, k and v once, folders thrice."""

    inputs: Inputs

    def by_linear(self, answer: PerSite) -> Vectors:
        """Site arrays with layers on their second-last axis, as one array per linear."""
        store = _open(self.inputs, MAPPED)
        named: Vectors = {}
        for site, values in answer.items():
            for row, layer in enumerate(store[site]["layer"].values):
                for linear in _linears(str(layer), site.removeprefix(SITES)):
                    named[linear] = values[..., row, :]
        return named

    def rollup_by_linear(self, answer: PerSite) -> Vectors:
        """(step, layer) arrays, as one (step,) array per linear."""
        grown = {site: values[..., None] for site, values in answer.items()}
        return {name: values[:, 0] for name, values in self.by_linear(grown).items()}


def _linears(layer: str, site: str) -> list[str]:
    if site != "attn.qkv":
        return [f"{layer}.{site}"]
    return [f"{layer}.attn.{projection}_proj" for projection in "qkv"]


def _post_gelu(folder: NpzFolder) -> list[str]:
    """The widest inputs, 6144 channels: the case where a folder's overhead counts least."""
    return [name for name in folder.linears if name.endswith(".mlp.fc2")]


def layer_contenders(inputs: Inputs) -> list[Contender]:
    """Extrema of one post-GELU input over all steps, (2, step, channel), copied into memory."""
    folder = NpzFolder(inputs.source("statistics"))
    names = _post_gelu(folder)

    def pick(call: int) -> str:
        return names[call * 7 % len(names)]

    def by_name(mode: str) -> Run:
        store = _open(inputs, mode)
        return lambda call: _stacked(store.layer(pick(call)))

    def by_group() -> Run:
        group = _open(inputs, MAPPED)[f"{SITES}mlp.fc2"]
        return lambda call: _stacked(group.sel(layer=pick(call).removesuffix(".mlp.fc2")))

    contenders = [
        Contender(MAPPED, lambda: by_name(MAPPED), ours=True),
        Contender(LAZY, lambda: by_name(LAZY), ours=True),
        Contender("chunks=None, group.sel", by_group, ours=True),
        Contender(
            "chunks=None, opened each time",
            lambda: lambda call: _stacked(_open(inputs, MAPPED).layer(pick(call))),
            ours=True,
        ),
        Contender(NPZ, lambda: lambda call: folder.layer(pick(call))),
    ]
    layers = [n.removesuffix(".mlp.fc2") for n in names]
    arrays = [f"{SITES}mlp.fc2/{name}" for name in EXTREMA]

    def chunked(opened: list[Any]) -> Run:
        stored = _open(inputs, MAPPED)[f"{SITES}mlp.fc2"]["layer"].values.tolist()
        row = {f"{layer}.mlp.fc2": stored.index(layer) for layer in layers}
        return lambda call: _gather(opened, (slice(None), row[pick(call)]))

    return [*contenders, *_peer_contenders(inputs, arrays, chunked)]


def _peer_contenders(
    inputs: Inputs, arrays: list[str], chunked: Callable[[list[Any]], Run], **extra: Any
) -> list[Contender]:
    found = []
    if peers.installed("h5py"):
        h5 = peers.h5_statistics(inputs)
        found.append(Contender("h5py", lambda: chunked(peers.open_h5(h5, arrays)), **extra))
    if peers.installed("tensorstore"):
        store = inputs.store("statistics")
        opened = peers.open_tensorstore
        found.append(Contender("tensorstore", lambda: chunked(opened(store, arrays)), **extra))
    return found


def _stacked(dataset: Any) -> NDArray[Any]:
    return np.stack([dataset[name].values for name in EXTREMA])


def _gather(arrays: list[Any], key: tuple[Any, ...]) -> NDArray[Any]:
    """One selection of several arrays; tensorstore reads them at the same time."""
    if hasattr(arrays[0], "read_direct"):
        return np.stack([array[key] for array in arrays])
    reads = [array[key].read() for array in arrays]
    return np.stack([read.result() for read in reads])


def step_contenders(inputs: Inputs) -> list[Contender]:
    """Extrema of every linear at one step, copied into memory."""
    folder, labels = NpzFolder(inputs.source("statistics")), _Labels(inputs)
    steps = folder.steps

    def pick(call: int) -> int:
        return steps[call * 7 % len(steps)]

    def ours(mode: str) -> Run:
        store = _open(inputs, mode)
        groups = {site: store[site] for site in _sites(store)}
        return lambda call: {
            site: _stacked(group.sel(step=pick(call))) for site, group in groups.items()
        }

    sites = _sites(_open(inputs, MAPPED))
    arrays = [f"{site}/{name}" for site in sites for name in EXTREMA]

    def chunked(opened: list[Any]) -> Run:
        pairs = {site: opened[2 * i : 2 * i + 2] for i, site in enumerate(sites)}
        return lambda call: {
            site: _gather(pair, (steps.index(pick(call)),)) for site, pair in pairs.items()
        }

    return [
        Contender(MAPPED, lambda: ours(MAPPED), ours=True, canonical=labels.by_linear),
        Contender(LAZY, lambda: ours(LAZY), ours=True, canonical=labels.by_linear),
        Contender(NPZ, lambda: lambda call: folder.step(pick(call))),
        *_peer_contenders(inputs, arrays, chunked, canonical=labels.by_linear),
    ]


def absmax_contenders(inputs: Inputs) -> list[Contender]:
    """Largest magnitude of every linear at every step."""
    folder, labels = NpzFolder(inputs.source("statistics")), _Labels(inputs)
    canonical = labels.rollup_by_linear

    def rollup(mode: str) -> Run:
        store = _open(inputs, mode)
        return lambda call: {site: np.array(store[site][ROLLUP].values) for site in _sites(store)}

    def channels(mode: str) -> Run:
        store = _open(inputs, mode)
        return lambda call: {site: _reduced(store[site]) for site in _sites(store)}

    sites = _sites(_open(inputs, MAPPED))
    arrays = [f"{site}/{name}" for site in sites for name in EXTREMA]

    def chunked(opened: list[Any]) -> Run:
        pairs = {site: opened[2 * i : 2 * i + 2] for i, site in enumerate(sites)}
        return lambda call: {site: _absmax(*_whole(pair)) for site, pair in pairs.items()}

    def ours(name: str, make: Callable[[str], Run], mode: str) -> Contender:
        return Contender(f"{name}, {mode}", lambda: make(mode), ours=True, canonical=canonical)

    return [
        ours(ROLLUP, rollup, MAPPED),
        ours(ROLLUP, rollup, LAZY),
        ours("from channels", channels, MAPPED),
        ours("from channels", channels, LAZY),
        Contender(NPZ, lambda: lambda call: folder.absmax()),
        Contender(INDEXES, lambda: lambda call: folder.absmax_from_indexes()),
        *_peer_contenders(inputs, arrays, chunked, canonical=canonical),
    ]


def _reduced(dataset: Any) -> NDArray[Any]:
    low, high = (dataset[name] for name in EXTREMA)
    lowest, highest = low.min("channel", skipna=False), high.max("channel", skipna=False)
    return np.asarray(np.maximum(-lowest, highest).values)


def _absmax(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum(-low.min(axis=-1), high.max(axis=-1)))


def _whole(arrays: list[Any]) -> NDArray[Any]:
    return _gather(arrays, (slice(None),))


STATISTICS_READS = {
    "layer": Question("one layer, all steps", layer_contenders, _files, {NPZ: Target(50)}),
    "step": Question("one step, all layers", step_contenders, _files, {NPZ: Target(5)}),
    "absmax": Question(
        "absmax of everything",
        absmax_contenders,
        _files,
        {(f"{ROLLUP}, {mode}", NPZ): Target(50) for mode in (MAPPED, LAZY)},
        rounds=5,
    ),
}
