"""DiffusionKit's pipelines and loaders made to serve a row of the table.

What a row says stands for a while where DiffusionKit looks for it: its tables of checkpoints and
configs, and two module globals.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from inspect import signature
from pathlib import Path
from typing import Any

from taqstore.errors import SourceError, TaqError, problem
from taqstore.files.safetensors import read_safetensors

from .backend import Backend
from .packed import Packed, load_packed
from .table import DIFFUSIONKIT, ModelRow, resolve

SD3_PREFIX = "model.diffusion_model."
_FETCHING: ContextVar[bool] = ContextVar("fetching", default=True)
_TEXT_PARTS = ("clip_l", "clip_g", "tokenizer_l", "tokenizer_g", "t5_encoder", "t5_tokenizer")


def pipeline_class(
    libraries: Backend, row: ModelRow, checkpoint: Path | None, packed: Packed | None = None
) -> type:
    """DiffusionKit's class without a VAE, and without its text encoders where the row has one.

    With `packed`, the denoiser is of that folder.
    """
    base: Any = getattr(libraries.pipelines, row.pipeline)

    def load_mmdit(self: Any, only_modulation_dict: bool = False) -> Any:
        if packed is not None:
            self.mmdit = load_packed(packed, row, self.dtype)
            return None
        with known(libraries, row, checkpoint, self.float16_dtype, prefix=prefix_of(row)):
            return base.load_mmdit(self, only_modulation_dict)

    members: dict[str, Any] = {"decoder": None, "encoder": None, "load_mmdit": load_mmdit}
    if row.text != DIFFUSIONKIT:
        members |= dict.fromkeys(_TEXT_PARTS)
        members["encode_text"] = _as_method(resolve(row.text))
    return type(base.__name__, (base,), members)


def _as_method(encode: Callable[..., Any]) -> Callable[..., Any]:
    def encode_text(self: Any, text: str, cfg_weight: float = 7.5, negative_text: str = "") -> Any:
        return encode(text, cfg_weight, negative_text)

    return encode_text


@contextmanager
def known(
    libraries: Backend,
    row: ModelRow,
    checkpoint: Path | None,
    half: Any,
    *,
    prefix: str = "",
    part: str = "",
) -> Iterator[dict[str, Path]]:
    """Let DiffusionKit's tables and globals say this row until the block ends.

    A checkpoint stands for the file of the denoiser, and for that of another `part` (`vae`) only
    where the hub has both in one.

    Yields the files that it fetched from the hub, by name. What it keeps in module globals
    (checkpoint, half type) would otherwise be those of whichever model was loaded last. With a
    `prefix`, only tensors under it are taken from a file that has any: a checkpoint may hold text
    encoders and a VAE as well, of dtypes that MLX does not know.
    """
    io, files = libraries.model_io, dict[str, Path]()
    fetch = io.hf_hub_download
    if part and not _in_one_file(io, row, part):
        checkpoint = None

    def download(repo: str, name: str, *arguments: Any, **options: Any) -> str:
        if checkpoint is not None and repo == row.hub:
            return str(checkpoint)  # its config.json is asked for too, and never read
        files[name] = Path(_fetched(fetch, repo, name, *arguments, **options))
        return str(files[name])

    with ExitStack() as stack:
        for module, name, value in (
            (io, "hf_hub_download", download),
            (io, "mx", _Loading(libraries.mx, prefix)),
            (io, "LOCAl_SD3_CKPT", None if checkpoint is None else str(checkpoint)),
            (io, "_FLOAT16", half),
            (io, "MMDiT", _lenient(io.MMDiT)),
            (io, "_MMDIT", {row.hub: {row.hub: "", "vae": ""}} | io._MMDIT),
            (
                libraries.pipelines,
                "MMDIT_CKPT",
                {row.hub: row.hub} | libraries.pipelines.MMDIT_CKPT,
            ),
            *_configs(io, row),
        ):
            stack.enter_context(_replaced(module, name, value))
        yield files


def prefix_of(row: ModelRow) -> str:
    """What names of the model's own tensors begin with in its checkpoint; empty: any are its."""
    return SD3_PREFIX if row.pipeline == ModelRow.pipeline else ""


class _Loading:
    """`mlx.core` with a `load` that judges the tensors that are needed, and no others."""

    def __init__(self, mx: Any, prefix: str) -> None:
        self._mx, self._prefix = mx, prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mx, name)

    def load(self, path: Any, *arguments: Any, **options: Any) -> Any:
        """Tensors of a file by name; under the prefix alone, where there are any.

        Raises
        ------
        SourceError
            One of these is not of floats.
        """
        try:
            found = self._mx.load(path, *arguments, **options)
        except RuntimeError as error:
            if "unsupported dtype" not in str(error):
                raise
            found = {
                n: self._mx.array(x) for n, x in read_safetensors(Path(path), wanted=self._own)
            }
        own = {name: values for name, values in found.items() if self._own(name)}
        if not self._prefix or not own:
            return found
        for name, values in own.items():
            if not self._mx.issubdtype(values.dtype, self._mx.floating):
                kind = str(values.dtype).rpartition(".")[2]
                what, remedy = f"{name} is no float weight", "save it as F32, F16 or BF16"
                raise SourceError(problem(what, where=str(path), found=kind, remedy=remedy))
        return own

    def _own(self, name: str) -> bool:
        return name.startswith(self._prefix)


def _in_one_file(io: Any, row: ModelRow, part: str) -> bool:
    names = io._MMDIT.get(row.hub, {})
    return not names or names[part] == names[row.hub]


def _configs(io: Any, row: ModelRow) -> list[tuple[Any, str, Any]]:
    """The row's config where DiffusionKit's loaders look for it; copies, for they write to it."""
    own = resolve(row.config)() if row.config else None
    flux = copy.copy(own or io.FLUX_SCHNELL)
    table = {name: copy.copy(config) for name, config in io._CONFIG.items()}
    return [
        (io, "FLUX_SCHNELL", flux),
        (io, "_CONFIG", table | ({row.hub: copy.copy(own)} if own else {})),
    ]


def _lenient(mmdit: Any) -> type:
    """The class with an `update` that passes over keys it has no place for.

    DiffusionKit loads FLUX by `update`, with biases of `k_proj` that its module does not have. The
    MLX it was written for passed over these; later ones refuse unless told not to.
    """
    if "strict" not in signature(mmdit.update).parameters:
        return type(mmdit.__name__, (mmdit,), {})

    def update(self: Any, parameters: Any, strict: bool = False) -> Any:
        return mmdit.update(self, parameters, strict=strict)

    return type(mmdit.__name__, (mmdit,), {"update": update})


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def fetching(allowed: bool) -> Iterator[None]:
    """Let files of models be fetched from the hub or not until the block ends.

    What may not be fetched outside may not be inside: a dry run takes what is there.
    """
    token = _FETCHING.set(allowed and _FETCHING.get())
    try:
        yield
    finally:
        _FETCHING.reset(token)


def _fetched(fetch: Callable[..., Any], repo: str, name: str, *more: Any, **options: Any) -> str:
    """Path of a file of the hub, by `hf_hub_download`.

    Raises
    ------
    TaqError
        It would have to be fetched, and may not be.
    """
    if _FETCHING.get():
        return str(fetch(repo, name, *more, **options))
    try:
        return str(fetch(repo, name, *more, **{**options, "local_files_only": True}))
    except (FileNotFoundError, ValueError) as error:
        what = f"{name} is not on this machine, and a dry run fetches nothing"
        remedy = "fetch it (without --dry-run it is), or name a file with --local-ckpt"
        raise TaqError(problem(what, where=repo, remedy=remedy)) from error
