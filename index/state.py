"""The state of a home: everything in it that is not derived from documents, in `state.sqlite`.

Each module that keeps something there brings its own tables. The file is written ahead (WAL) and flushed with every
commit: what a transaction has said is there after a power cut. Several processes may use it at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from index.errors import StateError

STATE = "state.sqlite"
STATE_VERSION = 0  # SQLite's own number for who made the tables; raised when an older version would misread them
BUSY_S = 10.0


class State:
    """An open `state.sqlite`; its methods may be called from any thread.

    Args:
        home: folder of the home; made when it is not there.

    Raises:
        StateError: the file cannot be opened, is no database, or a newer version of Whence has made it.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / STATE
        self._writing, self._reading = threading.RLock(), threading.RLock()
        with self._errors():
            home.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)  # it holds what is nobody else's business
            self._refuse_newer()
            # What is deleted is overwritten, so that it is in no free page either.
            self._writer = self._connected("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON")
            # A connection of its own: who reads does not wait while another process writes.
            self._reader = self._connected("query_only = ON")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, *statements: str) -> None:
        """Run `CREATE ... IF NOT EXISTS` statements.

        Raises:
            StateError: the file cannot be written.
        """
        with self.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection within a transaction: all of what is done in the block is kept, or nothing of it.

        Rows come as `sqlite3.Row`.

        Raises:
            StateError: the file cannot be read or written; nothing was changed.
        """
        with self._writing, self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for reading only; another process may write meanwhile.

        Raises:
            StateError: the file cannot be read.
        """
        with self._reading, self._errors():
            yield self._reader

    def truncate_log(self) -> bool:
        """Move what was written ahead into the file itself, so that nothing deleted is left beside it.

        Returns:
            False when somebody else went on reading or writing for so long that it was left to the next time.

        Raises:
            StateError: the file cannot be written.
        """
        with self._writing, self._errors():
            (is_busy, _, _) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not is_busy

    def close(self) -> None:
        """Close the file."""
        with self._reading:
            self._reader.close()
        with self._writing:
            self._writer.close()

    def _refuse_newer(self) -> None:
        with closing(self._connected()) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > STATE_VERSION:
            raise StateError(
                f"{self.path} has format version {version}, this version of Whence reads {STATE_VERSION}. Use the "
                "version that wrote it, or another home: --home PATH"
            )

    def _connected(self, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.DatabaseError, OSError) as exc:
            raise StateError(
                f"{self.path} cannot be used: {exc}. Nothing was changed. Make room, check the permissions, or if "
                "the file is damaged move it away and restore it from a backup."
            ) from exc
