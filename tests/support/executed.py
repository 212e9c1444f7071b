"""The code of the written pages, as it is run: which blocks there are, where and at what size.

Rules for a page:

* ``<!-- runs on: live -->`` stands before its first block. It names the folder that blocks run in
  from there on (`support.executed_folders`); each is made once a page, so a page may go back to it.
* A fenced block without language, or of ``console``, whose lines begin with ``$ `` is a session:
  those lines are run in order, others are what is shown. What is shown may come from a larger run:
  numbers are not compared, words of lines without numbers are.
* A block of ``python`` is run; all of a page share one namespace.
* ``taqstore serve STORES OPTIONS`` begins a server that goes on to the end of the page. It has a
  port of its own: ``127.0.0.1:8765`` stands for it in what follows.
* ``<!-- exits: 1 0 -->`` before a session gives the exit codes of its commands where one is not 0.
* ``<!-- not run: WHY -->`` before a block leaves it out.
* A block of ``text`` or ``json`` is nothing to run; JSON is read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from support.pages import read_page

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_REMARK = re.compile(r"<!-- (runs on|not run|exits): (.*?) -->", re.S)
_SESSION = ("", "console")
# Numbers that a page may have larger than a test has time for.
SMALL = {
    "--num-images": 4, "--steps": 4, "--seeds": 2, "--protect": 2, "--iterations": 5,
    "--batch-size": 4, "--digits": 4, "--held-out": 2, "--num-samples": 4,
}  # fmt: skip
# The same of defaults: an option that a command is given, unless it has it, or one of the others.
NARROWED = (
    ("generate", "--steps", "4", ()),
    ("collect", "--stride", "1", ()),
    ("collect", "--sites", "attn.qkv,attn.o_proj,mlp.fc1,mlp.fc2", ("--resume",)),
    ("adaround", "--iterations", "5", ()),
    ("evaluate", "--images", "0,1", ("--held-out",)),
    ("evaluate", "--stride", "4", ()),
    ("gate", "--seeds", "2", ()),
    ("sensitivity", "--seeds", "1", ()),
    (
        "sensitivity",
        "--targets",
        "mm0.img.attn.*",
        ("step", "block", "site", "--sites", "--blocks"),
    ),
)
LAST_IMAGE = 3
# The same of programs that are not `taqstore`.
OTHERS_NARROWED = {"reference finetune ": "--steps 1"}
# Without a line of a shell's own, a command is run in this process.
_SHELL = re.compile(r"[|<>;&$`]|^(?!taqstore )")


class PageError(AssertionError):
    """A page breaks a rule, or what it shows is not what happens."""


@dataclass(frozen=True)
class Command:
    """One line of a session.

    Parameters
    ----------
    text
        As it is typed, continued lines joined.
    shown
        Lines that the page shows below it.
    code
        Exit code.
    """

    text: str
    shown: tuple[str, ...] = ()
    code: int = 0

    @property
    def of_shell(self) -> bool:
        """Whether it takes a shell: another program, a pipe, a redirection."""
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", self.text)
        return bool(_SHELL.search(bare))

    @property
    def serves(self) -> bool:
        """Whether it begins a server, which goes on while the page does."""
        return self.text.startswith("taqstore serve ")

    @property
    def served(self) -> tuple[list[str], list[str]]:
        """Stores and options of a server; those that name a port or open a browser are left out."""
        words = shlex.split(self.text, comments=True)[2:]
        first = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
        options = [word for word in words[first:] if word not in ("--open", "&")]
        ports = [n for n, word in enumerate(options) if word == "--port"]
        gone = {*ports, *(n + 1 for n in ports)}
        return words[:first], [word for n, word in enumerate(options) if n not in gone]

    @property
    def for_shell(self) -> str:
        """The line as a shell gets it, numbers made small."""
        added = [more for part, more in OTHERS_NARROWED.items() if part in self.text]
        return " ".join([self.text, *added])

    @property
    def words(self) -> list[str]:
        """What follows `taqstore`, numbers made small."""
        return small(shlex.split(self.text, comments=True)[1:])


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Parameters
    ----------
    page, line
        Where it stands.
    language
        After the fence.
    text
        What is inside.
    folder
        In which folder it runs; empty where the page did not say.
    skipped
        Why it is not run; empty: it is.
    codes
        Exit codes of its commands; empty: all 0.
    """

    page: str
    line: int
    language: str
    text: str
    folder: str
    skipped: str = ""
    codes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_session(self) -> bool:
        """Whether it has commands to type."""
        return self.language in _SESSION and self.text.lstrip().startswith("$ ")

    def commands(self) -> list[Command]:
        """The lines of a session that are run, with what is shown below each."""
        parts = re.split(r"^\$ ", self.text.replace("\\\n", " "), flags=re.M)[1:]
        codes = self.codes or (0,) * len(parts)
        if len(codes) != len(parts):
            raise PageError(f"{self}: {len(codes)} exit codes of {len(parts)} commands")
        lines = [part.strip().split("\n") for part in parts]
        return [
            Command(one[0], tuple(one[1:]), code) for one, code in zip(lines, codes, strict=True)
        ]


def blocks(page: str) -> Iterator[Block]:
    """Every fenced block of a page, in order.

    Raises
    ------
    PageError
        A block is neither run nor left out with a reason.
    """
    yield from blocks_of(page, read_page(page))


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The same of a text."""
    folder, end = "", 0
    for found in _FENCE.finditer(text):
        before = text[end : found.start()]
        end = found.end()
        remarks = [
            (m[1], " ".join(m[2].split()), before[m.end() :]) for m in _REMARK.finditer(before)
        ]
        folder = next((what for word, what, _ in reversed(remarks) if word == "runs on"), folder)
        own = {word: what for word, what, after in remarks if not _REMARK.sub("", after).strip()}
        block = Block(
            page=page,
            line=text[: found.start()].count("\n") + 1,
            language=found[2],
            text=re.sub(rf"^{found[1]}", "", found[3], flags=re.M),
            folder=folder,
            skipped=own.get("not run", ""),
            codes=tuple(map(int, own.get("exits", "").split())),
        )
        _check(block)
        yield block


def _check(block: Block) -> None:
    if block.skipped or block.language in ("text", "json"):
        return
    if not (block.is_session or block.language == "python"):
        raise PageError(f"{block}: neither a session nor Python, and no `not run: WHY` before it")
    if not block.folder:
        raise PageError(f"{block}: no `runs on: FOLDER` before it")


def small(words: list[str]) -> list[str]:
    """A command with its numbers no larger than a test has time for."""
    pairs = zip(["", *words], words, strict=False)
    found = [_least(before, word) for before, word in pairs]
    for command, option, value, others in NARROWED:
        if words[0] == command and not {option, *others} & set(found):
            found += [option, value]
    return found


def _least(option: str, word: str) -> str:
    most = SMALL.get(option)
    if option == "--images":
        return re.sub(r"\d+", lambda found: str(min(LAST_IMAGE, int(found[0]))), word)
    return str(min(most, int(word))) if most is not None and word.isdecimal() else word


def missing_words(shown: tuple[str, ...], printed: str) -> list[str]:
    """Lines without numbers that a page shows and a command did not print; spaces do not count."""
    have = {" ".join(line.split()) for line in printed.splitlines()}
    lines = (" ".join(line.split()) for line in shown)
    return [
        line
        for line in lines
        if line and line != "..." and not re.search(r"\d", line) and line not in have
    ]
