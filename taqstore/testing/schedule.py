"""Make clipping schedules: the LUT of clip bounds and the polynomials fitted to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.testing.files import save_json
from taqstore.testing.model import RunShape, get_sigmas, raw_activations


def make_lut_schedule(path: Path | str, *, shape: RunShape | None = None, seed: int = 0) -> Path:
    """Write a `lut_v1` JSON: the absmax of every linear input at every step of image 0."""
    sigmas, alphas = clip_bounds(shape or RunShape(), seed=seed)
    document = {
        "version": "lut_v1",
        **_header(sigmas),
        "sigmas": sigmas.tolist(),
        "layers": {name: {"alphas": alpha.tolist()} for name, alpha in alphas.items()},
    }
    return save_json(Path(path), document)


def make_poly_schedule(path: Path | str, *, shape: RunShape | None = None, seed: int = 0) -> Path:
    """Write the `poly_v1` JSON fitted to what `make_lut_schedule` writes from the same input."""
    sigmas, alphas = clip_bounds(shape or RunShape(), seed=seed)
    document = {
        "version": "poly_v1",
        **_header(sigmas),
        "layers": {name: fit(sigmas, alphas[name]) for name in sorted(alphas)},
    }
    return save_json(Path(path), document)


def _header(sigmas: NDArray[np.float64]) -> dict[str, Any]:
    return {"percentile": "p100_absmax", "sigma_range": [sigmas.min(), sigmas.max()]}


def clip_bounds(
    shape: RunShape, *, seed: int = 0
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Sigmas (steps,) rounded to float16, descending, and each linear's clip bounds (steps,).

    Layers are named with underscores but in the order of their dotted names (`mm1.` before
    `mm10.`), as a LUT has them; a polynomial schedule sorts the underscored names instead.
    """
    sigmas = get_sigmas(shape.steps)[:-1].astype(np.float16).astype(np.float64)
    batches = [raw_activations(shape, seed=seed, step=step) for step in range(shape.steps)]
    alphas = {
        linear.replace(".", "_"): np.array(
            [np.abs(batch[linear].astype(np.float16)).max() for batch in batches], np.float64
        )
        for linear in sorted(batches[0])
    }
    return sigmas, alphas


def fit(sigmas: NDArray[np.float64], alpha: NDArray[np.float64]) -> dict[str, Any]:
    """One layer of a polynomial schedule: degree 2 unless 3 or 4 explains clearly more."""
    spread = ((alpha - alpha.mean()) ** 2).sum()
    coefficients = {d: np.polyfit(sigmas, alpha, d) for d in (2, 3, 4)}
    residual = {d: alpha - np.polyval(c, sigmas) for d, c in coefficients.items()}
    r2 = {d: 1 - (r**2).sum() / spread for d, r in residual.items()}
    degree = 4 if r2[4] - r2[3] > 0.10 else 3 if r2[3] - r2[2] > 0.15 else 2
    return {
        "degree": degree,
        "coeffs": coefficients[degree].tolist(),
        "r2": round(float(r2[degree]), 4),
        "cv": round(float(alpha.std() / alpha.mean()), 4),
    }
