"""The documents promise what there is, and leave nothing out."""

from __future__ import annotations

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
PAGES = sorted([ROOT / "README.md", *(ROOT / "doc").rglob("*.md")])
OPTIONS = [option for _, options in GROUPS for option in options]
#: flags of other programs that the documents mention
FOREIGN = {
    "--num-workers",
    "--worker-class",
    "--jobs",
    "--items",
    "--seed",
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
