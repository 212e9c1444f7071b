"""Every command of the page on gates and sensitivities runs, one after another, at a small size."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from taqstore.pipelines.models.reference import digit_prompts

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.pages import fenced, read_page

PAGE = "docs/good-enough.md"
SMALL = {"--num-images": "4", "--steps": "3", "--seeds": "2", "--protect": "2"}
# Of which linears the page measures all.
LINEARS = ("--targets", "mm0.img.attn.*")


def commands() -> list[list[str]]:
    lines = [
        line for text in fenced(PAGE) for line in re.findall(r"^\$ taqstore (.*)$", text, re.M)
    ]
    return [shlex.split(line) for line in lines]


def small(words: list[str]) -> list[str]:
    """The command with its numbers made small."""
    pairs = zip(["", *words], words, strict=False)
    found = [SMALL.get(before, word) for before, word in pairs]
    of_linears = words[0] == "sensitivity" and "--unit" not in words
    return [*found, *LINEARS] if of_linears else found


@needs_models
def test_every_command_of_the_page_runs(
    taq: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("\n".join(digit_prompts(4, seed=0)), encoding="utf-8")
    ran = set()
    for words in commands():
        done = taq(*small(words))
        ran.add(" ".join(words[:2]) if words[0] == "analyze" else words[0])
        # Inputs of three bits fail the gate, as the page says.
        failed = words[0] == "gate" and "gptq/a3-static" in words
        assert done.code == int(failed), (words, done.err)
    assert {"gate", "sensitivity", "analyze ranks", "analyze frontier", "analyze policy"} <= ran
    assert {"analyze enough", "analyze overflow", "report"} <= ran
    for name in ("record.json", "allocation.json", "policy.json", "report.html"):
        assert Path(name).stat().st_size > 100
    shown = set(re.findall(r"examples/(\w+)\.png", read_page(PAGE)))
    drawn = {path.stem.partition("_")[0] for path in Path("plots").glob("*.png")}
    assert shown <= drawn
    text = Path("report.html").read_text(encoding="utf-8")
    assert "gptq/a3-static" in text
