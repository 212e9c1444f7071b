"""GPTQ: second moments of a store -> integer weights and steps of its model, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taqstore.asked import word_of
from taqstore.errors import MissingError, MisuseError, TaqError, problem
from taqstore.kinds import nonfinite, second_moments
from taqstore.kinds.weight_sets import check_set, set_folders
from taqstore.names import ACTIVATIONS, EVERY_SITE, SECOND_MOMENTS, WEIGHTS, split_group
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.quantization.gptq import gptq as round_weight
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter

from ..models.adapter import fetching
from ..models.backend import LIBRARIES
from ..models.inputs import Reader, check_floats
from ..models.load import LoadedModel
from ..run.dry import LINEARS, Clock, add_group, laid_out, new_plan, open_writer, timed
from ..run.groups import open_groups
from ..run.record import record_run
from ..run.trajectories import load_model_of
from ..tasks.units import Call, run_units
from .settings import DEFAULT_SITES, SET, GptqSettings
from .site_groups import Place, Rounded, by_input, put_layer, site_templates
from .statistics import Known, SiteStatistics, path_of, run_of_statistics, statistics_of

_ADD = "taqstore collect STORE --second-moment full"


@takes_storage_options
def gptq(
    store: Store | str | os.PathLike[str],
    *,
    settings: GptqSettings | None = None,
    sites: Sequence[str] | None = None,
    set: str = SET,
    model: str | None = None,
    local_ckpt: str | os.PathLike[str] | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Round the weights of a store's model from the second moments of their inputs.

    The model is loaded for its weights and never run. One input is at hand at a time: memory is
    that of five of its second moments in float64 (1.5 GB of 6144 inputs), and of one linear.
    Several processes may work on one store: each takes layers that no other is working on.

    Parameters
    ----------
    store
        Path or URL, or a store that is open, which sees afterwards what was written.
    settings
        How weights are rounded.
    sites
        Sites whose linears are; None: those of blocks, and adaLN.
    set
        Name of the weight set to write; others are left alone.
    model, local_ckpt
        As of `cache`.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        A site or name of a set that there cannot be, or bits of a site that is not rounded.
    MissingError
        A site has neither second moments nor activations, and is not to be rounded to nearest.
    TaqError
        The model does not load, is packed already, options do not fit it, or the store holds other
        weights.
    """
    mode, outcome = mode or Mode(), Outcome()
    settings, name = settings or GptqSettings(), check_set(set)
    opened = open_store(store, chunks=None, checksum=True)
    chosen = _chosen(opened, sites, settings)
    _check_bits(settings, chosen)
    known = statistics_of(opened, chosen, sigma_power=settings.sigma_power)
    made_by = run_of_statistics(opened, known, model=model)
    with fetching(not mode.dry_run):
        loaded = load_model_of({**made_by, "use_t5": False, "shift": None}, local_ckpt=local_ckpt)
    inputs = [given for given in loaded.inputs() if given.site in known]
    _check_sites(loaded, known, [given.site for given in inputs])
    check_floats(reader for given in inputs for reader in given.readers)
    about = {"model": loaded.row.name, "weights": loaded.digest, "dtype": loaded.dtype}
    runs = {
        site: {**settings.summary(site), **about, "statistics": found.summary()}
        for site, found in known.items()
    }
    made = site_templates(inputs, settings, runs, name=name)
    _check_place(opened, name)
    outcome.notes += _notes(opened, known, settings, sites)
    with open_writer(opened.location, mode) as writer:
        groups = open_groups(writer, [template for template, _ in made.values()], mode)
        job = _Job(known, settings, groups, outcome, mode)
        every = [place for _, places in made.values() for place in places]
        if mode.dry_run:
            outcome.plan = job.plan(every, writer)
            return outcome
        if mode.groups_only:
            amount = sum(len(place.readers) for place in job.pending(every))
            outcome.plan = laid_out(writer, groups, unit=LINEARS, amount=amount)
            return outcome
        again = {
            "settings": settings,
            "sites": sites,
            "set": set,
            "model": model,
            "local_ckpt": local_ckpt,
        }
        job.run(every, Call(gptq, (opened.location,), again), writer)
        record_run(
            writer,
            "gptq",
            outcome,
            parameters={"set": name, "sites": chosen, "runs": runs},
            libraries=LIBRARIES,
            mode=mode,
        )
    opened.refresh(*outcome.groups, *groups)
    return outcome


def _chosen(store: Store, asked: Sequence[str] | None, settings: GptqSettings) -> list[str]:
    """Sites that are asked for; of the default ones those that have statistics."""
    sites = [word_of(site, EVERY_SITE, "site") for site in asked or DEFAULT_SITES]
    without = [site for site in sites if not path_of(store, site)]
    if settings.fallback == "nearest" or not without:
        return sites
    if asked is None and len(without) < len(sites):
        return [site for site in sites if site not in without]
    what = f"no second moments and no activations of {', '.join(without)}"
    remedy = f"{_ADD} keeps them; --fallback nearest does without"
    raise MissingError(problem(what, where=str(store.location), remedy=remedy))


def _check_bits(settings: GptqSettings, chosen: Sequence[str]) -> None:
    idle = [site for site in settings.site_bits if site not in chosen]
    if idle:
        what = f"bits are given for {', '.join(idle)}, whose linears are not rounded"
        raise MisuseError(problem(what, found=", ".join(chosen), remedy="choose --sites"))


def _check_sites(model: LoadedModel, known: Mapping[str, Any], found: Sequence[str]) -> None:
    absent = [site for site in known if site not in found]
    if absent:
        what = f"{model.row.name} has no linears at {', '.join(absent)}"
        raise MissingError(problem(what, remedy="choose --sites"))


def _check_place(store: Store, name: str) -> None:
    """Weights of older versions lie in a place of their own, and stay there."""
    if set_folders(store.paths).get(name) == WEIGHTS:
        what = f"the set {name} of this store is of an older version"
        raise TaqError(problem(what, where=str(store.location), remedy="choose another --set"))


def _notes(
    store: Store,
    known: Mapping[str, SiteStatistics],
    settings: GptqSettings,
    asked: Sequence[str] | None,
) -> list[str]:
    paths = [found.path for found in known.values() if found.path]
    notes = nonfinite.notes(store, [p for p in paths if split_group(p)[0] == ACTIVATIONS])
    notes += second_moments.notes(store, [p for p in paths if split_group(p)[0] == SECOND_MOMENTS])
    squares = [s for s, found in known.items() if split_group(found.path)[0] == ACTIVATIONS]
    if squares:
        also = "; --sigma-power does not reach them" if settings.sigma_power else ""
        notes.append(
            f"{', '.join(squares)}: no second moments, squares of inputs alone: rounded to "
            f"nearest{_bounds(settings)}{also}; {_ADD} --resume adds them"
        )
    left = [] if asked is not None else [site for site in DEFAULT_SITES if site not in known]
    if left:
        notes.append(f"{', '.join(left)}: no statistics: left as they are")
    nothing = [site for site, found in known.items() if not found.path]
    if nothing:
        notes.append(f"{', '.join(nothing)}: no statistics: rounded to nearest")
    return notes


def _bounds(settings: GptqSettings) -> str:
    return ", within bounds that weigh them" if settings.clip == "mse" else ""


@dataclass(frozen=True)
class _Job:
    """One run of `gptq`."""

    known: Mapping[str, SiteStatistics]
    settings: GptqSettings
    groups: Mapping[str, GroupWriter]
    outcome: Outcome
    mode: Mode

    def mine(self, places: Sequence[Place]) -> dict[int, list[Place]]:
        """Places of the inputs that this process is to do, by number of the input."""
        every = [list(shared) for _, shared in by_input(places)]
        return {number: every[number] for number in self.mode.mine(range(len(every)))}

    def pending(self, places: Sequence[Place]) -> list[Place]:
        """Those that are this process's and not complete."""
        done = {path: group.written() for path, group in self.groups.items()}
        ours = [place for shared in self.mine(places).values() for place in shared]
        return [place for place in ours if not done[place.path][place.number]]

    def run(self, places: Sequence[Place], called: Call, writer: StoreWriter) -> None:
        """Round what is not complete, input by input."""
        pending, units = self.pending(places), self.mine(places)
        for path in self.groups:
            ours = sum(place.path == path for shared in units.values() for place in shared)
            self.outcome.count(path).skipped += ours - sum(one.path == path for one in pending)
        self.mode.progress.start(sum(len(place.readers) for place in pending))
        left = set(pending)
        run_units(
            {n: shared for n, shared in units.items() if not left.isdisjoint(shared)},
            self._one_input,
            called=called,
            mode=self.mode,
            outcome=self.outcome,
            left_note=self._left_note,
            close=writer.close_flags,
        )

    def _left_note(self, places: Sequence[Place]) -> str:
        layers = dict.fromkeys(f"{p.readers[0].name.layer} {p.given.site}" for p in places)
        return f"{', '.join(layers)}: left to another process that is working on it"

    def plan(self, places: Sequence[Place], writer: StoreWriter) -> Plan:
        """What would be written, and in what time: one linear of each group is rounded."""
        pending = self.pending(places)
        plan = new_plan(writer, LINEARS, sum(len(place.readers) for place in pending))
        ours = [(p.path, p.number) for shared in self.mine(places).values() for p in shared]
        for path, group in self.groups.items():
            count = len(group.written())
            add_group(plan, group, wanted=np.array([(path, i) in ours for i in range(count)]))
        quiet = replace(self, mode=Mode())
        factored, rounded = dict[str, float](), dict[str, float]()
        for place in pending:
            if place.path not in rounded:
                clock = Clock()
                found = self.known[place.given.site].of(place.given, damping=self.settings.damping)
                factored[place.path] = clock.lap()
                quiet._rounded(place.readers[0], found)
                rounded[place.path] = clock.lap()
        seconds = sum(rounded[place.path] * len(place.readers) for place in pending)
        seconds += sum(factored[shared[0].path] for _, shared in by_input(pending))
        if pending:
            timed(plan, seconds, f"{len(rounded)} linears timed")
        return plan

    def _one_input(self, places: Sequence[Place]) -> bool:
        """All linears that read one input: its second moment is factored once.

        False where another process holds one of them.
        """
        with ExitStack() as stack:
            held, left = [], False
            for place in places:
                group = self.groups[place.path]
                if group.complete([(place.number,)]):
                    continue
                claimed = stack.enter_context(group.claim((place.number,)))
                if group.written()[place.number]:  # another process finished it since we looked
                    self.mode.progress.advance(place.readers[0].name.layer, len(place.readers))
                elif claimed:
                    held.append(place)
                else:
                    left = True
            if not held:
                return not left
            given = held[0].given
            found = self.known[given.site].of(given, damping=self.settings.damping)
            if found.prepared.damping > self.settings.damping:
                note = f"{given.layer} {given.site}: damped by {found.prepared.damping:g}"
                self.outcome.notes.append(f"{note}, its second moment was not positive with less")
            for place in held:
                rounded = [self._rounded(reader, found) for reader in place.readers]
                put_layer(
                    self.groups[place.path],
                    place,
                    rounded,
                    block_size=found.block_size,
                    outcome=self.outcome,
                )
            return not left

    def _rounded(self, reader: Reader, found: Known) -> Rounded:
        weight = reader.matrix()
        try:
            grid = self.settings.grid_of(reader.name.site, weight, found.diagonal)
            result = round_weight(weight, found.prepared, grid.nearest)
        except TaqError as error:
            raise type(error)(f"{reader.name.full}: {error}") from None
        self.mode.progress.advance(reader.name.full)
        return Rounded(grid, result)
