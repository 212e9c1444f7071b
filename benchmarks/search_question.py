"""A question whose other contenders answer for a sample, and not with equal answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from taqstore.quantization.counts import expected_error
from taqstore.quantization.quantizer import affine
from taqstore.quantization.search import Scheme

from .inputs import Inputs, say
from .measure import Contender, DisagreementError, Run, interleave, ratio, warm
from .observed import LAYOUT, scales_of_all, sites, store_of
from .question import Question, peak_bytes
from .rows import Row, Target
from .searches import PEERS, SAMPLED, Tensor, present, sample, torch_search

WIDTHS = (4, 6, 8)
OURS = "scales, mse"
PEAK_LIMIT = 1e9
# Selections of about half the store: what they cost tells how cost grows.
PARTS = {"half the steps": {"step": "::2"}, "ten of 24 blocks": {"layer": "mm?.*"}}
_GROWTH = Target(1.15, at_least=False)
_SLACK = 1.005  # how much more error than another tool's range ours may leave


def _silent(answer: object) -> None:
    """Answers of searches are not compared for equality."""


def search_contenders(inputs: Inputs) -> list[Contender]:
    """Our ranges of least error at three bit widths, of everything and of parts."""

    def setup(selection: Mapping[str, str]) -> Run:
        run = scales_of_all(inputs, [{"clip": "mse", "bits": bits} for bits in WIDTHS], selection)
        return lambda call: run(call)

    whole = Contender(OURS, lambda: setup({}), ours=True, canonical=_silent)
    parts = [
        Contender(name, lambda chosen=chosen: setup(chosen), canonical=_silent)  # type: ignore[misc]
        for name, chosen in PARTS.items()
    ]
    return [whole, *parts]


@dataclass(frozen=True)
class SearchQuestion(Question):
    """Ranges of least error against other tools' searches, called tensor by tensor.

    Other tools are timed on a sample, and their time is multiplied by the share of all tensors it
    is. Ours must leave no more error than torch's ranges on that sample.
    """

    def rows(self, inputs: Inputs, *, key: str, rounds: int | None = None) -> list[Row]:
        """Rows for every peer installed, growth with steps and layers, and memory."""
        store = store_of(inputs)
        warm(self.files(inputs))
        tensors = sample(store)
        runs = {name: make(tensors, WIDTHS) for name, make in present().items()}
        for name in PEERS.keys() - runs.keys():
            say(f"  {name}: not installed, not compared")
        _check(tensors)
        peers = [
            Contender(name, lambda run=run: lambda call: run(), canonical=_silent)  # type: ignore[misc]
            for name, run in runs.items()
        ]
        contenders = [*self.contenders(inputs), *peers]
        seconds = interleave(contenders, rounds=rounds or self.rounds)
        peak = peak_bytes(inputs, key, OURS)
        share = _tensors(store, {}) / SAMPLED
        scaled = {name: [share * second for second in seconds[name]] for name in runs}
        found = [self._row(OURS, name, {**seconds, **scaled}, peak) for name in runs]
        growth = [_growth(self.name, name, seconds, inputs) for name in PARTS]
        return [*found, *growth, self._limit_row(OURS, peak, PEAK_LIMIT)]


def _tensors(store: object, selection: Mapping[str, str]) -> int:
    from taqstore.query.select import select

    chosen = (select(group, site=site, **selection) for site, group in sites(store).items())
    return sum(group.sizes["step"] * group.sizes["layer"] for group in chosen)


def _growth(question: str, part: str, seconds: Mapping[str, list[float]], inputs: Inputs) -> Row:
    """Time per tensor of everything over that of a part: 1 where cost is linear."""
    store = store_of(inputs)
    more = _tensors(store, {}) / _tensors(store, PARTS[part])
    found = ratio([second / more for second in seconds[OURS]], seconds[part])
    name = f"{question}: time per tensor"
    whole, some = median(seconds[OURS]), median(seconds[part])
    return Row(name, OURS, part, found, _GROWTH, whole, some, inverse=True)


def _check(tensors: list[Tensor]) -> None:
    """Raise where our affine ranges leave more error than torch's, by the bit histogram."""
    if "torch HistogramObserver" not in present():
        return
    found = iter(torch_search(tensors, WIDTHS)())
    for tensor in tensors:
        for bits in WIDTHS:
            theirs = affine(*next(found), bits=bits)
            ours = tensor.searched(Scheme(bits, symmetric=False))
            errors = [float(expected_error(tensor.counts, LAYOUT, q)) for q in (ours, theirs)]
            if errors[0] > _SLACK * errors[1]:
                what = f"{tensor.name} at {bits} bits: error {errors[0]:g}, torch {errors[1]:g}"
                raise DisagreementError(what)
