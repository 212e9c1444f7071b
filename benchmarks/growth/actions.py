"""What is done with an input of some size, once: the names of the curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .inputs import AXES, Size

Run = Callable[[], object]


@dataclass(frozen=True)
class Action:
    """One thing that users do.

    Parameters
    ----------
    kind
        Of its input, a key of `inputs.MAKERS`.
    ready
        Given a copy of the input and a new folder, what is measured.
    writes, changes
        It writes, so that it runs once in a measurement; and into its input, which is a copy.
    most
        Sizes along each axis end here, where an action takes long.
    """

    kind: str
    ready: Callable[[Path, Path, Size], Run]
    writes: bool = False
    changes: bool = False
    most: int = 1000

    def counts(self, axis: str) -> tuple[int, ...]:
        """How many there are of what grows, point by point."""
        return tuple(count for count in AXES[axis] if count <= self.most)


def _open(path: Path, folder: Path, size: Size) -> Run:
    from taqstore import open_store

    def run() -> object:
        store = open_store(path)
        return [store[group].sizes for group in store]

    return run


def _layer(path: Path, folder: Path, size: Size) -> Run:
    from taqstore import open_store

    return lambda: open_store(path).layer("mm0.img.mlp.fc2").compute()


def _info(path: Path, folder: Path, size: Size) -> Run:
    from taqstore import open_store
    from taqstore.upkeep import describe_store

    return lambda: describe_store(open_store(path))


def _analysis(name: str, path: Path, folder: Path, size: Size, **options: Any) -> Run:
    from taqstore import open_store
    from taqstore.query.analyze import analyze, site_tables

    return lambda: site_tables(analyze(name, open_store(path), **options))


def _percentile(path: Path, folder: Path, size: Size) -> Run:
    return _analysis("scales", path, folder, size, clip="percentile", percentile=99.9)


def _report(path: Path, folder: Path, size: Size) -> Run:
    from taqstore import open_store
    from taqstore.report import build

    return lambda: build(open_store(path))


def _ingest(path: Path, folder: Path, size: Size) -> Run:
    from taqstore.pipelines.ingest import ingest

    return lambda: ingest([path], folder / "made.zarr", strict=True)


def _collect(path: Path, folder: Path, size: Size) -> Run:
    from taqstore.pipelines.collect.collect import collect

    from .models import checkpoint_of, registered

    registered(size.blocks)
    weights = checkpoint_of(path, size.blocks)
    return lambda: collect(path, stride=1, local_ckpt=weights)


def _gate(path: Path, folder: Path, size: Size) -> Run:
    from taqstore.pipelines.evaluate.variants import Variant
    from taqstore.pipelines.gate.gate import gate

    from .models import checkpoint_of, registered

    registered(size.blocks)
    weights = checkpoint_of(path, size.blocks)
    variant = Variant.parse("rtn")
    return lambda: gate(path, variants=[variant], count=size.images, local_ckpt=weights)


_ANALYSES = ("scales", "error", "bits", "groups", "outliers", "temporal")
ACTIONS: dict[str, Action] = {
    "open": Action("observed", _open),
    "info": Action("observed", _info),
    "layer": Action("observed", _layer),
    **{name: Action("observed", partial(_analysis, name)) for name in _ANALYSES},
    "percentile": Action("observed", _percentile),
    "report": Action("observed", _report),
    "ingest": Action("sources", _ingest, writes=True),
    "collect": Action("runs", _collect, writes=True, changes=True),
    "gate": Action("runs", _gate, writes=True, changes=True),
}
"""By name; on the command line ``growth-<name>``."""
