"""An AdaRound output as its files tell it: which linears there are, and what each npz holds.

Planning reads config.json, directories and headers of the npz files, and values only where a dtype
depends on them: steps in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import SourceError, TaqError
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import problem
from taqstore.kinds.quantized_linears import InputQuantizer, QuantizedLinear
from taqstore.names import PROJECTIONS, SITES, Block, LayerName, array_key, path_in_block

from .json_fields import field

CONFIG, FOLDER = "config.json", "weights"
# Member: kinds of dtype, and its shape by the sizes of a linear.
MEMBERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "weight_int": ("i", ("out", "in")),
    "scale": ("f", ("out", "group")),
    "a_scale": ("f", ("time_group",)),
    "alpha": ("f", ("out", "in")),
    "a_shift": ("f", ("time_group", "in")),
    "a_multiplier": ("f", ("in",)),
    "a_zero_point": ("i", ("time_group",)),
    "a_bits": ("i", ("time_group",)),
    "sigma_lower": ("f", ("time_group",)),
}
DTYPES = {"weight_int": "int8", "a_zero_point": "int32", "a_bits": "int8", "sigma_lower": "float32",
          "a_shift": "float32", "a_multiplier": "float32"}  # fmt: skip
_NEEDED = ("weight_int", "scale")


@dataclass(frozen=True)
class Layout:
    """What all linears of a site have in common in a store."""

    out: int
    inputs: int
    groups: int
    sigma_lower: tuple[float, ...]


@dataclass(frozen=True)
class Linear:
    """One linear of a file, by its headers.

    Parameters
    ----------
    members
        Names of its members by what they are, with dtypes.
    """

    name: LayerName
    layout: Layout
    members: Mapping[str, tuple[str, np.dtype]]

    def dtype(self, member: str) -> np.dtype | None:
        """Dtype of a member; None where the linear has none."""
        return self.members[member][1] if member in self.members else None


@dataclass(frozen=True)
class BlockFile:
    """The npz of one block.

    Parameters
    ----------
    bits
        Of inputs whose file does not say; None: the config does not either.
    unknown
        Members that are of no linear, or that no format has.
    """

    block: str
    file: NpzFile
    linears: tuple[Linear, ...]
    bits: int | None
    unknown: tuple[str, ...]

    def read(self, linear: Linear) -> QuantizedLinear:
        """A linear with its values, checked.

        Raises
        ------
        SourceError
            A value is none that a quantizer has, or a member is damaged.
        """
        values = {kind: self._read(linear, kind) for kind in linear.members}
        count = len(linear.layout.sigma_lower)
        step = values.get("a_scale", np.full(count, np.nan, np.float32))
        bits = values.get("a_bits", np.full(count, self.default_bits(linear), np.int8))
        quantizer = InputQuantizer(
            step,
            values.get("a_zero_point", np.zeros(count, np.int32)),
            bits,
            np.array(linear.layout.sigma_lower, np.float32),
            values.get("a_shift"),
            values.get("a_multiplier"),
        )
        return QuantizedLinear(
            linear.name, values["weight_int"], values["scale"], quantizer, values.get("alpha")
        )

    def default_bits(self, linear: Linear) -> int:
        """Bits of an input whose file does not say."""
        return (self.bits or 0) if "a_scale" in linear.members else 0

    def _read(self, linear: Linear, kind: str) -> np.ndarray:
        key, dtype = linear.members[kind]
        values = self.file.read(key, dtype=dtype, shape=shape_of(linear.layout, kind))
        bad = ~np.isfinite(values) if dtype.kind == "f" else np.zeros(1, bool)
        if kind == "a_scale":
            bad = np.isinf(values) | (values < 0)
        elif kind in ("scale", "a_multiplier"):
            bad = bad | (values <= 0)
        elif kind == "a_bits":
            bad = (values != 0) & ((values < 2) | (values > 16))
        if bad.any():
            found = str(values[bad][0]) if bad.shape == values.shape else ""
            what = "a value that no quantizer has"
            raise SourceError(problem(what, where=self.file.where(key), found=found))
        return values


def shape_of(layout: Layout, kind: str) -> tuple[int, ...]:
    """Shape of a member."""
    sizes = {"out": layout.out, "in": layout.inputs, "group": layout.groups}
    sizes["time_group"] = len(layout.sigma_lower)
    return tuple(sizes[dim] for dim in MEMBERS[kind][1])


def quant_paths(metrics: Mapping[str, Any], where: str) -> dict[str, LayerName]:
    """Linears of an entry of `block_metrics`, by path.

    Raises
    ------
    SourceError
        No such block or path, or one that is there twice.
    """
    name = field(metrics, "block_name", str, where=where)
    try:
        block = Block.parse(name)
    except TaqError as error:
        raise SourceError(problem("no block", where=where, found=repr(name)[:80])) from error
    known = {path_in_block(linear): linear for linear in _linears_of(block)}
    found: dict[str, LayerName] = {}
    for path in field(metrics, "quant_paths", list, where=where):
        twice = isinstance(path, str) and path in found
        if not isinstance(path, str) or path not in known or twice:
            what = "a path that is there twice" if twice else f"no path of {name}"
            remedy = f"write it like {next(iter(known))}"
            raise SourceError(problem(what, where=where, found=repr(path)[:80], remedy=remedy))
        found[path] = known[path]
    if not found:
        raise SourceError(problem("no quant_paths", where=where))
    _check_projections(found, where)
    return found


def _linears_of(block: Block) -> list[LayerName]:
    return [
        LayerName(block.name, layer.stream, site, projection)
        for layer in block.layers
        for site in SITES
        for projection in (PROJECTIONS if site == SITES[0] else ("",))
    ]


def _check_projections(found: Mapping[str, LayerName], where: str) -> None:
    """A store keeps q, k and v of a layer as one item."""
    by_layer: dict[str, list[str]] = {}
    for path, name in found.items():
        if name.projection:
            by_layer.setdefault(name.layer, []).append(path)
    for layer, paths in by_layer.items():
        if len(paths) < len(PROJECTIONS):
            what = f"q, k and v of {layer} must all be there, or none"
            raise SourceError(problem(what, where=where, found=", ".join(paths)))


def open_block(
    folder: Path, block: str, paths: Mapping[str, LayerName], config: Mapping[str, Any]
) -> BlockFile:
    """A block's npz, headers checked against each other.

    Raises
    ------
    SourceError
        It cannot be read, members are missing, or do not fit each other.
    """
    file = NpzFile(folder / FOLDER / f"{block}.npz")
    shared = _sigma_lower(config, str(folder / CONFIG))
    linears, used = [], set()
    for path, name in paths.items():
        linear = _linear(file, path, name, shared)
        used |= {key for key, _ in linear.members.values()}
        linears.append(linear)
    bits = config.get("bits_a")
    bits = field(config, "bits_a", int, where=str(folder / CONFIG)) if bits is not None else None
    unsaid = [x for x in linears if "a_scale" in x.members and "a_bits" not in x.members]
    if unsaid and (bits is None or not (bits == 0 or 2 <= bits <= 16)):
        what, where = f"bits_a of {unsaid[0].name.full} is no width", str(folder / CONFIG)
        raise SourceError(problem(what, where=where, found=repr(bits)))
    unknown = tuple(key for key in file.names if key not in used)
    return BlockFile(block, file, tuple(linears), bits, unknown)


def _linear(file: NpzFile, path: str, name: LayerName, shared: tuple[float, ...] | None) -> Linear:
    stem = array_key(path)
    members = {}
    for kind, (kinds, dims) in MEMBERS.items():
        key = f"{stem}__{kind}"
        if key not in file and kind not in _NEEDED:
            continue
        header = file.header(key)
        wanted = np.dtype(DTYPES.get(kind, header.dtype))
        if kind == "alpha" and wanted.itemsize > 4:
            wanted = np.dtype(np.float32)
        # Another dtype is cast where that is exact, which is seen as it is read.
        good = header.dtype.kind in (kinds if kind not in DTYPES else "iuf")
        if not good or len(header.shape) != len(dims) or 0 in header.shape:
            found = f"{header.dtype.name} {header.shape}"
            what = f"not {DTYPES.get(kind, 'floats')} of {len(dims)} dims"
            raise SourceError(problem(what, where=file.where(key), found=found))
        members[kind] = key, wanted
    layout = _layout(file, members, shared)
    for kind, (key, _) in members.items():
        if file.header(key).shape != shape_of(layout, kind):
            what = f"does not fit the weight's {(layout.out, layout.inputs)}"
            found = str(file.header(key).shape)
            raise SourceError(problem(what, where=file.where(key), found=found))
    return Linear(name, layout, members)


def _layout(
    file: NpzFile,
    members: Mapping[str, tuple[str, np.dtype]],
    shared: tuple[float, ...] | None,
) -> Layout:
    out, inputs = file.header(members["weight_int"][0]).shape
    key = members["scale"][0]
    groups = file.header(key).shape[1]
    if inputs % groups:
        what = f"{groups} groups do not divide {inputs} inputs"
        raise SourceError(problem(what, where=file.where(key)))
    lower = shared or (0.0,)
    if "sigma_lower" in members:
        lower = check_lower(file.read(members["sigma_lower"][0]).tolist(),
                            file.where(members["sigma_lower"][0]))  # fmt: skip
    return Layout(out, inputs, groups, lower)


def _sigma_lower(config: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    if "sigma_lower" not in config:
        return None
    values = field(config, "sigma_lower", list, where=where)
    numbers = {str(i): value for i, value in enumerate(values)}
    found = [field(numbers, i, float, where=f"{where}: sigma_lower") for i in numbers]
    return check_lower(found, f"{where}: sigma_lower")


def check_lower(values: Sequence[float], where: str) -> tuple[float, ...]:
    """Noise levels of groups of steps.

    Raises
    ------
    SourceError
        They do not descend to 0.
    """
    narrow = np.array(values, np.float32)
    if (
        not narrow.size
        or not np.isfinite(narrow).all()
        or (np.diff(narrow) >= 0).any()
        or (narrow[-1] > 0)
    ):
        found = str(list(values))[:80]
        raise SourceError(problem("sigma_lower does not descend to 0", where=where, found=found))
    return tuple(float(value) for value in narrow)
