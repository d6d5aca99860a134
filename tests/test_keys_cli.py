"""The commands of `whence keys`: a key on standard output this once, the rest as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from index.state import State
from service.auth import ApiKey, KeyStore
from service.cli import main
from service.settings import Settings


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of the output, parsed as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Keys = Callable[..., Result]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Keys:
    """Run a command of `whence keys` in a home of its own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WHENCE_{name.upper()}", raising=False)
    monkeypatch.setenv("WHENCE_HOME", str(tmp_path / "home"))

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["whence", "keys", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


def found(home: Path, token: str) -> ApiKey | None:
    with State(home) as state, closing(KeyStore(state)) as store:
        return store.find(token)


def test_a_new_key_is_printed_alone_so_that_a_script_can_keep_it(keys: Keys, tmp_path: Path) -> None:
    result = keys("create", "--name", "docs site")
    assert result.code == 0
    key = found(tmp_path / "home", result.out.removesuffix("\n"))
    assert key is not None
    assert (key.name, key.scope.value, key.origins, key.rate, key.expires) == ("docs site", "ask", (), None, None)
    assert result.err == f"The key {key.id} (docs site) is shown only now:\n"


def test_a_key_gets_what_the_options_say(keys: Keys, tmp_path: Path) -> None:
    options = ("--origin", "https://Docs.example.com", "--origin", "http://localhost:3000", "--rate", "60/min")
    result = keys("create", "--name", "page", *options, "--expires", "2127-01-01", "--json", "--home", tmp_path)
    (record,) = result.records
    key = found(tmp_path, record.pop("key"))
    assert key is not None
    assert record == {
        "id": key.id,
        "name": "page",
        "scope": "ask",
        "origins": ["https://docs.example.com", "http://localhost:3000"],
        "rate": "60/min",
        "created": key.created.isoformat(),
        "expires": "2127-01-01T00:00:00+00:00",
        "revoked": None,
        "status": "active",
    }
    assert (result.code, result.err) == (0, "")
    assert keys("create", "--name", "program", "--scope", "admin", "--json").records[0]["scope"] == "admin"


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("30d", 720), ("8w", 1344)])
def test_a_key_can_be_valid_for_a_while(keys: Keys, text: str, hours: int) -> None:
    (record,) = keys("create", "--name", "a", "--expires", text, "--json").records
    created, expires = (datetime.fromisoformat(record[name]) for name in ("created", "expires"))
    assert expires - created == timedelta(hours=hours)
    assert abs(datetime.now(UTC) - created) < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("text", "expires"),
    [("2127-06-01T12:30", "2127-06-01T12:30:00+00:00"), ("2127-06-01T12:30+02:00", "2127-06-01T10:30:00+00:00")],
)
def test_a_key_can_be_valid_until_a_moment(keys: Keys, text: str, expires: str) -> None:
    assert keys("create", "--name", "a", "--expires", text, "--json").records[0]["expires"] == expires


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "often"), "'often' is not a rate"),
        (("--origin", "docs.example.com"), "'docs.example.com' is not an origin"),
        (("--origin", "https://docs.example.com", "--scope", "write"), "it can have the scope ask, not write"),
        (("--expires", "soon"), "'soon' is no time"),
        (("--expires", "0001-01-01T00:00+14:00"), "is no time"),
        (("--expires", "2020-01-01"), "would have expired at 2020-01-01"),
        (("--scope", "everything"), "'everything' is not one of"),
        (("--name", ""), "The name ''"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(keys: Keys, options: tuple[str, ...], message: str) -> None:
    result = keys("create", "--name", "a", *options)
    assert (result.code, result.out) == (2, "")
    assert message in " ".join(result.err.replace("│", " ").split())
    assert keys("list", "--json").out == ""


def test_a_key_needs_a_name(keys: Keys) -> None:
    result = keys("create")
    assert result.code == 2
    assert "--name" in result.err


def test_a_list_tells_everything_but_the_secrets(keys: Keys) -> None:
    first = keys("create", "--name", "first", "--rate", "5/s").out.strip()
    second = keys("create", "--name", "second", "--scope", "write", "--expires", "30d").out.strip()
    ids = [token.split("_")[1] for token in (first, second)]
    keys("revoke", ids[0])
    records = keys("list", "--json").records
    assert {record["id"]: (record["name"], record["scope"], record["status"]) for record in records} == {
        ids[0]: ("first", "ask", "revoked"),
        ids[1]: ("second", "write", "active"),
    }
    table = keys("list").out
    header, *lines = table.splitlines()
    assert header.split()[:4] == ["id", "name", "scope", "status"]
    assert {tuple(line.split()[:4]) for line in lines} == {
        (ids[0], "first", "ask", "revoked"),
        (ids[1], "second", "write", "active"),
    }
    for secret in (token.rpartition("_")[2] for token in (first, second)):
        assert secret not in table + json.dumps(records)


def test_a_revoked_key_is_no_key_any_more(keys: Keys, tmp_path: Path) -> None:
    token = keys("create", "--name", "docs site").out.strip()
    key_id = token.split("_")[1]
    assert keys("revoke", key_id).out == f"Revoked {key_id} (docs site).\n"
    assert found(tmp_path / "home", token) is None
    assert keys("revoke", key_id, "--json").records[0]["status"] == "revoked"


def test_an_unknown_key_cannot_be_revoked(keys: Keys) -> None:
    result = keys("revoke", "00ff00")
    assert (result.code, result.out) == (1, "")
    assert result.err == "whence: There is no key 00ff00. List them: whence keys list\n"


def test_a_state_that_cannot_be_read_is_an_error_and_no_wrong_usage(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "state.sqlite").write_text("something else, and as long as a header of a database is" * 9)
    result = keys("create", "--name", "a")
    assert result.code == 1
    assert "state.sqlite cannot be used" in result.err
