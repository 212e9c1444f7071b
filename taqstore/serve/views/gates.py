"""Gates: variants of a model beside the model as it is, step by step, and whether they pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened
from taqstore.trajectory.measures import MIN_COSINE

if TYPE_CHECKING:
    import xarray as xr

OPTIONS = (
    Option(
        "min_cosine",
        "Least mean cosine of latents that passes.",
        float,
        MIN_COSINE,
        least=-1,
        most=1,
    ),
)
_BY_STEP = ("mean", "lower", "upper", "output_mean", "output_lower", "output_upper")


def gates(service: Service, *, store: str, min_cosine: float) -> dict[str, Any]:
    """Every variant that was run beside the model as it is, as `taqstore gate` judges it.

    Returns
    -------
    ``min_cosine``; ``variants``: ``{"variant", "passes", "seeds", "bifurcated", "least",
    "average_bits"}``, ``cosine``, ``final_error`` and ``psnr`` with ``mean``, ``lower`` and
    ``upper``; over ``steps`` the ``mean`` cosine of latents with its interval, the ``least`` of an
    image, and the same of guided outputs; ``images``: ``{"image", "prompt", "seed", "first_below",
    "psnr", "cosine", "mean", "least"}``, cosines by step, and of an image over them.

    Raises
    ------
    MissingError
        Nothing was run beside the model as it is.
    """
    from taqstore.query.variants import compared_variants

    ask = partial(compared_variants, service.store(store), min_cosine=min_cosine)
    found = service.kept(store, ("gates", min_cosine), lambda: _told(ask()))
    address = service.address(store)
    code = [
        "import taqstore",
        "from taqstore.query.variants import GateFigures, compared_variants",
        "",
        opened(address),
        f"variants = compared_variants(store, min_cosine={min_cosine!r})",
        "figures = {name: GateFigures.of(data) for name, data in variants.items()}",
    ]
    line = command_line("plot gate", address, after=["-o", "plots"])
    return {"min_cosine": min_cosine, "variants": found, "cli": line, "python": "\n".join(code)}


def _told(variants: dict[str, xr.Dataset]) -> list[dict[str, Any]]:
    return [_variant(name, data) for name, data in variants.items()]


def _variant(name: str, data: xr.Dataset) -> dict[str, Any]:
    from taqstore.kinds.trajectories import AVERAGE_BITS
    from taqstore.query.variants import GateFigures

    figures = GateFigures.of(data)
    return {
        "variant": name,
        "passes": figures.passes,
        "seeds": figures.seeds,
        "bifurcated": figures.bifurcated,
        "least": figures.least,
        "average_bits": data.attrs.get(AVERAGE_BITS),
        **{
            key: {end: float(value) for end, value in getattr(figures, key)._asdict().items()}
            for key in ("cosine", "final_error", "psnr")
        },
        "steps": data["step"].values.tolist(),
        "sigma": data["sigma"].values.tolist(),
        "by_step": {
            **{key: data[key].values.tolist() for key in _BY_STEP},
            "least": data["cosine"].min("image").values.tolist(),
        },
        "images": _images(data),
    }


def _images(data: xr.Dataset) -> list[dict[str, Any]]:
    names = [n for n in ("prompt", "seed") if n in data.coords]
    columns = {n: data[n].values.tolist() for n in ("image", *names, "first_below", "psnr")}
    cosine = data["cosine"].transpose("image", "step")
    columns["cosine"] = cosine.values.tolist()
    # The noise that all begin with is left out, as of `GateFigures`.
    columns["mean"] = cosine.isel(step=slice(1, None)).mean("step").values.tolist()
    columns["least"] = cosine.min("step").values.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
