"""Files around the code agree with it and with each other."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from support.lowest import bound, constraints, requirements
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


def test_lowest_versions_are_those_of_the_project(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        "[project]\ndependencies = ['numpy>=2.0', 'regex', 'zarr<4,>=3.1.1']\n"
        "[project.optional-dependencies]\n"
        "a = [\"mlx[cpu]>=0.29.3; sys_platform == 'linux'\", 'taqstore[b]']\nb = ['numpy>=2.0']\n"
    )
    expected = ['mlx==0.29.3; sys_platform == "linux"', "numpy==2.0", "zarr==3.1.1"]
    assert constraints(project) == expected
    assert {"numpy", "zarr"} <= {line.partition("==")[0] for line in constraints()}


def imported(folder: str) -> Iterator[str]:
    """Top-level names that the files of a folder import, wherever they do."""
    for path in Path(__file__).parents[2].joinpath(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.partition(".")[0]


def test_whatever_the_library_imports_is_required_with_a_bound() -> None:
    """A package that another one happens to bring has no bound, and may be gone tomorrow."""
    project = tomllib.loads(read_page("pyproject.toml"))["project"]
    always = {Requirement(text).name: Requirement(text) for text in project["dependencies"]}
    assert all(bound(requirement) for requirement in always.values())
    known = {r.name.replace("-", "_").lower() for r in requirements()} | {"taqstore"}
    distributions = packages_distributions()
    outside = set(imported("taqstore")) - set(sys.stdlib_module_names)
    for name in sorted(outside):
        owners = {owner.replace("-", "_").lower() for owner in distributions.get(name, [name])}
        assert owners & known, f"{name} is imported and not required"
