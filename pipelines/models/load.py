"""A model of the table, loaded by DiffusionKit's own constructor and made safe to run twice."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.files.refusal import what_it_is

from ..machine.blas import is_alone, load_blas, share_products
from ..tasks.kept import kept
from .adapter import known, pipeline_class, prefix_of
from .backend import backend
from .failures import inside_model
from .inputs import Input, inputs_of
from .layers import ModelBlock, blocks, modulated
from .limits import Use, check_use, seen_in_part, short
from .modulation import modulated_by, modulation, rows_of
from .packed import read_packed
from .seam import Conditioning as Conditioning
from .seam import Prompt as Prompt
from .seam import Tensor as Tensor
from .table import DIFFUSIONKIT, ModelRow, find_model, resolve

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline of DiffusionKit's ready to run prompts, a `seam.Model`; see `load_pipeline`.

    Parameters
    ----------
    row
        What was loaded, with the dtype, shift and T5 that were asked for.
    pipeline
        DiffusionKit's pipeline.
    checkpoint
        The weights file where it is not DiffusionKit's to find; None: from the hub.
    digest
        SHA-256 of the weights file.
    """

    row: ModelRow
    pipeline: Any
    checkpoint: Path | None
    digest: str

    @property
    def mmdit(self) -> Any:
        """DiffusionKit's MMDiT."""
        return self.pipeline.mmdit

    @property
    def module(self) -> Any:
        """The same: its call is a forward."""
        return self.mmdit

    @property
    def activation_dtype(self) -> Any:
        """MLX's dtype of activations, and of timesteps."""
        return self.pipeline.activation_dtype

    def blocks(self) -> list[ModelBlock]:
        """Its blocks in the order they run."""
        return blocks(self.mmdit)

    def inputs(self) -> tuple[Input, ...]:
        """Every distinct tensor that a linear reads, in store order; see `Input`."""
        return inputs_of(self.mmdit)

    def seen_by(self, one: Input, x: Tensor) -> Tensor:
        """The tensor of an input as its first reader was called with it, ``(..., channel)``.

        What is narrower than activations (an embedding of the timestep) is widened to their dtype,
        in which it is multiplied.
        """
        found = one.readers[0].read(x)
        dtype = self.activation_dtype
        return found if found.dtype == dtype else found.astype(dtype)

    @property
    def sampler(self) -> Any:
        """DiffusionKit's sampler: sigmas and timesteps."""
        return self.pipeline.sampler

    @property
    def dtype(self) -> str:
        """Name of the activation dtype: `float16`, `bfloat16` or `float32`."""
        return str(self.pipeline.activation_dtype).rpartition(".")[2]

    @property
    def rows(self) -> int:
        """Rows of a forward: 2 with guidance, else 1."""
        return 2 if self.row.guidance else 1

    @property
    def keeps_nothing(self) -> bool:
        """Whether no forward leaves anything for the next: FLUX keeps rotary embeddings."""
        return self.row.pipeline == ModelRow.pipeline

    def is_small(self, latent: Tensor) -> bool:
        """Whether products of a forward on such a latent are made by one thread."""
        return is_alone(_usual_product(self, tuple(latent.shape[1:3])))

    def encode_text(self, prompt: str, *, cfg_weight: float, negative: str = "") -> Conditioning:
        """Encode a prompt; cast to the activation dtype, without which every stream is float32.

        Raises
        ------
        TaqError
            The model needs a positive guidance weight, or knows no guidance and was given one.
        """
        if (cfg_weight > 0) != self.row.guidance:
            rule = "above 0" if self.row.guidance else "0"
            what = f"the guidance weight of {self.row.name} must be {rule}"
            raise TaqError(problem(what, found=str(cfg_weight), remedy="set --cfg"))
        dtype = self.pipeline.activation_dtype
        with inside_model(f"prompt {short(prompt)!r}"):
            tokens, pooled = self.pipeline.encode_text(prompt, cfg_weight, negative)
            tokens, pooled = tokens.astype(dtype), pooled.astype(dtype)
            backend().mx.eval(tokens, pooled)
        return Conditioning(tokens, pooled, cfg_weight)

    def prepare(self, conditioning: Conditioning, timesteps: Tensor) -> Prompt:
        """Get a prompt ready to be run at these timesteps ``(step,)``.

        DiffusionKit's models need nothing of the kind: adaLN parameters are computed in every
        forward (`modulation`).
        """
        return Prompt(conditioning)

    def denoise(self, x: Tensor, timestep: Tensor, sigma: Tensor, prompt: Prompt) -> Tensor:
        """One forward by DiffusionKit's `CFGDenoiser`: the denoised latent, not yet evaluated.

        Parameters
        ----------
        x
            float32 ``(1, height, width, 16)``.
        timestep, sigma
            Scalars; the timestep in the activation dtype.
        """
        conditioning = prompt.conditioning
        run, modules = backend().pipelines.CFGDenoiser(self.pipeline), modulated(self.mmdit)
        with inside_model(mmdit=self.mmdit):
            times = rows_of(timestep, len(conditioning.pooled))
            values = modulation(self.mmdit, modules, conditioning.pooled, times)
            with modulated_by(modules, values, timestep):
                return run(
                    x,
                    timestep,
                    sigma,
                    conditioning=conditioning.tokens,
                    cfg_weight=conditioning.cfg_weight,
                )

    def levels(self, steps: int) -> tuple[Tensor, Tensor]:
        """Sigmas and timesteps ``(step + 1,)`` that DiffusionKit samples `steps` steps with."""
        sigmas = self.pipeline.get_sigmas(self.sampler, steps)
        return sigmas, self.sampler.timestep(sigmas).astype(self.activation_dtype)

    def noise(self, sigmas: Tensor, *, seed: int, latent_size: tuple[int, int]) -> Tensor:
        """Noise to begin with, float32 ``(1, height, width, 16)``; NumPy's global state is kept."""
        pipeline = self.pipeline
        empty = pipeline.get_empty_latent(*latent_size)
        state: Any = np.random.get_state()
        try:
            noise = pipeline.get_noise(seed, empty)
        finally:
            np.random.set_state(state)
        full = pipeline.max_denoise(sigmas)
        return self.sampler.noise_scaling(sigmas[0], noise, empty, full)

    def advance(self, x: Tensor, denoised: Tensor, sigma: Tensor, lower: Tensor) -> Tensor:
        """The latent at the next sigma, in the order of operations of `sample_euler`."""
        slope = (x - denoised) / sigma[..., None, None, None, None]
        return x + slope * (lower - sigma)

    def to_store(self, x: Tensor) -> np.ndarray:
        """An evaluated latent as stores keep it, float32 ``(height, width, channel)``, exactly."""
        return np.asarray(to_numpy(x)[0])

    def to_model(self, latent: np.ndarray) -> Tensor:
        """A latent of a store as the model takes it, ``(1, height, width, channel)``."""
        return backend().mx.array(np.ascontiguousarray(latent)[None])

    def picture(self, latent: Tensor) -> Any:
        """A latent ``(1, height, width, 16)`` as a uint8 picture ``(height, width[, 3])``.

        Raises
        ------
        TaqError
            The model's VAE cannot be had.
        """
        if self.row.decoder != DIFFUSIONKIT:
            return resolve(self.row.decoder)(self.to_store(latent))
        pipeline, mx = self.pipeline, backend().mx
        if pipeline.decoder is None:
            pipeline.decoder = self._vae_decoder()
        with inside_model("decoding the picture"):
            raw = pipeline.latent_format.process_out(latent).astype(pipeline.activation_dtype)
            image = pipeline.decode_latents_to_image(raw)
            return to_numpy((image[0] * 255).astype(mx.uint8))

    def check_prompts(self, prompts: Iterable[str]) -> list[str]:
        """Notes on prompts of which the model sees the beginning only.

        Raises
        ------
        ModelError
            A prompt cannot be encoded.
        """
        notes = []
        for prompt in dict.fromkeys(prompts):
            with inside_model(f"prompt {short(prompt)!r}"):
                seen = seen_in_part(self.row, self.pipeline, prompt)
            if seen:
                notes.append(f"prompt {short(prompt)!r}: {self.row.name} sees {seen}")
        return notes

    def _vae_decoder(self) -> Any:
        pipeline, libraries = self.pipeline, backend()
        half = pipeline.dtype == pipeline.float16_dtype
        try:
            with known(
                libraries, self.row, self.checkpoint, pipeline.float16_dtype, part="vae"
            ) as fetched:
                return libraries.model_io.load_vae_decoder(float16=half, key=pipeline.mmdit_ckpt)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            found = str(error).strip().splitlines() or [type(error).__name__]
            where = str(next(iter(fetched.values()), self.checkpoint or self.row.hub))
            what = f"the VAE of {self.row.name} does not load"
            remedy = "pictures need a file with it; everything else does without"
            raise TaqError(problem(what, where=where, found=found[0], remedy=remedy)) from error


def load_pipeline(
    model: str | ModelRow,
    *,
    local_ckpt: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    shift: float | None = None,
    use_t5: bool | None = None,
) -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    model
        Name in the table, or a row.
    local_ckpt
        Weights to load in place of those of the hub or the package, in the same layout; or a folder
        of `taqstore export mlx`, whose linears stay packed. What such a folder does not have, text
        encoders and a VAE, is the hub's.
    dtype, shift, use_t5
        In place of the row's.

    Raises
    ------
    TaqError
        MLX or DiffusionKit is missing, there is no such model, or its files are missing or do not
        fit it.
    """
    known_row = find_model(model) if isinstance(model, str) else model
    check_use(known_row, Use(dtype=dtype, shift=shift))
    row = _asked(known_row, dtype, shift, use_t5)
    checkpoint = _checkpoint(row, local_ckpt)
    state = None if checkpoint is None or not checkpoint.exists() else checkpoint.stat()
    told = state and (state.st_size, state.st_mtime_ns)
    loaded = kept((repr(row), checkpoint, told), lambda: _loaded(row, checkpoint))
    share_products(_usual_product(loaded, row.latent_size))
    return loaded


def _usual_product(model: LoadedModel, latent_size: tuple[int, int]) -> int:
    """Multiplications of a large linear of a block, for an image of this size."""
    height, width = latent_size
    rows, hidden = 2 * (height // 2) * (width // 2), model.mmdit.config.hidden_size
    return rows * 4 * int(hidden) ** 2


def _loaded(row: ModelRow, checkpoint: Path | None) -> LoadedModel:
    libraries = backend()
    packed = None
    if checkpoint is not None and checkpoint.is_dir():
        packed, checkpoint = read_packed(checkpoint, row), None
    try:
        half, prefix = libraries.mx.float16, prefix_of(row)
        with known(libraries, row, checkpoint, half, prefix=prefix) as fetched:
            pipeline = pipeline_class(libraries, row, checkpoint, packed)(
                w16=row.dtype == "float16",
                a16=row.dtype == "float16",
                shift=row.shift,
                use_t5=row.use_t5,
                model_version=row.hub,
                low_memory_mode=False,
                local_ckpt=None if checkpoint is None else str(checkpoint),
            )
        libraries.mx.eval(pipeline.mmdit.parameters())
    except TaqError:
        raise
    except Exception as error:
        raise _unloadable(row, checkpoint, error) from error
    own = checkpoint if packed is None else packed.tensors
    weights = own or fetched[libraries.model_io._MMDIT[row.hub][row.hub]]
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    device, multiplies = libraries.mx.default_device(), load_blas().name
    _log.debug("loaded %s from %s, on %s, BLAS %s", row.name, weights, device, multiplies)
    return LoadedModel(row, pipeline, checkpoint, digest)


def to_numpy(x: Tensor) -> Any:
    """An evaluated tensor as an array that shares its memory; bfloat16 is widened to float32."""
    if isinstance(x, np.ndarray):
        return x
    mx = backend().mx
    return np.asarray(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x)


def _asked(row: ModelRow, dtype: str | None, shift: float | None, use_t5: bool | None) -> ModelRow:
    changed = copy.copy(row.__dict__)
    asked = {"dtype": dtype, "shift": shift, "use_t5": use_t5}
    return ModelRow(**changed | {name: v for name, v in asked.items() if v is not None})


def _checkpoint(row: ModelRow, local_ckpt: str | os.PathLike[str] | None) -> Path | None:
    if local_ckpt is None and not row.checkpoint:
        return None
    path = Path(local_ckpt if local_ckpt is not None else resolve(row.checkpoint)())
    if not path.exists():
        raise TaqError(problem("no such checkpoint", where=str(path)))
    return path


def _unloadable(row: ModelRow, checkpoint: Path | None, error: Exception) -> TaqError:
    said = " ".join(str(error).split()) or type(error).__name__
    kind = "" if checkpoint is None else what_it_is(checkpoint).removeprefix("safetensors")
    said = f"{kind}: {said}" if kind else said
    where = str(checkpoint or row.hub)
    remedy = "check the checkpoint's layout, or that the hub can be reached (HF_HOME, HF_TOKEN)"
    return TaqError(problem(f"{row.name} does not load", where=where, found=said, remedy=remedy))
