"""What trajectories say: variants beside the model as it is, the layers to blame, headroom."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import numpy as np
import xarray as xr

from taqstore.errors import MissingError
from taqstore.kinds.sensitivity import quantizes_inputs, sensitivities
from taqstore.names import SCORES, SENSITIVITY, TRAJECTORIES, kind_of, site_of, split_group
from taqstore.query.analyze import Results, analyze
from taqstore.query.budgets import frontiers, policies
from taqstore.query.sites import Groups, paths_of
from taqstore.query.variants import GateFigures, compared_variants
from taqstore.report.findings import Findings, Plan
from taqstore.report.page import IN_PART, NO, UNKNOWN, YES, Section, Table, Verdict, number
from taqstore.report.reading import in_blocks
from taqstore.store.reader import Store, open_store
from taqstore.trajectory.bootstrap import Interval
from taqstore.trajectory.measures import MIN_COSINE

KEY = "judged"
_TITLE = "Judged by the trajectory: good enough, and which layers are to blame?"
_RULE = (
    "The same prompts and seeds, which nothing was observed of, by the model as it is and by each "
    f"variant. A variant passes if the mean cosine of its latents with the model's, over seeds and "
    f"steps, is at least {MIN_COSINE:g} and no seed falls below that at any step (bifurcates). "
    "Intervals are of 95 %, by the bootstrap over seeds."
)
_WORST = 10
_EFFECT = "latent_error"
_HELD_BYTES = 1 << 26
_MOMENTS = ("mean", "m2", "std")


def gather_judged(store: Store, plan: Plan) -> Findings:
    """What a store holds of trajectories, each thing asked once; and why the rest is not told."""
    plain = _held(open_store(store, chunks=None, checksum=True))
    # Moments bound integer sums in a second way, which is not told here; they are most of a store.
    statistics = {
        path: in_blocks(store[path].drop_vars(_MOMENTS, errors="ignore"))
        for path in paths_of(store, plan.source)
    }
    asked: dict[Hashable, Callable[[], Results]] = {
        "gate": lambda: compared_variants(plain),
        "sensitivity": lambda: {"/".join(key): d for key, d in sensitivities(plain).items()},
        "ranks": lambda: analyze("ranks", _of_weights(plain)),
        "frontier": lambda: frontiers(plain),
        "policy": lambda: policies(plain),
        "overflow": lambda: analyze("overflow", statistics),
    }
    results: dict[Hashable, Results] = {}
    missing: dict[Hashable, str] = {}
    for name, ask in asked.items():
        try:
            results[name] = ask()
        except MissingError as error:
            missing[name] = str(error)
    return Findings(results, missing)


def _held(store: Store) -> Groups:
    """Groups of judged images, each variable read once where it is small: many analyses ask."""
    found = {}
    for path in store:
        if kind_of(path) in (SENSITIVITY, SCORES, TRAJECTORIES):
            data = store[path]
            small = [name for name in data.data_vars if data[name].nbytes <= _HELD_BYTES]
            found[path] = data.assign({name: data[name].load() for name in small})
    return found


def _of_weights(groups: Groups) -> Groups:
    """Without sensitivities of inputs: their scores take histograms, and minutes."""
    heads = (f"{SENSITIVITY}/", f"{SCORES}/")
    return {
        path: data
        for path, data in groups.items()
        if path.startswith(heads) and not quantizes_inputs(site_of(path))
    }


def judged(found: Findings) -> Section:
    """The section of what `gather_judged` found, without its pictures."""
    gates = {name: GateFigures.of(data) for name, data in found.results.get("gate", {}).items()}
    passed = [name for name, gate in gates.items() if gate.passes]
    tables = (
        *_gates(gates),
        *_blamed(found.results.get("sensitivity", {})),
        *_ranks(found.results.get("ranks", {})),
        *_frontier(found.results.get("frontier", {})),
        *_policies(found.results.get("policy", {})),
        *_headroom(found.results.get("overflow", {})),
    )
    return Section(
        KEY,
        _TITLE,
        _summary(passed, list(gates)),
        _verdict(len(passed), len(gates)),
        _RULE,
        tables=tables,
        notes=tuple(_notes(found)),
        command="taqstore gate STORE --variant NAME",
    )


def _summary(passed: list[str], known: list[str]) -> str:
    if not known:
        return "No variant was run beside the model as it is."
    what = f"{len(passed)} of {len(known)} variants pass"
    return f"{what}: {', '.join(passed)}." if passed else f"None of {len(known)} variants passes."


def _verdict(passed: int, known: int) -> Verdict:
    if not known:
        return Verdict(UNKNOWN)
    return Verdict(YES if passed == known else IN_PART if passed else NO, passed, known)


def _told(values: Interval, digits: int = 3) -> str:
    mean, lower, upper = (number(float(value), digits=digits) for value in values)
    return f"{mean} ({lower} to {upper})"


def _gates(gates: dict[str, GateFigures]) -> Iterator[Table]:
    if not gates:
        return
    header = (
        *("variant", "seeds", "mean cosine", "least cosine", "error of the final latent"),
        *("PSNR of it (dB)", "bifurcated", "passes"),
    )
    rows = tuple(
        (
            name,
            str(gate.seeds),
            _told(gate.cosine, 6),
            number(gate.least, digits=4),
            _told(gate.final_error),
            _told(gate.psnr),
            f"{gate.bifurcated} of {gate.seeds}",
            YES if gate.passes else NO,
        )
        for name, gate in gates.items()
    )
    yield Table("Variants beside the model as it is", header, rows)


def _blamed(found: Results) -> Iterator[Table]:
    """Linears whose format alone changes the picture most, a table for each format."""
    for key, data in found.items():
        unit, name = split_group(key)
        if unit != "linear":
            continue
        error = data["latent_error"].mean("image").values
        share = data["weights"].values / max(int(data["weights"].sum()), 1)
        cosine = data["worst_cosine"].min("image").values
        rows = tuple(
            (
                str(data["target"].values[place]),
                number(error[place]),
                number(cosine[place], digits=6),
                number(100 * share[place], "%"),
            )
            for place in np.argsort(-error, kind="stable")[:_WORST]
        )
        images = data.sizes["image"]
        header = ("linear", "error of the final latent", "least cosine", "of the weights")
        caption = f"One linear at a time in {name}: those that do most, {images} images"
        yield Table(caption, header, rows)


def _ranks(found: Results) -> Iterator[Table]:
    """Which scores may be trusted, by unit and format."""
    rows = []
    for name, data in found.items():
        one = data.sel(effect=_EFFECT)  # without scores where fewer than 3 targets were measured
        columns = ("score", "rho", "rho_lower", "rho_upper", "trusted", "baseline")
        for score, rho, low, high, trusted, baseline in zip(
            *(one[column].values for column in columns), strict=True
        ):
            word = (YES if trusted else NO) + " (baseline)" * bool(baseline)
            rows.append((name, str(score), _told(Interval(rho, low, high), 2), word))
    if rows:
        header = ("measured", "static score", "rank correlation", "may be trusted")
        yield Table("Static scores beside what was measured", header, tuple(rows), labels=2)


def _trusted(found: Results) -> Iterator[str]:
    """A line for every measurement: the scores that order its targets as trajectories do."""
    for name, data in found.items():
        one = data.sel(effect=_EFFECT)
        chosen = [
            str(s) for s, t in zip(one["score"].values, one["trusted"].values, strict=True) if t
        ]
        bound = float(data.attrs["trust"])
        what = ", ".join(chosen) or f"no static score reaches {bound:g}"
        yield f"To be trusted on this model, {name}: {what}."


def _frontier(found: Results) -> Iterator[Table]:
    if not found:
        return
    data = found[SENSITIVITY]
    others = [name for name in found if name != SENSITIVITY]
    rows = tuple(
        (
            number(float(one["average_bits"])),
            number(float(one["predicted_error"])),
            number(float(one["first_order_error"])),
            *(number(_at(found[name], float(budget))) for name in others),
        )
        for budget, one in ((b, data.sel(budget=b)) for b in data["budget"].values)
    )
    header = ("average bits", "independent", "first order", *(f"by static {o}" for o in others))
    yield Table("Predicted error of the final latent under a budget", header, rows, labels=0)
    names, counts = np.unique(data["allocated"].values.astype(str), return_counts=True)
    chosen = tuple((str(n), str(c)) for n, c in zip(names, counts, strict=True))
    caption = f"The allocation of {float(data.attrs['average']):g} bits on average"
    yield Table(caption, ("format", "linears"), chosen)


def _at(data: xr.Dataset, budget: float) -> float:
    """Predicted error of a budget, NaN where it has no row."""
    place = np.flatnonzero(np.isclose(data["budget"].values, budget))
    return float(data["predicted_error"].values[place[0]]) if len(place) else float("nan")


def _policies(found: Results) -> Iterator[Table]:
    rows = []
    for name, data in found.items():
        count = int(data.attrs["protect"])
        one = data.sel(protected=count)
        best = (int(one["best_first"]), int(one["best_last"]), float(one["best_error"]))
        half = (int(one["half_first"]), int(one["half_last"]), float(one["half_error"]))
        ends = (f"{first} and {last}: {number(error)}" for first, last, error in (best, half))
        rows.append((name, str(count), *ends))
    if rows:
        header = ("inputs", "protected steps", "best first and last", "half at each end")
        yield Table("Steps to protect, with the predicted error", header, tuple(rows))


def _headroom(found: Results) -> Iterator[Table]:
    for data in found.values():
        rows = tuple(
            (str(name), f"{number(ratio, digits=4)} ×", number(bits, "bit"), str(where))
            for name, ratio, bits, where in zip(
                *(data[n].values for n in ("format", "least_headroom", "least_bits", "least_at")),
                strict=True,
            )
            if np.isfinite(ratio)
        )
        header = ("format", "least headroom", "in bits", "where")
        yield Table("From the largest input to what formats hold", header, rows)


_MAKERS = {
    "gate": "No variant was run beside the model as it is: taqstore gate STORE --variant NAME.",
    "sensitivity": "Which layers are to blame is not known: taqstore sensitivity STORE.",
    "policy": "Which steps to protect is not known: taqstore sensitivity STORE --unit step.",
}


def _notes(found: Findings) -> Iterator[str]:
    for name, text in _MAKERS.items():
        if not found.results.get(name):
            yield text
    yield from _trusted(found.results.get("ranks", {}))
    for data in found.results.get("overflow", {}).values():
        said = str(data.attrs["summary"])
        yield f"Overflow: {said}."
