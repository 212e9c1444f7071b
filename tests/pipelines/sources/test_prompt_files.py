"""Prompt files of every kind: each prompt whole and in its place, or the line named."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.sources.parts.prompt_files import read_prompts

from support.source_runs import one_line
from taqstore.errors import SourceError

TWO = ("a cat, big", "ein „Hund“ 犬")
# Characters at which `str.splitlines` ends a line and a file does not.
NO_ENDS = ("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
ENCODINGS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
SAVED = {
    ".txt": "{0}{end}{1}{last}",
    ".csv": 'prompt{end}"{0}"{end}{1}{last}',
}

# What a file holds -> its prompts, and what is said of it (nothing: "").
TAKEN: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "blank line": (".txt", "a\n\nb\n", ("a", "b"), "line 2 blank"),
    "blank lines": (".txt", "\n \n\ta\n\n\t\nb\n\n\n", ("\ta", "b"), "line 1, 2, 4, 5 blank"),
    "spaces kept": (".txt", " a \n", (" a ",), ""),
    "quotes kept": (".txt", '"a", b\n\'c\'\n"\n', ('"a", b', "'c'", '"'), ""),
    "twice": (".txt", "a\na\n", ("a", "a"), ""),
    "no end": (".txt", "a\nb", ("a", "b"), ""),
    "mixed ends": (".txt", "a\r\nb\nc", ("a", "b", "c"), ""),
    "commas are text": (".txt", "prompt,x\na,b\n", ("prompt,x", "a,b"), ""),
    "csv quotes": (".csv", 'prompt\n"a ""b"", c"\n', ('a "b", c',), ""),
    "csv inner quote": (".csv", 'prompt\n5" pipe\n', ('5" pipe',), ""),
    "csv semicolons": (".csv", "id;prompt\n7;a, b\n", ("a, b",), "columns not read: id"),
    "csv tabs": (".csv", "prompt\tseed\na, b\t3\n", ("a, b",), "columns not read: seed"),
    "csv heading": (".csv", ' Prompt ,x\n"a",1\n', ("a",), "columns not read: x"),
    "csv many lines": (".csv", 'prompt\n"a\nb"\nc\n', ("a\nb", "c"), "lines 2 to 3 are one row"),
    "csv blank lines": (".csv", "\nprompt\na\n\nb\n\n", ("a", "b"), "line 1, 4 blank"),
    "csv ids": (".csv", "image_id,prompt\n0,a\n1,b\n", ("a", "b"), ""),
    "csv ids moved": (".csv", "image_id,prompt\n1,b\n0,a\n", ("a", "b"), "order of image_id"),
    "csv spilled": (".csv", "prompt,seed\na cat, big\nb,3\n", ("a cat", "b"), "seed"),
    "csv other ids": (".csv", "image_id,prompt\n9,a\n4,b\n", ("a", "b"), "runs from 4 to 9"),
}  # fmt: skip

# What a file holds that cannot be taken -> the line that is named (0: none), and the words.
REFUSED: dict[str, tuple[str, bytes, int, str]] = {
    "empty": (".txt", b"", 0, "empty"),
    "blank": (".txt", b"\n\n  \n", 0, "empty"),
    "a mark alone": (".txt", codecs.BOM_UTF8, 0, "prompts are needed"),
    "zero": (".txt", b"a\nb\0c\n", 2, "zero character"),
    "utf-16 without a mark": (".txt", "a\nb\n".encode("utf-16-le"), 1, "UTF-16"),
    "latin-1": (".txt", "a\nb\nMünchen\n".encode("latin-1"), 3, "not utf-8"),
    "half a character": (".txt", codecs.BOM_UTF16_LE + b"a\0\n", 0, "not utf-16-le"),
    "a lone return": (".txt", b"a\nb\rc\n", 2, "carriage return"),
    "two returns": (".txt", b"a\r\nb\r\r\n", 2, "carriage return"),
    "json": (".json", b'["a"]', 0, "not a .txt or .csv"),
    "a picture": (".txt", b"\x89PNG\r\n\x1a\n\0\0\xff", 0, "PNG"),
    "gzip": (".txt", b"\x1f\x8b\x08\0\0\0\0\0", 0, "gzip"),
    "csv heading alone": (".csv", b"prompt\n", 0, "prompts are needed"),
    "csv without the column": (".csv", b"id,text\n1,a\n", 1, "no prompt column"),
    "csv column twice": (".csv", b"prompt,prompt\na,b\n", 1, "twice"),
    "csv too many": (".csv", b"prompt\na\nb, c\n", 3, "2 columns"),
    "csv too few": (".csv", b"prompt,x\na,1\nb\n", 3, "1 columns"),
    "csv empty cell": (".csv", b"prompt,x\na,1\n,2\n", 3, "without a prompt"),
    "csv quoted nothing": (".csv", b'prompt,x\n"",1\n', 2, "without a prompt"),
    "csv quoted nothing, alone": (".csv", b'prompt\na\n""\nb\n', 3, "without a prompt"),
    "csv quoted blank, alone": (".csv", b'prompt\na\n" "\nb\n', 3, "without a prompt"),
    "csv quoted line, alone": (".csv", b'prompt\na\n"\n"\nb\n', 3, "without a prompt"),
    "csv quoted nothing, ids": (".csv", b'image_id,prompt\n0,a\n""\n1,b\n', 3, "1 columns"),
    "csv long": (".csv", b"prompt\na\n" + b"b" * 200_000, 3, "too long"),
    "two files in one": (".txt", "a\n\ufeffb\n".encode(), 2, "byte order mark"),
    "csv open quote": (".csv", b'prompt\na\n"b\nc\n', 3, "do not close"),
    "csv open quote, closed later": (".csv", b'prompt\n"a\nb\nc "d"\n', 2, "do not close"),
    "csv text after a quote": (".csv", b'prompt\n"a" b\n', 2, "do not close"),
    "csv quote after a space": (".csv", b'x,prompt\n1, "a"\n', 2, "after a space"),
    "csv id missing": (".csv", b"image_id,prompt\n0,a\n,b\n", 3, "no number"),
    "csv id twice": (".csv", b"image_id,prompt\n0,a\n1,b\n0,c\n", 4, "line 2 too"),
    "csv id of words": (".csv", b"image_id,prompt\none,a\n", 2, "no number"),
    "csv id below 0": (".csv", b"image_id,prompt\n-1,a\n", 2, "no number"),
    "csv id a fraction": (".csv", b"image_id,prompt\n0.5,a\n", 2, "no number"),
    "a web page": (".csv", b"<!DOCTYPE html><html></html>", 1, "web page"),
    "a pointer": (".csv", b"version https://git-lfs.github.com/spec/v1\noid x\n", 1, "Git LFS"),
}  # fmt: skip


def _encoding(name: str) -> str:
    return name.split(" ")[0]


@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", SAVED)
def test_prompts_are_the_same_however_they_were_saved(
    suffix: str, encoding: str, end: str, last: bool, tmp_path: Path
) -> None:
    text = SAVED[suffix].format(*TWO, end=end, last=end if last else "")
    path = tmp_path / f"p{suffix}"
    path.write_bytes(ENCODINGS[encoding] + text.encode(_encoding(encoding)))
    found = read_prompts(path, count=2)
    assert found.texts == TWO
    assert found.notes == ()


@pytest.mark.parametrize("suffix", SAVED)
@pytest.mark.parametrize("character", NO_ENDS, ids=[f"{ord(c):04x}" for c in NO_ENDS])
def test_nothing_but_a_line_end_ends_a_line(suffix: str, character: str, tmp_path: Path) -> None:
    path = tmp_path / f"p{suffix}"
    texts = [f"a{character}b", f"{character}c", f"d{character}"]
    lines = [*(["prompt"] if suffix == ".csv" else []), *texts]
    path.write_bytes("\n".join(lines).encode())
    assert list(read_prompts(path, count=3).texts) == texts


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str, tmp_path: Path) -> None:
    suffix, text, prompts, says = TAKEN[name]
    path = tmp_path / f"p{suffix}"
    path.write_bytes(text.encode())
    found = read_prompts(path)
    assert found.texts == prompts
    assert bool(found.notes) == bool(says)
    assert all(says in note for note in found.notes)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_its_line(name: str, tmp_path: Path) -> None:
    suffix, raw, line, says = REFUSED[name]
    path = tmp_path / f"p{suffix}"
    path.write_bytes(raw)
    with pytest.raises(SourceError) as error:
        read_prompts(path)
    text = one_line(str(error.value))
    assert says in text
    assert not line or f"{path}: line {line}: " in text


def test_a_count_that_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("one\n")
    with pytest.raises(SourceError, match="2 prompts are needed"):
        read_prompts(path, count=2)
    for missing in (tmp_path / "none.txt", tmp_path / "folder.txt"):
        if missing.stem == "folder":
            missing.mkdir()
        with pytest.raises(SourceError, match="cannot be read"):
            read_prompts(missing)


def test_any_text_comes_back_or_is_refused(tmp_path: Path) -> None:
    """Random texts saved as a spreadsheet saves them: equal, or refused; never something else."""
    rng = np.random.default_rng(11)
    pieces = np.array(['"', ",", ";", "\t", " ", "a", "é", "\n", "\r", "\u2028", "\x0c", "''", "b"])
    for number in range(200):
        texts = ["".join(rng.choice(pieces, rng.integers(1, 9))) for _ in range(3)]
        quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
        path = tmp_path / f"{number}.csv"
        path.write_bytes("\r\n".join(["prompt", *quoted, ""]).encode())
        try:
            found = read_prompts(path, count=3).texts
        except SourceError:
            assert any("\r" in text or not text.strip() for text in texts), texts
        else:
            assert list(found) == texts
