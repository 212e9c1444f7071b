"""What can be ingested: one row per word of `taqstore ingest --only`.

Light to import: a source's module is loaded when a path is looked at. It has two functions,
``find(place) -> Path | None``, the path to plan if this source is there, and
``plan(path, options) -> Plan``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .parts.place import Place
    from .parts.plan import Options, Plan


@dataclass(frozen=True)
class SourceRow:
    """One source.

    Parameters
    ----------
    word
        What `--only` calls it.
    doc
        What it is, one line.
    fills
        Groups it fills.
    module
        Where `find` and `plan` are; by default the module of this package called like the word.
    inside
        Folder of data within the source: a path that ends in it means the folder above.
    nested
        Whether it is looked for in direct subfolders of a run too.
    takes
        Pattern of the paths of files within its folder that it reads, or tells of itself; what
        else lies in a run folder is named as left. Empty: it is a file.
    """

    word: str
    doc: str
    fills: tuple[str, ...]
    module: str = ""
    inside: str = ""
    nested: bool = True
    takes: str = ""

    @property
    def find(self) -> Callable[[Place], Path | None]:
        """Where to plan from, if a folder or file is this source."""
        found: Callable[[Place], Path | None] = self._module.find
        return found

    @property
    def plan(self) -> Callable[[Path, Options], Plan]:
        """Makes the plan of what `find` found."""
        found: Callable[[Path, Options], Plan] = self._module.plan
        return found

    @property
    def _module(self) -> Any:
        return import_module(self.module or f".{self.word}", __package__)


# In the order in which the parts of a run are ingested.
SOURCES: dict[str, SourceRow] = {
    row.word: row
    for row in (
        SourceRow(
            "latents",
            "a calibration_data folder: samples with manifest.json, pictures",
            ("latents", "pictures"),
            inside="samples",
            # Samples in a subfolder are the cache's.
            nested=False,
            takes=r"manifest\.json|samples/[^/]+|images/\d{4,9}\.png|latents/\d{4,9}\.npy",
        ),
        SourceRow(
            "blocks",
            "an adaround_cache folder: metadata.json, samples, pooled",
            ("blocks/<stream>", "blocks/pooled"),
            inside="samples",
            takes=r"metadata\.json|samples/[^/]+|pooled/\d{4,9}\.npz",
        ),
        SourceRow(
            "activations",
            "an activations folder: layer_statistics.json, timestep_stats",
            ("pooled/timestep_stats/<site>", "pooled/activation_stats_v1/<site>"),
            inside="timestep_stats",
            takes=r"layer_statistics\.json|timestep_stats/step_\d+(\.npz|_index\.json)",
        ),
        SourceRow("samples", "DiT_cali_data.npz of Phase 1", ("samples",)),
        SourceRow(
            "postgelu", "activation_stats_postgelu.npz of Phase 2", ("pooled/postgelu/<site>",)
        ),
        SourceRow(
            "schedule",
            "a poly_v1, poly_v2 or lut_v1 schedule (JSON)",
            ("pooled/lut_schedule/<site>", "pooled/poly_schedule/<site>"),
        ),
        SourceRow(
            "results",
            "a quant config, an HTG config or its groups, smoothquant_scales (JSON)",
            (
                "pooled/quant_config/<site>",
                "pooled/htg_config/<site>",
                "pooled/htg_groups/<site>",
                "pooled/smoothquant_scales/<site>",
            ),
        ),
        SourceRow(
            "weights",
            "an AdaRound output: config.json, weights",
            ("weights/<set>/<site>", "reconstruction"),
            inside="weights",
            takes=r"config\.json|weights/[^/]+\.npz",
        ),
    )
}
