"""The documents promise what there is, and leave nothing out."""

from __future__ import annotations

import ast
import pathlib
import re
from importlib import import_module

import click
import pytest

import pysplash
from pysplash.cli.commands import HOMES, cli
from pysplash.cli.options import GROUPS
from pysplash.control.model import Reason, WorkerState

ROOT = pathlib.Path(__file__).parents[2]
REFERENCE = (ROOT / "doc" / "reference.md").read_text()
CONTEXT = click.Context(cli)
COMMANDS = {name: cli.get_command(CONTEXT, name) for name in cli.list_commands(CONTEXT)}
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted([ROOT / "README.md", CONTRIBUTING, *(ROOT / "doc").rglob("*.md")])
PACKAGE = ROOT / "pysplash"
PACKAGES = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
#: characters of a line, but for a table's row, which cannot be wrapped
WIDTH = 120
OPTIONS = [option for _, options in GROUPS for option in options]
#: flags of other programs that the documents mention
FOREIGN = {
    "--num-workers",
    "--worker-class",
    "--jobs",
    "--items",
    "--seed",
    "--server",
    "--signals",
    "--troubles",
    "--against",
    "--workers",
    "--idle",
    "--runs",
    "--seconds",
    "--quick",
    "--calls",
    "--cores",
    "--scenario",
    "--pictures",
    "--memsuspend",
    "--strict",
}


def test_every_command_is_at_home() -> None:
    """The command line has the commands that are written, each by its name."""
    written = {
        command.name: module
        for module in {*HOMES.values()}
        for command in vars(import_module(f"pysplash.cli.{module}")).values()
        if isinstance(command, click.Command)
    }
    assert written == HOMES
    assert [command.name for command in COMMANDS.values() if command] == [*COMMANDS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_the_reference_has_every_flag(option: object) -> None:
    """Each flag stands in the reference with its twin in the environment."""
    for flag in [*option.opts, *option.secondary_opts]:  # type: ignore[attr-defined]
        assert f"`{flag}" in REFERENCE or f"{flag}`" in REFERENCE, flag
    assert f"`{option.envvar}`" in REFERENCE  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_flag_that_is_not_there(page: pathlib.Path) -> None:
    """A flag in a document is a flag of some command."""
    known = {
        flag
        for command in COMMANDS.values()
        if command is not None
        for parameter in command.params
        for flag in [*parameter.opts, *parameter.secondary_opts]
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", page.read_text()))

    assert named - known - FOREIGN - {"--help", "--version"} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    """Every relative link and picture exists."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_lines_are_short(page: pathlib.Path) -> None:
    """No line is longer than 120 characters, but for tables."""
    lines = [line for line in page.read_text().splitlines() if not line.lstrip().startswith("|")]

    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_pages_name_exist(page: pathlib.Path) -> None:
    """A path of a module is one from the root of the repository, or of the package."""
    named = set(re.findall(r"(?:[\w.-]+/)+\w+\.py\b", page.read_text()))
    places = (ROOT, PACKAGE, page.parent)

    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_tree_of_the_package_is_shown() -> None:
    """CONTRIBUTING has every entry of the package, and of each package its first sentence."""
    tree = re.search(r"^pysplash/\n(.*?)^```", CONTRIBUTING.read_text(), re.MULTILINE | re.DOTALL)
    assert tree is not None
    shown = dict(line.split(maxsplit=1) for line in tree[1].splitlines())
    sentences = {f"{path.name}/": first_line(path / "__init__.py") for path in PACKAGES}

    assert {*shown} == {*sentences, *(path.name for path in PACKAGE.glob("*.py"))}
    assert {name: shown[name] for name in sentences} == sentences


def first_line(module: pathlib.Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]


def test_every_package_has_its_row() -> None:
    """The page on the internals says of each package what it does."""
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "doc" / "internals.md").read_text(), re.MULTILINE)

    assert sorted(rows) == [path.name for path in PACKAGES]


def test_every_public_name_is_in_the_reference() -> None:
    """What `import pysplash` offers is described."""
    names = set(pysplash.__all__) - {"__version__"}

    assert sorted(name for name in names if f"`{name}" not in REFERENCE) == []


def test_every_word_of_the_record_is_explained() -> None:
    """Reasons and states in a record can be looked up."""
    glossary = (ROOT / "doc" / "glossary.md").read_text() + REFERENCE

    assert [word.value for word in [*Reason, *WorkerState] if f"`{word}`" not in glossary] == []


def test_the_changelog_knows_this_version() -> None:
    """Version and changelog move together."""
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert first is not None
    assert first[1] == pysplash.__version__
