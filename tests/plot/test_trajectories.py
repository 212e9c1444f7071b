"""The one drawing of cosines by noise, of the gate and of `evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.testing import assert_allclose

from taqstore.plot.parts.trajectories import trajectory_figure
from taqstore.plot.render import write_picture
from taqstore.query.variants import by_step

SIGMAS = np.linspace(0.8, 0, 5, dtype=np.float32)


def test_a_line_is_the_mean_and_another_the_worst_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good = 1 - 1e-4 * rng.uniform(0.1, 1, size=(6, 5))
    bad = 1 - 0.2 * rng.uniform(size=(6, 5))
    bad[2, 3:] = np.nan
    cosines = {"gptq/a8-static": good, "float/a3-static": bad, "same": np.ones((6, 5))}
    variants = {
        name: by_step(cosine, sigmas=SIGMAS, steps=np.arange(1, 6))
        for name, cosine in cosines.items()
    }
    figure = trajectory_figure(variants, panels={"": "latent"})
    assert len(figure.axes) == 1
    ax, legend = figure.axes[0], figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list(cosines)
    mean, worst = (np.asarray(line.get_ydata()) for line in ax.lines[:2])
    assert_allclose(mean, 1 - good.mean(axis=0), rtol=1e-9)
    assert_allclose(worst, (1 - good).max(axis=0), rtol=1e-12)
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == SIGMAS.tolist()
    low, high = ax.get_ylim()
    assert low > np.nanmax(1 - bad)
    assert high < 1e-6
    assert write_picture(figure, tmp_path / "t.png").stat().st_size > 5000


def test_a_seed_that_first_is_no_number_is_below_there() -> None:
    cosine = np.full((2, 5), 0.99)
    cosine[1, 3:] = np.nan
    found = by_step(cosine, sigmas=SIGMAS, steps=np.arange(1, 6))
    assert found["first_below"].values.tolist() == [-1, 3]
    assert np.isnan(found["mean"].values).tolist() == [False, False, False, True, True]
