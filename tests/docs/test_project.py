"""Files around the code agree with it and with each other."""

from __future__ import annotations

import re
import tomllib

import yaml

from support.pages import read_page
from taqstore import __version__


def test_citation_and_changelog_know_the_version() -> None:
    citation = yaml.safe_load(read_page("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    releases = re.findall(r"^## \[(.+)\]$", read_page("CHANGELOG.md"), re.M)
    assert releases[:2] == ["Unreleased", __version__]


def test_the_citation_says_what_the_package_says() -> None:
    project = tomllib.loads(read_page("pyproject.toml"))["project"]
    citation = yaml.safe_load(read_page("CITATION.cff"))
    assert citation["title"] == project["name"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    assert citation["keywords"] == project["keywords"]
    assert "urls" not in project  # until there are any


def test_a_commit_is_checked_as_make_test_checks() -> None:
    makefile = read_page("Makefile")
    (needed,) = re.findall(r"^test: ([\w ]+?) *##", makefile, re.M)
    config = yaml.safe_load(read_page(".pre-commit-config.yaml"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [hook["entry"].split()[-1] for hook in hooks] == needed.split()[:-1]
    assert needed.split()[-1] == "unit"
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)
    assert all(name in makefile for name in ("/ruff check", "/ruff format --check", "/codespell"))


def test_a_source_archive_holds_every_page() -> None:
    included = tomllib.loads(read_page("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]
    names = included["sdist"]["include"]
    pages = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "docs", "schemas")
    assert set(pages) <= set(names)
