"""How often `analyze drift` calls a re-run with other seeds drift, and what it finds elsewhere.

By hand, not a row of the benchmarks: ``python -m benchmarks.reruns STORE [--pairs 300] [--hands 8]
[--clip absmax --bits 8] [--twin STORE] [--planted STORE]``. STORE has many images of one model.
A pair is two hands of them, drawn at random; with `--twin`, a store of the same prompts and other
seeds, a pair has the same prompts in both hands; with `--planted`, the second hand comes from
there and what is called drift is no false alarm.

Ranges of `absmax` at every step are those of some image, so that the error of every image in the
range of every image is priced once, and a deal only looks up and adds. It differs from what the
command prices in that known extrema are those of each image, not of the hand; `--check` says by how
much. Other rules are dealt as the command does it, and only where a linear passes the floor as the
hands are, which an alarm takes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.analysis.drift import DEALS, FLOOR
from taqstore.analysis.extra import Chooser, dealt, extra_error
from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.reruns.deals import deal, standing
from taqstore.analysis.reruns.held import Held
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import site_of, split_group
from taqstore.quantization.counts import parts
from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.search import Scheme
from taqstore.quantization.spread import Spread
from taqstore.store.reader import open_store

Array = Any
Values = Callable[[Array], Array]
GLANCE, FEW = 30, 100


def held(path: Path, steps: int = 7) -> Held:
    """Every image of a store, at the steps that the command looks at."""
    store, sites = open_store(path), []
    for name in store:
        if split_group(name)[0] not in STATISTICS:
            continue
        group = store[name]
        kept = np.unique(np.linspace(0, group.sizes["step"] - 1, steps).round().astype(int))
        names = [f"{layer}.{site_of(name)}" for layer in group["layer"].values]
        sites.append(Held.of(group.isel(step=kept).assign_coords(layer=names)))
    (found,) = Held.joined(sites)
    return found


@dataclass(frozen=True)
class Prices:
    """Squared errors of images in the ranges of images.

    Parameters
    ----------
    error
        float64 ``(image, image of the range, step, linear)``, sums over values.
    power
        float64 ``(image, step, linear)``: sums of squares.
    reach
        float64 ``(image, step, linear)``: largest magnitudes.
    """

    error: Array
    power: Array
    reach: Array

    @classmethod
    def of(cls, images: Held, bits: int) -> Prices:
        """Price everything, a step and linear at a time."""
        ends = np.concatenate([images.ends[..., 0, :], images.ends[..., 1, :]], axis=-1)
        reach = np.abs(ends.astype(np.float64)).max(axis=-1)
        count, top = len(images.counts), 2 ** (bits - 1) - 1
        error = np.empty((count, *reach.shape))
        power = np.empty(reach.shape)
        spread = Spread.of(images.layout)[images.used]
        for at in np.ndindex(reach.shape[1:]):
            here = (slice(None), *at)
            rows = images.counts[here].astype(np.float64)
            step = reach[here] / top
            by = Quantizer(step, np.zeros_like(step), -top - 1, top)
            found = parts(rows, spread, ends[here])
            error[(slice(None), *here)] = sum(_errors(part, by) for part in found)
            power[here] = sum((part.counts * part.spread.square()).sum(axis=1) for part in found)
        return cls(error, power, reach)

    def extra(self, orders: Array, hand: int) -> Array:
        """Extra error ``(deal, linear)`` of the images in `orders` ``(deal, image)``."""
        found = []
        for first, second in ((order[:hand], order[hand:]) for order in orders):
            theirs = first[self.reach[first].argmax(axis=0)]
            own = second[self.reach[second].argmax(axis=0)]
            power = self.power[second].sum(axis=0)
            at = np.ix_(*(np.arange(size) for size in theirs.shape))
            sqnr = [
                10 * np.log10(power / self.error[second[:, None, None], range_, *at].sum(axis=0))
                for range_ in (own[None], theirs[None])
            ]
            found.append(extra_error(*(s.T for s in sqnr)))
        return np.stack(found)


def _errors(part: Any, by: Quantizer) -> Array:
    """Sums ``(row, range)`` of squared errors of a part of the rows."""
    if not part.own:
        return part.counts @ part.spread.error(by).T
    ranges = [part.spread.error(by[[i]]) for i in range(len(by.step_size))]
    return np.stack([(part.counts * one).sum(axis=1) for one in ranges], axis=1)


def alarms(values: Values, orders: Array, *, look: bool) -> tuple[Array, Array]:
    """What the command does with deals: which linears stand out, and the values it looked at."""
    if look and not (values(orders[:1]) >= FLOOR).any():
        return np.zeros(0, bool), np.zeros((1, 0))
    glance = values(orders[: GLANCE + 1])
    if not standing(glance, floor=FLOOR).beyond.any():
        return np.zeros(glance.shape[1], bool), glance
    rest = orders[len(glance) :]
    whole = np.concatenate([glance, values(rest)]) if len(rest) else glance
    stands = standing(whole, floor=FLOOR)
    enough = len(orders) > FEW or (stands.leads and np.mean(whole[0]) >= FLOOR)
    return stands.beyond & enough, whole


def pairs_of(count: int, hand: int, images: int, twin: int, planted: int) -> Array:
    """Hands as positions ``(pair, 2 * hand)``; those of a twin or a planted store come after."""
    rng, found = np.random.default_rng([20, hand]), []
    for _ in range(count):
        if twin:
            both = rng.permutation(min(images, twin))[:hand]
            side = rng.integers(0, 2, hand) * images
            found.append(np.concatenate([both + side, both + images - side]))
        elif planted:
            theirs = images + rng.permutation(planted)[:hand]
            found.append(np.concatenate([rng.permutation(images)[:hand], theirs]))
        else:
            found.append(rng.permutation(images)[: 2 * hand])
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--twin", type=Path, help="the same prompts, other seeds")
    parser.add_argument("--planted", type=Path, help="a store that did drift")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--hands", type=int, nargs="+", default=[8])
    parser.add_argument("--deals", type=int, default=DEALS)
    parser.add_argument("--clip", default="absmax")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--check", action="store_true", help="compare with the command's prices")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    images, others = held(asked.store), asked.twin or asked.planted
    extra = held(others) if others else None
    both = images.beside(replace(extra, step=images.step)) if extra else images
    count = len(extra.counts) if extra else 0
    how = Chooser(Scheme(asked.bits, True), Clip.of(asked.clip), None)
    prices = Prices.of(both, asked.bits) if asked.clip == "absmax" else None
    rows = []
    for hand in asked.hands:
        pairs = pairs_of(asked.pairs, hand, len(images.counts), count if asked.twin else 0,
                         count if asked.planted else 0)  # fmt: skip
        rows += _run(asked, both, how, prices, pairs, hand)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), "utf-8")


def _run(
    asked: Any, both: Held, how: Chooser, prices: Prices | None, pairs: Array, hand: int
) -> list[Any]:
    started, rows = time.process_time(), []
    for number, picks in enumerate(pairs):
        here = replace(both, counts=both.counts[picks], ends=both.ends[picks])

        def slow(some: Array, here: Held = here) -> Array:
            return dealt(here, how, None, some, hand)

        def fast(some: Array, picks: Array = picks) -> Array:
            assert prices is not None
            return prices.extra(picks[some], hand)

        orders = deal(hand, hand, asked.deals, seed=number)
        beyond, found = alarms(fast if prices else slow, orders, look=prices is None)
        if prices and asked.check and number < 5:
            apart = np.abs(fast(orders[:5]) - slow(orders[:5]))
            print(f"pair {number}: at most {apart.max():.3g} dB apart, mean {apart.mean():.3g}")
        for linear in np.flatnonzero(beyond).tolist():
            rows.append({
                "hand": hand, "pair": number, "linear": str(both.layer[linear]),
                "extra": float(found[0, linear]), "most": float(found[1:, linear].max()),
                "spread": float(found[:, linear].std()), "mean": float(found[0].mean()),
            })  # fmt: skip
            print(rows[-1], flush=True)
    called = len({row["pair"] for row in rows})
    spent = time.process_time() - started
    print(f"{hand} v {hand} images: {called} of {len(pairs)} pairs called drift ({spent:.0f} s)")
    return rows


if __name__ == "__main__":
    main()
