"""Files of an evaluation: tables, figures, and a contact sheet where there are pictures."""

from __future__ import annotations

from pathlib import Path

from taqstore.files.datasets import write_table
from taqstore.files.png import contact_sheet
from taqstore.files.tables import to_table
from taqstore.run.extras import extra

from .result import Evaluation
from .summary import summary

_BY = {
    "step": ["denoiser_error"],
    "block": ["sqnr", "quantized"],
    "image": ["latent_error", "psnr"],
    "latent_step": ["latent_cosine"],
}
"""Tables that are written beside the summary, ``by_<dim>.csv``, and what they hold."""


def write_evaluation(found: Evaluation, folder: Path) -> tuple[list[Path], list[str]]:
    """Write tables, then the figure, then a contact sheet where there are pictures.

    `evaluation.csv` is `summary`; `by_<dim>.csv` are the Dataset.

    Returns
    -------
    Paths of what was written, and a line for each picture that could not be had.
    """
    tables = {"evaluation": summary(found.result)}
    tables |= {f"by_{dim}": to_table(found.result[names]) for dim, names in _BY.items()}
    written, notes = [], list[str]()
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_table(table, written[-1], force=True)
    with extra("the figure", notes):
        written.append(_write_figure(found, folder / "evaluation.png"))
    with extra("the figure of trajectories", notes):
        written.append(_write_trajectories(found, folder / "trajectories.png"))
    if found.model is not None:
        with extra("the contact sheet", notes):
            written.append(_write_sheet(found, folder / "contact_sheet.png"))
    return written, notes


def _write_figure(found: Evaluation, path: Path) -> Path:
    from taqstore.plot.evaluation import evaluation_figure
    from taqstore.plot.render import write_picture

    return write_picture(evaluation_figure(found.result), path)


def _write_trajectories(found: Evaluation, path: Path) -> Path:
    from taqstore.plot.parts.trajectories import trajectory_figure
    from taqstore.plot.render import write_picture
    from taqstore.query.variants import by_step

    result = found.result.isel(variant=slice(1, None))
    sigmas, steps = result["latent_sigma"].values, result["latent_step"].values
    cosines = result["latent_cosine"].transpose("variant", "image", "latent_step").values
    lines = {
        str(name): by_step(cosine, sigmas=sigmas, steps=steps)
        for name, cosine in zip(result["variant"].values, cosines, strict=True)
    }
    return write_picture(trajectory_figure(lines, panels={"": "latent"}), path)


def _write_sheet(found: Evaluation, path: Path) -> Path:
    names = [str(name) for name in found.result["variant"].values]
    captions = [found.prompts, *[[]] * (len(names) - 1)]
    pictures = found.pictures
    assert pictures is not None
    contact_sheet(list(pictures), path, captions=captions, labels=names)
    return path
