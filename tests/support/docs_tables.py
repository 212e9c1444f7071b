"""The tables of the documentation, made from the tables of the code.

Each function gives a table as Markdown. `support.docs_pages` says where they stand.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from taqstore.pipelines.models.table import MODELS
from taqstore.pipelines.sources.table import SOURCES

from taqstore.analysis import ANALYSES, RULES
from taqstore.analysis.shared.option import Option
from taqstore.asked import digits
from taqstore.cli import COMMANDS, cli
from taqstore.cli.talk import TALK_OPTIONS
from taqstore.export.formats import FORMATS
from taqstore.export.pasted.table import PASTES
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.place.remote.schemes import FOLDER, SCHEMES
from taqstore.plot.figures import FIGURES
from taqstore.serve.api.table import ENDPOINTS
from taqstore.serve.http.formats import FORMS


def root_context() -> click.Context:
    """What `taqstore` hands to its commands: commands remember the first one they are shown in."""
    return click.Context(cli, info_name="taqstore", **cli.context_settings)


def command_of(*words: str) -> click.Command:
    """A command or subcommand by its words."""
    found: click.Command = cli
    for word in words:
        assert isinstance(found, click.Group), words
        inner = found.get_command(root_context(), word)
        assert inner is not None, words
        found = inner
    return found


def every_command() -> list[tuple[str, ...]]:
    """Words of every command, and of what is below it."""
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = command_of(name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, word) for word in command.list_commands(root_context())]
    return found


def commands_table() -> str:
    """Markdown: every command with its arguments, its line of help, its options."""
    rows = []
    for name, (_, text) in COMMANDS.items():
        command = command_of(name)
        if isinstance(command, click.Group):
            words = str(command.subcommand_metavar).partition(" [")[0]
            usage, options = f"{name} {words}", "see below"
        else:
            context = click.Context(command, parent=root_context())
            usage = " ".join((name, *command.collect_usage_pieces(context)[1:]))
            options = " ".join(f"`{flags}`" for flags, _ in _options(command))
        rows.append((f"`taqstore {usage}`", text.rstrip("."), options))
    return markdown(("command", "does", "options"), rows)


def shared_options_table() -> str:
    """Markdown: the options that every word of `taqstore analyze` takes that is asked of sites."""
    sites = [word for word, row in ANALYSES.items() if not row.whole]
    shown = [_options(command_of("analyze", word)) for word in sites]
    rows = (
        (f"`{flags}`", text) for flags, text in shown[0] if all((flags, text) in o for o in shown)
    )
    return markdown(("option", ""), rows)


def _options(command: click.Command) -> list[tuple[str, str]]:
    """Options, each by the name that is written first, with their help; not those of all."""
    return [
        ("/".join((p.opts[0], *p.secondary_opts)), p.help or "")
        for p in command.params
        if isinstance(p, click.Option) and p.name not in TALK_OPTIONS
    ]


def formats_table() -> str:
    """Markdown: every format of `taqstore export`."""
    rows = (
        (f"`{name}`", row.doc, _listed(option.flags for option in row.options))
        for name, row in FORMATS.items()
    )
    return markdown(("format", "is", "options"), rows)


def every_option_table() -> str:
    """Markdown: `options_table` of every analysis, one below the other."""
    lines = [(word, line) for word in ANALYSES for line in options_table(word).splitlines()[2:]]
    head = "| analysis | option | values | default | |\n|---|---|---|---|---|\n"
    return head + "".join(f"| `{word}` {line}\n" for word, line in lines)


def rules_table() -> str:
    """Markdown: every clip rule, what it is, needs and takes."""
    rows = ((f"`{name}`", row.doc, row.needs, _listed(row.options)) for name, row in RULES.items())
    return markdown(("rule", "range", "needs", "options"), rows)


def analyses_table() -> str:
    """Markdown: every word of `taqstore analyze`, what it tells, its options."""
    rows = (
        (f"`{word}`", row.doc, _listed(option.flags for option in row.options))
        for word, row in ANALYSES.items()
    )
    return markdown(("`taqstore analyze`", "tells", "options"), rows)


def pastes_table() -> str:
    """Markdown: every text that an analysis gives with `--paste`."""
    rows = (
        (f"`{analysis}`", f"`{word}`", paste.doc, f"`{paste.suffix}`")
        for analysis, texts in PASTES.items()
        for word, paste in texts.items()
    )
    return markdown(("analysis", "`--paste`", "what it is", "file"), rows)


def options_table(word: str) -> str:
    """Markdown: the options of one analysis, with values, defaults and help."""
    rows = (
        (f"`{option.flags}`", _values(option), _default(option), option.text)
        for option in ANALYSES[word].options
    )
    return markdown(("option", "values", "default", ""), rows)


def figure_table() -> str:
    """Every figure with what it shows, the variables it needs and its options, as Markdown."""
    lines = ["| figure | shows | needs | options |", "|---|---|---|---|"]
    for word, row in FIGURES.items():
        needs = " or ".join(", ".join(f"`{name}`" for name in names) for names in row.requires)
        needs = needs or " or ".join(f"groups `{kind}/`" for kind in row.groups)
        options = ", ".join(f"`{name}`" for name in row.options)
        lines.append(f"| `{word}` | {row.doc} | {needs} | {options} |")
    return "\n".join(lines)


def sources_table() -> str:
    """What `ingest` takes: a row per word of `--only`."""
    return markdown(
        ("`--only`", "source", "groups"),
        (
            (f"`{word}`", row.doc, ", ".join(f"`{group}`" for group in row.fills))
            for word, row in SOURCES.items()
        ),
    )


def statistics_sources_table() -> str:
    """Sources of statistics: what `--source` takes, what each holds, what it is preferred for."""
    return markdown(
        ("`--source`", "what it is", "variables", "taken unasked by"),
        (
            (
                f"`{prefix}`",
                row.doc,
                ", ".join(f"`{name}`" for name in row.holds),
                ", ".join(f"{use} ({place // 10})" for use, place in row.places.items()),
            )
            for prefix, row in STATISTICS.items()
        ),
    )


def exporters_table() -> str:
    """What `export` writes."""
    return markdown(
        ("format", "what it is", "options"),
        (
            (
                f"`{name}`",
                row.doc,
                _listed(option.flags for option in row.options),
            )
            for name, row in FORMATS.items()
        ),
    )


def places_table() -> str:
    """Markdown: kinds of addresses, what each is, and what reaches it."""
    rows = [("`runs/run.zarr`", FOLDER.place, "yes", "")]
    for row in SCHEMES:
        names = ", ".join(f"`{name}://`" for name in row.names)
        needs = f"`{row.needs}`" if row.needs else ""
        rows.append((names, f"{row.place}: `{row.example}`", _yes(row.writes), needs))
    rows.append(("`….zip`", "a zip file of a store, on disk or behind any of these", "no", ""))
    rows.append(("others", "what fsspec knows and is installed", "one process at a time", ""))
    return markdown(("address", "place", "written", "reached by"), rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def endpoints_table() -> str:
    """Markdown: every address of `taqstore serve` below `/api`, in which forms it answers.

    What has an address for each word of a command is one row.
    """
    answers = {
        "document": "JSON",
        "tables": ", ".join(f"`.{form.word}`" for form in FORMS),
        "file": "a file",
    }
    rows: dict[str, tuple[str, ...]] = {}
    for row in ENDPOINTS:
        command = next(
            (word for word in ("analyze", "export", "plot") if f"/{word}/" in row.path), ""
        )
        if command:
            path = f"/stores/{{store}}/{command}/…"
            text = f"What `taqstore {command} …` gives, with its options"
        else:
            path, text = row.path, row.doc.rstrip(".")
        rows.setdefault(path, (f"`/api{path}`", text, answers[row.answers]))
    return markdown(("address", "tells", "answers"), rows.values())


def models_table() -> str:
    """What `--model` takes: every model with its weights and its defaults of sampling."""
    rows = (
        (
            f"`{name}`",
            row.doc,
            f"`{row.hub}`",
            row.dtype,
            "x".join(map(str, row.latent_size)),
            f"{row.shift:g}",
            f"{row.cfg_weight:g}" if row.guidance else "none",
        )
        for name, row in MODELS.items()
        if not row.config.startswith("support.")  # tests add rows of their own
    )
    header = ("`--model`", "what it is", "weights", "dtype", "latent", "shift", "guidance")
    return markdown(header, rows)


def markdown(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; bars inside cells are escaped."""
    lines = [header, ("---",) * len(header), *rows]
    cells = ((cell.replace("|", r"\|") for cell in line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _flags(options: Iterable[str]) -> str:
    return _listed(f"--{option.replace('_', '-')}" for option in options)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _values(option: Option) -> str:
    if option.words:
        return _listed(option.words)
    ends = ["" if end is None else digits(end) for end in (option.least, option.most)]
    kind = option.type if isinstance(option.type, str) else option.type.__name__
    return f"{kind} {' to '.join(ends)}".strip() if any(ends) else kind


def _default(option: Option) -> str:
    if option.default in (None, ()):
        return ""
    many = option.default if isinstance(option.default, tuple) else (option.default,)
    return _listed(map(str, many))
