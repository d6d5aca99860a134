"""The README tells every command, setting, error and format, and the versions agree."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from index import errors
from index.readers.formats import FORMATS
from service.app import create_app
from service.cli import app
from service.problems import CODES
from service.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command_names(app: typer.Typer) -> Iterator[str]:
    """Yield the commands of an application, those of its groups as `group command`."""
    for command in app.registered_commands:
        if command.callback is not None:
            yield command.name or command.callback.__name__
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from (f"{group.name} {name}" for name in command_names(group.typer_instance))


COMMANDS = sorted(command_names(app))
ERRORS = sorted(
    name
    for name, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.WhenceError) and error is not errors.WhenceError
)
# How curl is told a method.
CALLED_BY = {
    "get": r"(?!.*(?:-X|--json|-T|-F)).*",
    "post": r"(?=.*(?:-X POST|--json|-F))(?!.*-X (?:PUT|DELETE))",
    "put": r"(?=.*(?:-X PUT|-T))",
    "delete": r"(?=.*-X DELETE)",
}
# How the README calls a format that it does not call by its own name.
FORMAT_NAMES = {
    "code": "source code",
    "rst": "reStructuredText",
    "jsonl": "JSON Lines",
    "notebook": "Jupyter notebooks",
    "mail": "EML",
    "vtt": "WebVTT",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_tells_every_command(command: str) -> None:
    assert f"| `whence {command}" in README


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_readme_tells_every_setting(name: str) -> None:
    assert f"| `WHENCE_{name.upper()}` |" in README


@pytest.mark.parametrize("name", ERRORS)
def test_the_readme_tells_every_error(name: str) -> None:
    assert f"| `{name}` |" in README


@pytest.mark.parametrize("name", [form.name for form in FORMATS])
def test_the_readme_tells_every_format(name: str) -> None:
    assert FORMAT_NAMES.get(name, name).casefold() in README.casefold()


def test_files_that_the_readme_names_are_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_changelog_and_the_package_tell_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[1:2] in ([], [project["version"]])


@pytest.mark.parametrize("code", sorted(CODES))
def test_the_readme_tells_every_code_of_a_problem(code: str) -> None:
    assert f"`{code}`" in README


def test_the_readme_shows_how_to_call_every_route(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path))
    calls = "\n".join(line for line in README.splitlines() if line.startswith("curl "))
    for path, item in app.openapi()["paths"].items():
        for method in item:
            address = re.escape(path)
            for part in re.findall(r"\\\{\w+\\\}", address):
                address = address.replace(part, r"[\w./-]+?")
            told = rf"(?m)^curl {CALLED_BY[method]}.*\$WHENCE{address}(?=[\s\"?]|$)"
            assert re.search(told, calls), f"{method} {path}"
    app.state.services.state.close()
