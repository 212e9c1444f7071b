"""Rules for all layers and steps of an observed store: against a NumPy loop and other tools."""

from __future__ import annotations

from functools import partial
from typing import Any

from .inputs import Inputs
from .measure import Contender
from .observed import (
    Values,
    absmax,
    by_input,
    channel_absmax,
    folder_of,
    loop,
    percentile,
    scales_of_all,
    store_of,
)
from .question import Question
from .rows import Target
from .search_question import PEAK_LIMIT, SearchQuestion, search_contenders

LOOP = "NumPy loop over npz"
_PERCENTILE = 99.9


def _contenders(
    inputs: Inputs, parts: tuple[str, ...], rule: Any, options: dict[str, Any]
) -> list[Contender]:
    folder = folder_of(inputs)

    def loops(call: int) -> Values:
        return dict(sorted(loop(folder, parts, rule)))

    return [
        Contender("scales", lambda: scales_of_all(inputs, [options]), True, canonical=by_input),
        Contender(LOOP, lambda: loops),
    ]


def _question(
    name: str, parts: tuple[str, ...], rule: Any, target: float | None, **options: Any
) -> Question:
    return Question(
        name,
        partial(_contenders, parts=parts, rule=rule, options=options),
        lambda inputs: [store_of(inputs), folder_of(inputs)],
        {} if target is None else {LOOP: Target(target)},
        rounds=5,
        peak_limit=PEAK_LIMIT,
    )


_EXTREMA = ("min", "max")
ANALYSES: dict[str, Question] = {
    "analyses-absmax": _question("absmax scales", _EXTREMA, absmax, 5),
    "analyses-channels": _question(
        "absmax scales per channel", _EXTREMA, channel_absmax, None, per="channel"
    ),
    "analyses-percentile": _question(
        "percentile scales",
        ("histogram",),
        percentile(_PERCENTILE / 100),
        10,
        clip="percentile",
        percentile=_PERCENTILE,
    ),
    "analyses-mse": SearchQuestion(
        "MSE scales at 4, 6, 8 bits",
        search_contenders,
        lambda inputs: [store_of(inputs)],
        {"torch HistogramObserver": Target(50), "onnxruntime entropy": Target(50)},
        rounds=3,
        peak_limit=PEAK_LIMIT,
    ),
}
