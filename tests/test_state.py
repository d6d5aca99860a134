"""The state of a home is kept in transactions, by several threads and processes, and says when it cannot be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from index.errors import StateError
from index.state import State

TABLE = "CREATE TABLE IF NOT EXISTS notes (text TEXT PRIMARY KEY)"
ADDING = """
import sys
from pathlib import Path
from index.state import State
with State(Path(sys.argv[1])) as state:
    for number in range(50):
        with state.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES (?)", (f"{sys.argv[2]} {number}",))
"""


def texts(state: State) -> list[str]:
    """Read all notes."""
    with state.reading() as connection:
        return [row["text"] for row in connection.execute("SELECT text FROM notes ORDER BY text")]


def test_what_a_transaction_said_is_there_after_opening_again(tmp_path: Path) -> None:
    with State(tmp_path / "home") as state:
        state.create(TABLE)
        with state.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('kept')")
    with State(tmp_path / "home") as state:
        state.create(TABLE)
        assert texts(state) == ["kept"]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        state.create(TABLE)
        with pytest.raises(KeyError), state.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('half')")
            raise KeyError
        with pytest.raises(sqlite3.IntegrityError), state.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('twice')")
            connection.execute("INSERT INTO notes VALUES ('twice')")
        assert texts(state) == []


def test_threads_and_processes_write_side_by_side(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    with State(tmp_path) as state:
        state.create(TABLE)
        others = [
            subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path), name], cwd=root) for name in ("one", "two")
        ]

        def add(number: int) -> None:
            with state.transaction() as connection:
                connection.execute("INSERT INTO notes VALUES (?)", (f"here {number}",))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(50)))
        assert [other.wait(timeout=30) for other in others] == [0, 0]
        expected = [f"{name} {number}" for name in ("here", "one", "two") for number in range(50)]
        assert texts(state) == sorted(expected)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        state.create(TABLE)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["state.sqlite", "state.sqlite-shm", "state.sqlite-wal"], 0o600)


def test_what_was_deleted_is_in_no_byte_of_the_file(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        state.create(TABLE)
        with state.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('a most peculiar word')")
        with state.transaction() as connection:
            connection.execute("DELETE FROM notes")
    assert b"peculiar" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be taken for one" * 20, None])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / "state.sqlite").mkdir()
    else:
        (tmp_path / "state.sqlite").write_bytes(content)
    with pytest.raises(StateError, match=r"state\.sqlite cannot be used: .* Nothing was changed"):
        State(tmp_path)


def test_a_home_that_cannot_be_made_is_named() -> None:
    with pytest.raises(StateError, match="cannot be used"):
        State(Path("/proc/whence"))
