"""Findings of a store, put together as one page of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import jinja2

from taqstore.analysis.shared.widths import halfway
from taqstore.errors import MisuseError, problem
from taqstore.query.sites import choose_source
from taqstore.report import costs, questions
from taqstore.report.advice import bit_widths, time_groups
from taqstore.report.artist import artist, one_at_a_time
from taqstore.report.explorer import Explorer
from taqstore.report.findings import Findings, Plan, gather, of_channels, of_steps
from taqstore.report.overview import overview
from taqstore.report.page import Section
from taqstore.report.reading import groups_of, statistics_of
from taqstore.store.given import handed
from taqstore.store.reader import Store
from taqstore.version import __version__

BITS = (8, 6, 4)
BUDGET = halfway(BITS)
_FOLDER = Path(__file__).parent
_LIMITS = (
    "Errors are expected squared errors of rounding and clipping each tensor by itself, worked out "
    "from its histogram. How they add up over the layers of a model, and what they do to an image, "
    "needs runs of the quantized model.",
    "A layer is the input of a linear: one stream of one block at one site. q, k and v read one "
    "tensor and are counted once where their statistics are the same.",
    "SQNR is 10 log10(mean(x²) / error) in dB; means over layers and steps are means of error / "
    "mean(x²). The verdict is yes from half of the layers on, in part below, no at none.",
    "Weights are not part of this page: a width such as A4 is that of activations.",
)
_POOLED = (
    "The statistics arrived reduced over images: nothing here depends on single batches, and "
    "extrema that were averaged lie inside the true ones."
)


@handed
def build(
    store: Store,
    *,
    source: str | None = None,
    bits: Sequence[int] = BITS,
    budget: float | None = None,
    groups: int | None = None,
    pictures: bool = True,
    explorer: str | None = None,
    notes: list[str] | None = None,
    processes: bool = False,
) -> str:
    """Make the report of a store as one HTML page that needs nothing else.

    Parameters
    ----------
    store
        Open for reading.
    source
        Group prefix that the numbers come from, ``activations`` or ``pooled/<source>``; by default
        what analyses prefer of what the store has.
    bits
        Bit widths to price and to choose from, 2 to 16.
    budget
        Average bits of the recommended allocation; by default that of `halfway`, which no one
        width meets (`BUDGET` for `BITS`).
    groups
        Number of time groups to recommend; by default the least that costs at most
        `findings.GROUPS_TOLERANCE` more than a range for every step.
    pictures
        Whether to draw figures, which take most of the time. The page is made without those that
        cannot be drawn, and says so.
    explorer
        Address that `taqstore serve` printed for a server that has the store: figures, sections and
        linears then link to their views there. The page asks nothing of it by itself.
    notes
        Is given a line for each section whose figures could not be drawn.
    processes
        Whether a process of its own may draw, where the store lies on a local disk, is so large
        that imports are the smaller part, and there are two cores. It takes 200 MB beside those of
        this one; the page is the same.

    Returns
    -------
    str
        The page; the same store and options give the same text.

    Raises
    ------
    MissingError
        The store holds no activation statistics, or not those of `source`.
    MisuseError
        `explorer` is no address of http or https.
    TaqError
        Options that make no sense for these statistics.
    """
    told = [] if notes is None else notes
    if store.remote:  # a file is fetched once, not anew for every block of layers
        store = store.blocks()
    plan = _plan(store, source, bits, budget, groups)
    name = store.location.name
    links = None if explorer is None else Explorer.at(explorer, store=name, bits=plan.bits[-1])
    mine = statistics_of(store, plan.source)
    with artist(store, mine, plan, pictures=pictures, processes=processes) as hand:
        held = groups_of(store, plan.source)
        # Pictures are drawn while what is left is read: NumPy lets go of the interpreter then.
        steps = of_steps(held, plan)
        groups_of_steps = hand.draw(time_groups(steps, plan), steps)
        findings = gather(held, plan, steps)
        first = [hand.draw(section, findings) for section in _sections(findings, plan)]
        with one_at_a_time(store):
            every = of_channels(findings, held, plan)
        del held  # all of it has been asked
        channels = [hand.draw(section, every) for section in _channel_sections(every, plan)]
        worst, configurations, widths = first
        last = hand.judge()
        asked = *channels, worst, configurations, groups_of_steps, widths, last
        made = [one.result() for one in asked]
    told += [note for section, notes in made for note in notes]
    return _render(
        overview=overview(store, mine, plan),
        sections=[section for section, _ in made],
        limits=(*_LIMITS, *(() if plan.observed else (_POOLED,))),
        explorer=links,
        version=__version__,
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
    )


def _plan(
    store: Store,
    source: str | None,
    bits: Sequence[int],
    budget: float | None,
    groups: int | None,
) -> Plan:
    widths = tuple(sorted({int(width) for width in bits}, reverse=True))
    if not widths or not all(2 <= width <= 16 for width in widths):
        found = ", ".join(map(str, bits)) or "none"
        raise MisuseError(problem("bit widths are 2 to 16", found=found))
    budget = halfway(widths) if budget is None else budget
    if not budget >= widths[-1]:
        what = f"a budget of {budget:g} bits is less than the smallest width"
        raise MisuseError(problem(what, found=str(widths[-1])))
    return Plan(choose_source(store, source), widths, float(budget), groups)


def _sections(findings: Findings, plan: Plan) -> Iterator[Section]:
    yield costs.worst(findings, plan)
    yield costs.configurations(findings, plan)
    yield bit_widths(findings, plan)


def _channel_sections(findings: Findings, plan: Plan) -> Iterator[Section]:
    yield questions.asymmetry(findings)
    yield questions.drift(findings, plan)
    yield questions.outliers(findings)


def _render(**content: object) -> str:
    """Fill the template; every text is escaped, drawings and the style sheet are ours."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja").render(**content)
