"""Cosines by step as lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from taqstore.plot.parts.trajectories import trajectory_figure
from taqstore.plot.render import write_picture


def test_a_line_is_the_mean_and_another_the_worst_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good = 1 - 1e-4 * rng.uniform(size=(6, 5))
    bad = 1 - 0.2 * rng.uniform(size=(6, 5))
    bad[2, 3:] = np.nan
    figure = trajectory_figure(
        {"gptq/a8-static": good, "float/a3-static": bad, "same": np.ones((6, 5))}
    )
    ax = figure.axes[0]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["gptq/a8-static", "float/a3-static", "same"]
    mean, worst = (np.asarray(line.get_ydata()) for line in ax.lines[:2])
    assert np.allclose(mean, 1 - good.mean(axis=0), rtol=1e-9)
    assert np.allclose(worst, (1 - good).max(axis=0), rtol=1e-12)
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == [1, 2, 3, 4, 5]
    assert write_picture(figure, tmp_path / "t.png").stat().st_size > 5000
