"""What an option says of itself is what is refused, in the library and on the command line."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import xarray as xr

from support.cli_runner import Runner
from support.statistics_synthetic import activations, observed
from taqstore.analysis import ANALYSES, FitRule, Thresholds, scales
from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.shared.option import Option
from taqstore.errors import MisuseError
from taqstore.export import FORMATS, export
from taqstore.query import analyze

Given = list[tuple[Option, Any]]
TABLES = [("analyze", word, row.options) for word, row in ANALYSES.items()]
TABLES += [("export", name, row.options) for name, row in FORMATS.items()]


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc2", activations("mlp.fc2", layers=2), mantissa_bits=1)


ROWS = [
    pytest.param(command, word, option, id=f"{command} {word} {option.name}")
    for command, word, options in TABLES
    for option in options
]


def other_word(options: tuple[Option, ...], option: Option) -> tuple[Option, Any] | None:
    """A value of the option that this one goes with, with which it does not go."""
    assert option.when is not None
    (other,) = (row for row in options if row.name == option.when.option)
    words = (False,) if other.type is bool else other.words
    left = [word for word in words if word not in option.when.known]
    return (other, left[0]) if left else None


def spelled(option: Option, value: Any) -> list[str]:
    if option.type is bool:
        return [option.spellings[0 if value else -1]]
    texts = value if option.many else (value,)
    return [text for one in texts for text in (option.spellings[0], _text(one))]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def some_value(option: Option) -> Any:
    """A value that an option may have by itself."""
    if option.type is bool:
        return True
    if option.words and option.type != "integers":
        return option.words[-1]
    least = 0 if option.least is None else option.least
    value: Any = (
        int(least) + 1 if option.type in (int, "integers") else least + (option.most or 2) / 4
    )
    return (value,) if option.many or option.type == "integers" else value


def refused(taq: Runner, command: str, word: str, given: Given) -> str:
    """Refuse options of a command and of the library; the line that the command says."""
    flags = [text for option, value in given for text in spelled(option, value)]
    target = ["-o", "nowhere/out"] if command == "export" else []
    second = command == "analyze" and ANALYSES[word].second
    shown = taq(command, word, "nowhere.zarr", *["other.zarr"] * second, *target, *flags)
    assert shown.code == 2, (flags, shown.err)
    plain = {option.name: value for option, value in given}
    ask = partial(export, word, {}, "nowhere/out", **plain)
    with pytest.raises(MisuseError):
        (ask if command == "export" else partial(_library, word, given))()
    return str(shown.err)


def _library(word: str, given: Given) -> None:
    """The function itself, or the class that holds the option."""
    data = observed("mlp.fc2", activations("mlp.fc2", layers=2), mantissa_bits=1)
    held = {option.name: value for option, value in given if option.bundle}
    plain = {option.name: value for option, value in given if not option.bundle}
    made = {"fit": FitRule, "thresholds": Thresholds}
    for option, _ in given:
        if option.bundle:
            plain[option.bundle] = made[option.bundle](**held)  # type: ignore[arg-type]
    row = ANALYSES[word]
    stores = [{"activations/mlp.fc2": data}] * (1 + row.second) if row.whole else [data]
    row.load()(*stores, **plain)


@pytest.mark.parametrize(("command", "word", "option"), ROWS)
def test_an_option_that_is_not_used_is_refused(
    taq: Runner, command: str, word: str, option: Option
) -> None:
    options = next(row for kind, name, row in TABLES if (kind, name) == (command, word))
    if option.when is None or option.when.option not in {row.name for row in options}:
        return
    pair = other_word(options, option)
    assert pair is not None, "it would go with every word: it needs no condition"
    other, unfit = pair
    said = refused(taq, command, word, [(other, unfit), (option, some_value(option))])
    assert option.spellings[0] in said
    if other.default is not None and other.default not in option.when.known:
        refused(taq, command, word, [(option, some_value(option))])


@pytest.mark.parametrize(("command", "word", "option"), ROWS)
def test_numbers_have_a_range(taq: Runner, command: str, word: str, option: Option) -> None:
    if option.type not in (int, float):
        return
    assert option.least is not None, "every number has its range"
    fitting: Given = []
    options = next(row for kind, name, row in TABLES if (kind, name) == (command, word))
    if option.when and option.when.option in {row.name for row in options}:
        (other,) = (row for row in options if row.name == option.when.option)
        fitting = [(other, option.when.known[0])]
    beyond = [option.least, *([option.most] if option.most is not None else [])]
    for end, outward, closed in zip(beyond, (-1, 1), (option.above, option.below), strict=False):
        if end is None:
            continue
        bad = end if closed else end + outward
        value: Any = int(bad) if option.type is int else float(bad)
        refused(taq, command, word, [*fitting, (option, (value,) if option.many else value)])
    if option.type is float:
        for strange in (float("nan"), float("inf")):
            value = (strange,) if option.many else strange
            refused(taq, command, word, [*fitting, (option, value)])


@pytest.mark.parametrize(("command", "word", "option"), ROWS)
def test_words_are_of_their_list(taq: Runner, command: str, word: str, option: Option) -> None:
    if option.type is str and option.words:
        refused(taq, command, word, [(option, "nonsense")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 60.0}, "percentile goes with clip percentile or mean_percentile, not with"),
        ({"percentile": 99.9}, "not with absmax"),
        ({"momentum": 0.5, "clip": "mse"}, "momentum goes with clip ema, not with mse"),
        ({"bits": 8.0}, "bits must be an integer"),
        ({"bits": True}, "bits must be an integer"),
        ({"clip": "percentile", "percentile": "99"}, "percentile must be a number"),
        ({"clip": "percentile_"}, "did you mean percentile"),
        ({"cuts": 4}, "cuts must be several numbers"),
        ({"cuts": "dynamic"}, "cuts 'dynamic' is not known"),
        ({"symmetric": "no"}, r"symmetric must be True or False \(found 'no'\)"),
        ({"narrow_range": True, "symmetric": False}, "does not go with symmetric=False"),
        ({"per": "group"}, "per group needs group_size"),
        ({"per": "channel", "clip": "mse"}, "per channel does not go with mse"),
    ],
)
def test_the_library_says_which(group: xr.Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        scales(group, **options)


def test_what_is_no_collection_is_refused(group: xr.Dataset) -> None:
    with pytest.raises(MisuseError, match=r"sigma_edges must be several numbers \(found 0.3\)"):
        ANALYSES["groups"].load()(group, method="sigma", sigma_edges=0.3)


def test_none_is_the_default(group: xr.Dataset) -> None:
    for option in ANALYSES["scales"].options:
        assert scales(group, **{option.name: None}).identical(scales(group)), option.name


def test_the_ends_of_a_range_are_told_to_the_last_digit(group: xr.Dataset) -> None:
    with pytest.raises(MisuseError, match=r"seed must be 0 to 4294967295 \(found 4294967296\)"):
        ANALYSES["order"].load()(group, seed=1 << 32)


def test_what_applies_has_its_default(group: xr.Dataset) -> None:
    assert scales(group, clip="percentile").attrs["percentile"] == 99.9
    assert scales(group, clip="ema").attrs["momentum"] == 0.99
    assert "percentile" not in scales(group).attrs
    assert Clip("ema").momentum == 0.99
    assert Clip("absmax").percentile is None


def test_options_of_no_analysis_are_refused(group: xr.Dataset) -> None:
    with pytest.raises(MisuseError, match=r"scales takes no count; .*bits, symmetric"):
        analyze("scales", {"activations/mlp.fc2": group}, count=3)
    with pytest.raises(MisuseError, match=r"scales takes no site; did you mean sites\?"):
        analyze("scales", {"activations/mlp.fc2": group}, site="mlp.fc2")
    with pytest.raises(MisuseError, match="analysis 'scale' is not known; did you mean scales"):
        analyze("scale", {"activations/mlp.fc2": group})


def test_thresholds_are_in_order() -> None:
    with pytest.raises(MisuseError, match=r"a4 must not be above a6 \(found 10.* and 5"):
        Thresholds(a4=10, a6=5)
    with pytest.raises(MisuseError, match="shifted_a4 must not be above shifted_a6"):
        Thresholds(shifted_a4=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"constant_below": 5, "quadratic_below": 2}, "constant_below must not be above quadratic"),
        ({"max_degree": 3, "quartic_gain": 0.2}, "quartic_gain is of degree 4"),
        ({"max_degree": 2, "cubic_gain": 0.2}, "cubic_gain is of degree 3"),
    ],
)
def test_rules_of_fits_leave_no_number_without_effect(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MisuseError, match=message):
        FitRule(**options)
    assert FitRule(constant_below=2, quadratic_below=5, max_degree=3, cubic_gain=0.2)
    assert FitRule(constant_below=2)
