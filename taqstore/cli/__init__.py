"""The command line: a table of commands, each loaded when it is called.

Nothing but click is imported here, so that `taqstore --help` is instant. `pipelines` is named in
this file and nowhere else in the library.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import click

from taqstore.asked import nearest
from taqstore.cli.talk import TALK, begin, end, talk_options
from taqstore.cli.words import WordGroup
from taqstore.errors import DEBUG, LONGEST, MisuseError, TaqError, printable, problem
from taqstore.version import __version__

# In the order of a day's work: fill, look, ask, analyse, hand on, draw, check.
COMMANDS: dict[str, tuple[str, str]] = {
    "generate": (
        "taqstore.cli.generate",
        "Sample images with a model; keep the latent of every step.",
    ),
    "cache": ("taqstore.cli.cache", "Keep residual streams at block boundaries (weight track)."),
    "collect": (
        "taqstore.cli.collect",
        "Keep statistics of every linear's input (activation track).",
    ),
    "adaround": (
        "taqstore.cli.adaround",
        "Round weights block by block, so that cached outputs change least.",
    ),
    "gptq": (
        "taqstore.cli.gptq",
        "Round weights from the second moments of their inputs; runs no model.",
    ),
    "evaluate": (
        "taqstore.cli.evaluate",
        "Sample quantized in several ways; say what each costs.",
    ),
    "gate": (
        "taqstore.cli.gate",
        "Pass or fail variants by their trajectories beside the model's own.",
    ),
    "sensitivity": (
        "taqstore.cli.sensitivity",
        "Quantize one linear, block, site or step at a time; keep what it does.",
    ),
    "profile": ("taqstore.cli.profile", "Post-GELU diagnostics in one go: table and figures."),
    "ingest": (
        "taqstore.cli.ingest",
        "Bring run folders and files of the old scripts into a store.",
    ),
    "plan": (
        "taqstore.cli.plan",
        "Make the groups of a run once, before several processes fill them.",
    ),
    "info": ("taqstore.cli.info", "Show what a store holds and how much of it is written."),
    "query": ("taqstore.cli.query", "Slice and reduce a group; print it or write it to a file."),
    "analyze": (
        "taqstore.cli.analyze",
        "Scales, shifts, outliers, temporal drift, tiers, schedules.",
    ),
    "diff": ("taqstore.cli.diff", "Compare two stores: biggest movers first."),
    "merge": ("taqstore.cli.merge", "Make several runs of one configuration one store."),
    "pull": ("taqstore.cli.pull", "Bring chosen parts of a store to another address, compared."),
    "push": ("taqstore.cli.push", "The same, as one says it where the store is."),
    "export": ("taqstore.cli.export", "Write configs and files in other tools' formats."),
    "plot": ("taqstore.cli.plot", "Draw the diagnostic figures, with their numbers as CSV."),
    "report": ("taqstore.cli.report", "Write one HTML page of findings, costs and advice."),
    "serve": ("taqstore.cli.serve", "Serve stores over HTTP: Zarr, JSON, a page to look at."),
    "verify": ("taqstore.cli.verify", "Check that everything is what was written."),
    "repair": ("taqstore.cli.repair", "Mend what verify names; unflag what is lost."),
    "upgrade": ("taqstore.cli.upgrade", "Bring a store of an older format to this one, in place."),
    "completion": (
        "taqstore.cli.completion",
        "Print the script that completes words by TAB in bash, zsh or fish.",
    ),
    "doctor": ("taqstore.cli.doctor", "Say what this machine has, what is missing, what is slow."),
}
SOURCES_TABLE = "taqstore.pipelines.sources.table"
MODELS_TABLE = "taqstore.pipelines.models.table"
INGEST_PIPELINE = "taqstore.pipelines.ingest"
GENERATE_PIPELINE = "taqstore.pipelines.generate"
CACHE_PIPELINE = "taqstore.pipelines.cache"
CACHE_PLAN = "taqstore.pipelines.cache_plan"
COLLECT_PIPELINE = "taqstore.pipelines.collect.collect"
ADAROUND_PIPELINE = "taqstore.pipelines.adaround.adaround"
GPTQ_PIPELINE = "taqstore.pipelines.gptq.gptq"
GPTQ_SETTINGS = "taqstore.pipelines.gptq.settings"
GPTQ_ERRORS = "taqstore.pipelines.gptq.site_errors"
VARIANT_NAMES = "taqstore.pipelines.evaluate.variants"
EVALUATE_PIPELINE = "taqstore.pipelines.evaluate.evaluate"
GATE_PIPELINE = "taqstore.pipelines.gate.gate"
SENSITIVITY_PIPELINE = "taqstore.pipelines.sensitivity.sensitivity"
DOCTOR_PIPELINE = "taqstore.pipelines.doctor"
PROFILE_PIPELINE = "taqstore.pipelines.profile"
MODEL_WEIGHTS = "taqstore.pipelines.run.model_weights"
CLUSTER = "taqstore.pipelines.tasks.cluster"
BASE_WEIGHTS = "taqstore.pipelines.run.base_weights"


# Commands whose first word is one of many, which may be taken for a command itself.
_OF_WORDS = ("analyze", "export", "plot")


class LazyGroup(WordGroup):
    """A group that knows its commands' names and help, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names in workflow order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def elsewhere(self, word: str) -> str:
        """The command below which a word is one: `analyze scales` of `scales`."""
        for name in _OF_WORDS:
            command = import_module(COMMANDS[name][0]).command
            known = (
                command.list_commands(click.Context(command))
                if isinstance(command, click.Group)
                else command.params[0].type.choices
            )
            if word in known:
                return f"did you mean taqstore {name} {word}?"
        return ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands with their help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    params=talk_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="taqstore")
def cli() -> None:
    """Keep the calibration data of diffusion transformers in one store.

    Fill a store once, then slice it, analyse it and export configs from it, without running the
    model again. Data goes to stdout, talk and progress to stderr.
    """


def main() -> None:
    """Entry point: errors of ours are one line and exit code 1, misuse is 2."""
    if "_TAQSTORE_COMPLETE" in os.environ:
        import_module("taqstore.cli.shells").register()
    begin()
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("taqstore: stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            error.possibilities = _options_meant(error)  # type: ignore[misc]
        if not isinstance(error, click.exceptions.NoArgsIsHelpError):  # a page, not a line
            error.message = printable(error.message, longest=LONGEST // 2)  # type: ignore[misc]
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except TaqError as error:
        _refuse(str(error), code=2 if isinstance(error, MisuseError) else 1)
    except BrokenPipeError:
        # `taqstore query … | head`: the reader has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        _refuse(problem("not enough memory", remedy="ask for less of the store at once"))
    except KeyError as error:
        # xarray's words for what a group of another maker may lack.
        found = str(error.args[0]) if error.args else ""
        if not found.startswith("No variable named"):
            raise
        remedy = "see taqstore info"
        _refuse(problem("the store lacks what this needs", found=found, remedy=remedy))
    except OSError as error:
        # The machine refuses, not the program: a bug has no number of an error of the system.
        if error.errno is None:
            raise
        _refuse(problem(error.strerror or str(error), where=str(error.filename or "")))
    finally:
        end()


def _options_meant(error: click.NoSuchOption) -> list[str] | None:
    """The option that was meant, earlier spellings left out; `-layer` means `--layer`."""
    typed = error.option_name
    if not typed.startswith("--"):  # of -layer click says -l
        typed = next((word for word in sys.argv[1:] if word.startswith(typed)), typed)
    every = error.ctx.command.params if error.ctx else []
    params = [param for param in every if isinstance(param, click.Option)]
    known = [word for param in params for word in (*param.opts, *param.secondary_opts)]
    near = nearest(typed.partition("=")[0].lstrip("-"), [word.lstrip("-") for word in known])
    return [f"--{near}"] if near else None


def _refuse(text: str, *, code: int = 1) -> NoReturn:
    if TALK.verbose or os.environ.get(DEBUG):
        traceback.print_exc()
    click.echo(printable(f"taqstore: {text}"), err=True)
    sys.exit(code)
