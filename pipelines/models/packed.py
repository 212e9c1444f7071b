"""A folder of `taqstore export mlx` as the model it holds, its linears packed.

MLX's own `nn.quantize` puts packed linears in place and loads them. A parameter that the folder
lacks would stay random, so that what is there must be the model's parameters, each and no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from taqstore.errors import SourceError, TaqError, problem
from taqstore.export.packed.mlx import CONFIG, CONTENT, TENSORS
from taqstore.files.refusal import what_it_is

from .backend import backend
from .limits import config_of
from .table import ModelRow

# An `mlx.core.array`; MLX is not imported for a type.
Tensor = Any
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Packed:
    """A folder with a packed model.

    Parameters
    ----------
    folder
        Holds `config.json` and `model.safetensors`.
    linears
        Bits and group size of packed linears, by where they are in the model.
    """

    folder: Path
    linears: Mapping[str, Mapping[str, int]]

    @property
    def tensors(self) -> Path:
        """The file of its parameters."""
        return self.folder / TENSORS


def read_packed(folder: Path, row: ModelRow) -> Packed:
    """What a folder says of itself.

    Raises
    ------
    SourceError
        It is no such folder, damaged, or of another model.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / TENSORS).is_file():
        what, found = "not a folder of packed weights", what_it_is(folder)
        remedy = "taqstore export mlx makes one"
        raise SourceError(problem(what, where=str(folder), found=found, remedy=remedy))
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        config = json.loads(path.read_bytes())
        linears = {
            str(name): {key: int(settings[key]) for key in ("group_size", "bits")}
            for name, settings in config["quantization"].items()
            if isinstance(settings, dict)
        }
        content, model = config.get("content"), str(config.get("model", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = "the config says nothing that is understood"
        raise SourceError(problem(what, where=str(path), found=str(error))) from error
    if content != CONTENT or model != row.name:
        what = f"packed weights of {model or 'no model that is named'}, not of {row.name}"
        raise SourceError(problem(what, where=str(folder), remedy="name it with --model"))
    return Packed(folder, linears)


def load_packed(packed: Packed, row: ModelRow, dtype: Tensor) -> Any:
    """DiffusionKit's MMDiT with packed linears; floats, scales among them, in `dtype`.

    Raises
    ------
    SourceError
        A tensor is missing, of another shape or dtype, or is none of the model.
    """
    libraries = backend()
    nn = import_module("mlx.nn")
    config = config_of(row)
    config.low_memory_mode = False
    mmdit = libraries.model_io.MMDiT(config)
    places = dict(mmdit.named_modules())
    absent = [path for path in packed.linears if not isinstance(places.get(path), nn.Linear)]
    if absent:
        what = f"{row.name} has no linear {absent[0]}"
        raise SourceError(problem(what, where=str(packed.folder / CONFIG)))
    try:
        nn.quantize(
            mmdit, class_predicate=lambda path, _: dict(packed.linears.get(path, ())) or False
        )
        found = dict(libraries.mx.load(str(packed.tensors)))
        _check(mmdit, found)
        mmdit.load_weights([(name, _cast(value, dtype)) for name, value in found.items()])
    except TaqError:
        raise
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        what = f"these packed weights are not those of {row.name}"
        raise SourceError(problem(what, where=str(packed.tensors), found=said)) from error
    return mmdit


def _check(mmdit: Any, found: Mapping[str, Tensor]) -> None:
    """Refuse integers where floats are wanted, and the other way; MLX would compute with them."""
    libraries = backend()
    for name, own in libraries.utils.tree_flatten(mmdit.parameters()):
        if name in found and (found[name].dtype == libraries.mx.uint32) != (
            own.dtype == libraries.mx.uint32
        ):
            raise ValueError(f"{name} is {found[name].dtype}")


def _cast(value: Tensor, dtype: Tensor) -> Tensor:
    return value if value.dtype == backend().mx.uint32 else value.astype(dtype)
