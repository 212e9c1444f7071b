"""Commands as such: help, wiring to the library, exit codes, what is imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from support.cli_runner import Runner
from taqstore import __version__
from taqstore.analysis import FitRule, Thresholds
from taqstore.analysis.table import ANALYSES
from taqstore.cli import COMMANDS, cli
from taqstore.errors import TaqError
from taqstore.export.formats import FORMATS as EXPORTS
from taqstore.plot import FIGURES
from taqstore.run.mode import Mode
from taqstore.run.outcome import Counts, Outcome
from taqstore.run.progress import SILENT

ROOT = Path(__file__).parents[2]
HEAVY = (
    "xarray", "zarr", "dask", "matplotlib", "pandas", "mlx", "numpy", "scipy", "h5py", "pyarrow",
    "jsonschema", "rich",
)  # fmt: skip


def commands() -> dict[str, click.Command]:
    """Every command and subcommand by its words."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            subcommands = {
                sub: command.get_command(context, sub) for sub in command.list_commands(context)
            }
            found |= {f"{name} {sub}": made for sub, made in subcommands.items() if made}
    return found


def test_commands_stand_in_the_order_of_a_days_work() -> None:
    expected = ["ingest", "info", "query", "analyze", "export", "plot", "verify"]
    assert [name for name in COMMANDS if name in expected] == expected
    analyses = ["scales", "shifts", "outliers", "temporal", "tiers", "schedule"]
    assert [n for n in analyses if f"analyze {n}" in commands()] == analyses


@pytest.mark.parametrize("name", ["", *(name for name in commands() if name != "doctor")])
def test_called_bare_it_shows_its_whole_help_or_says_in_one_line_what_is_missing(
    taq: Runner, name: str
) -> None:
    bare = taq(*name.split())
    assert (bare.code, bare.out) == (2, "")
    *usage, last = bare.err.splitlines()
    if last.startswith("Error: Missing "):
        assert [line.split()[0] for line in usage if line] == ["Usage:", "Try"]
    else:
        assert bare.err == taq(*name.split(), "--help").out


def test_where_the_first_word_is_one_of_a_list_the_list_is_shown(taq: Runner) -> None:
    for name, words in (("analyze", ANALYSES), ("export", EXPORTS), ("plot", FIGURES)):
        shown = taq(name).err.splitlines()
        for word in words:
            assert any(line.split()[:1] == [word] for line in shown), (name, word)
        assert not [line for line in shown[1:] if line.endswith("...")]
    assert taq("completion").err.startswith("Usage: taqstore completion")


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_for_itself_and_its_options(taq: Runner, name: str) -> None:
    shown = taq(*name.split(), "--help")
    assert shown.code == 0
    assert shown.err == ""
    assert shown.out.startswith("Usage: taqstore")
    command = commands()[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (name, parameter.name)
            assert parameter.opts[0] in shown.out


def test_version_and_overview(taq: Runner) -> None:
    assert taq("--version").out == f"taqstore, version {__version__}\n"
    shown = taq("--help").out
    assert all(text in " ".join(shown.split()) for _, text in COMMANDS.values())


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ingest", "only-one-argument"],
        ["ingest", "a", "s", "--only", "pictures"],
        ["ingest", "a", "s", "--workers", "0"],
        ["ingest", "a", "s", "--resume", "--force"],
        ["ingest", "a", "s", "--prompts", "/nonexistent"],
        ["query", "s", "latents", "--csv", "--json"],
        ["query", "s"],
        ["analyze", "feelings", "s"],
        ["analyze", "scales", "s", "--bits", "1"],
        ["analyze", "shifts", "s", "--momentum", "1"],
        ["analyze", "scales", "s", "--csv", "-o", "x.nc"],
        ["export", "mp3", "s", "-o", "x"],
        ["export", "quant-config", "s"],
        ["export", "timestep-stats", "s", "-o", "x", "--outliers"],
        ["export", "adaround-cache", "s", "-o", "x", "--multitier"],
        ["plot", "selfie", "s", "-o", "x"],
        ["plot", "range", "s", "-o", "x", "--format", "gif"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_misuse_is_2_and_says_how(taq: Runner, arguments: list[str]) -> None:
    shown = taq(*arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert "Error:" in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "{}/nowhere", "{}/s.zarr"],
        ["info", "{}/nowhere"],
        ["query", "{}/nowhere", "latents"],
        ["analyze", "scales", "{}/nowhere"],
        ["export", "quant-config", "{}/nowhere", "-o", "{}/x.json"],
        ["plot", "range", "{}/nowhere", "-o", "{}/x"],
        ["verify", "{}/nowhere"],
    ],
    ids=" ".join,
)
def test_user_errors_are_1_and_one_line(
    taq: Runner,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    shown = taq(*(argument.format(tmp_path) for argument in arguments))
    assert shown.code == 1
    assert shown.out == ""
    assert shown.err.startswith("taqstore: ")
    assert shown.err.count("\n") == 1
    assert str(tmp_path) in shown.err
    assert list(tmp_path.iterdir()) == []  # and nothing was made on the way


class Recorder:
    """Stands in for a library function and keeps what it was given."""

    def __init__(self, result: Any = None) -> None:
        self.result, self.calls = result, []  # type: ignore[var-annotated]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return self.result


def test_ingest_options_reach_the_library(
    taq: Runner,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("a\n")
    summary = Outcome({"latents": Counts(1)}, ["a note"], ["bad.npz: x: NaN; mend"])
    library = Recorder(summary)
    monkeypatch.setattr("taqstore.pipelines.ingest.ingest", library)
    shown = taq("ingest", "a", "b", "s", "--only", "latents", "--only", "blocks", "--resume",
                "--strict", "--workers", "3", "--prompts", prompts, "--set", "theirs")  # fmt: skip
    ((args, kwargs),) = library.calls
    assert args == (("a", "b"), "s")
    mode = kwargs.pop("mode")
    assert replace(mode, progress=SILENT) == Mode(resume=True, wait=3600.0)
    assert kwargs == {
        "only": ("latents", "blocks"),
        "strict": True,
        "workers": 3,
        "prompts": str(prompts),
        "set": "theirs",
    }
    assert shown.code == 1  # the summary lists a problem
    assert shown.out.splitlines()[1].split()[:2] == ["latents", "1"]
    assert "refused: bad.npz: x: NaN; mend" in shown.err
    assert "note: a note" in shown.err


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["scales"], {"bits": 8, "symmetric": True, "clip": "absmax", "per": "tensor",
                      "narrow_range": False}),
        (["scales", "--bits", "4", "--affine", "--clip", "percentile", "--percentile", "99"],
         {"bits": 4, "symmetric": False, "clip": "percentile", "percentile": 99.0}),
        (["scales", "--clip", "percentile"], {"clip": "percentile", "percentile": 99.9}),
        (["scales", "--per", "channel", "--narrow-range", "--clip", "ema", "--order", "1,0"],
         {"per": "channel", "narrow_range": True, "momentum": 0.99, "order": (1, 0)}),
        (["shifts", "--momentum", "0.5"], {"momentum": 0.5}),
        (["outliers", "--threshold", "3", "--at-step", "6", "--top-fraction", "0.1"],
         {"threshold": 3.0, "step": 6, "top_fraction": 0.1}),
        (["temporal"], {}),
        (["tiers", "--a4", "2", "--clip", "p999"], {"thresholds": Thresholds(a4=2.0),
                                                    "clip": "hist_p999"}),
        (["schedule", "--rule", "poly", "--cubic-gain", "0.2"],
         {"rule": "poly", "fit": FitRule(cubic_gain=0.2, quartic_gain=0.1)}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_analyze_options_reach_the_library(
    taq: Runner,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    options: dict[str, Any],
) -> None:
    library, by_layers = Recorder({}), Recorder()
    monkeypatch.setattr(import_module("taqstore.query.analyze"), "analyze", library)
    monkeypatch.setattr("taqstore.query.by_layers.told", by_layers)
    monkeypatch.setattr(
        "taqstore.together.opening.open_store", lambda address, **ways: f"opened {address}"
    )
    shown = taq("analyze", arguments[0], "s", *arguments[1:], "--source", "pooled/x", "--site",
                "mlp.fc2", "--layer", "mm*", "--step", "0:9:3", "--batch", "2")  # fmt: skip
    assert shown.code == 0, shown.err
    ((args, kwargs),) = library.calls
    assert args == (arguments[0], "opened s")
    if ANALYSES[arguments[0]].by_layer:  # this way was asked first, for the same
        (((*asked, _), alike),) = by_layers.calls
        assert alike.pop("check").__name__ == "check_rows"
        assert (*asked, {**alike, "other": None}) == (*args, kwargs)
    else:
        assert by_layers.calls == []
    assert kwargs.pop("source") == "pooled/x"
    assert kwargs.pop("sites") == ("mlp.fc2",)
    assert kwargs.pop("selection") == {"layer": "mm*", "step": "0:9:3", "batch": "2"}
    assert options.items() <= kwargs.items()


@pytest.mark.parametrize(
    ("arguments", "name", "options"),
    [
        (["quant-config", "--clip", "p999", "--outliers"], "quant-config",
         {"clip": "hist_p999", "outliers": True}),
        (["poly-schedule", "--clip", "ema", "--momentum", "0.5", "--cuts", "static"],
         "poly-schedule", {"clip": "ema", "momentum": 0.5, "cuts": "static"}),
        (["quant-config", "--multitier"], "quant-config-multitier", {}),
        (["temporal-analysis", "--multitier", "--source", "pooled/x"],
         "temporal-analysis-multitier", {"source": "pooled/x"}),
        (["timestep-stats", "--source", "pooled/activation_stats_v1"], "timestep-stats",
         {"source": "pooled/activation_stats_v1"}),
        (["adaround-cache"], "adaround-cache", {}),
    ],
)  # fmt: skip
def test_export_options_reach_the_library(
    taq: Runner,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    name: str,
    options: dict[str, Any],
) -> None:
    from taqstore.files.written import Summary as Written

    library = Recorder(Written(Path("out"), 3, 1500, ("a note",)))
    monkeypatch.setattr("taqstore.export.formats.export", library)
    monkeypatch.setattr(
        "taqstore.together.opening.open_store", lambda address, **ways: f"opened {address}"
    )
    shown = taq("export", arguments[0], "s", "-o", "out", "--force", *arguments[1:])
    assert shown.code == 0, shown.err
    assert library.calls == [((name, "opened s", Path("out")), {"force": True, **options})]
    assert shown.out == ""
    assert shown.err == "wrote out, 1.5 kB in 3 files\nnote: a note\n"


def test_plot_options_reach_the_library(
    taq: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = Recorder(([Path("out/a.png"), Path("out/a.csv")], ["passed over"]))
    monkeypatch.setattr("taqstore.plot.draw.draw", library)
    monkeypatch.setattr(
        "taqstore.together.opening.open_store", lambda address, **ways: f"opened {address}"
    )
    for kind in (word for word, row in FIGURES.items() if not row.needs):
        shown = taq("plot", kind, "s", "-o", "out", "--layer", "mm0*", "--layer", "uni1", "--group",
                    "pooled/x/mlp.fc2", "--format", "svg", "--format", "png")  # fmt: skip
        assert (shown.code, shown.out, shown.err) == (0, "out/a.png\nout/a.csv\n",
                                                      "note: passed over\n")  # fmt: skip
        args, kwargs = library.calls.pop()
        assert args == (kind, "opened s", Path("out"))
        assert kwargs == {
            "group": "pooled/x/mlp.fc2",
            "layers": ("mm0*", "uni1"),
            "formats": ("svg", "png"),
            "processes": True,
        }


def test_a_module_of_ours_that_cannot_be_imported_is_a_bug(
    taq: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ImportError("cannot import name", name="taqstore.plot.render")

    monkeypatch.setattr("taqstore.plot.draw.draw", broken)
    monkeypatch.setattr("taqstore.together.opening.open_store", lambda address, **ways: address)
    with pytest.raises(ImportError):
        taq("plot", "range", "s", "-o", "out")


def test_a_bug_keeps_its_traceback(taq: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("taqstore.upkeep.verify.verify_store", broken)
    with pytest.raises(ZeroDivisionError):
        taq("verify", "s")
    assert not issubclass(ZeroDivisionError, TaqError)


def imported_by(code: str) -> set[str]:
    """Packages and `taqstore` rooms that a fresh interpreter has loaded after running `code`."""
    program = (
        f"{code}\nimport sys\nfor name in sys.modules:\n"
        "    first, _, rest = name.partition('.')\n"
        "    full = f\"taqstore.{rest.partition('.')[0]}\" if first == 'taqstore' else first\n"
        "    print(full, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "words", [["--help"], ["analyze", "--help"], ["analyze", "scales", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    loaded = imported_by(f"import taqstore.cli\ntry: taqstore.cli.cli({words})\n"
                         "except SystemExit: pass")  # fmt: skip
    assert "click" in loaded
    assert not loaded & {*HEAVY, "taqstore.pipelines"}


def test_names_and_errors_import_nothing_heavy() -> None:
    assert not imported_by("import taqstore, taqstore.names, taqstore.errors") & {*HEAVY, "click"}


def test_reading_never_imports_a_model_or_a_plotter() -> None:
    modules = ("store.reader", "query.select", "query.analyze", "export.formats")
    code = "import " + ", ".join(f"taqstore.{module}" for module in modules)
    loaded = imported_by(code)
    assert "xarray" in loaded
    assert not loaded & {"mlx", "matplotlib", "diffusionkit", "taqstore.pipelines"}
    assert not imported_by("import taqstore.pipelines.ingest") & {"mlx", "matplotlib", "pandas"}
