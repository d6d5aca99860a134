"""How often something may be done: counters that all processes of a service share, in `HOME/rates.sqlite`.

The file is kept apart from the state of the home: a count may be lost in a power cut, and no backup carries it.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from index.errors import StateError, WhenceError

RATES = "rates.sqlite"
BUSY_S = 5.0
CLOCK_S = 60.0  # that clocks of processes, and what they read of them before they wait for the file, may differ
MAX_AMOUNT = 1_000_000_000

_RATE = re.compile(r"([0-9]{1,10})/(?:(s|sec|second)|(min|minute)|(h|hour)|(d|day))", re.ASCII)
_UNITS = ("second", "minute", "hour", "day")
_CREATE = """
CREATE TABLE IF NOT EXISTS windows (
    name TEXT PRIMARY KEY,
    hits INTEGER NOT NULL,
    ends REAL NOT NULL
) STRICT
"""
_CREATE_INDEX = "CREATE INDEX IF NOT EXISTS windows_by_end ON windows (ends)"
# One statement, so that no hit is missed when several processes count; the first one after a window opens the next.
# A window that ends too late to have begun was opened before the clock was set back, and is over as well: else a key
# would be held back for as long as the clock was wrong.
_IS_OVER = "ends <= :now OR ends > :latest"
_HIT = f"""
INSERT INTO windows (name, hits, ends) VALUES (:name, :amount, :now + :seconds)
ON CONFLICT (name) DO UPDATE SET
    hits = CASE WHEN {_IS_OVER} THEN :amount ELSE hits + :amount END,
    ends = CASE WHEN {_IS_OVER} THEN excluded.ends ELSE ends END
RETURNING hits
"""  # noqa: S608 (constants)


@dataclass(frozen=True)
class Allowance:
    """What is left of a rate after a hit.

    Attributes:
        is_exceeded: whether this hit was one too many.
        limit: hits allowed in a window.
        remaining: hits left in this one.
        reset_s: whole seconds until the next one, at least 1.
    """

    is_exceeded: bool
    limit: int
    remaining: int
    reset_s: int


class Rates:
    """The counters of a home; its methods may be called from any thread, and wait for other processes.

    Args:
        home: folder of the home, which is there.
    """

    def __init__(self, home: Path) -> None:
        self._windows = Windows(home / RATES)
        self._limiter = FixedWindowRateLimiter(self._windows)

    def hit(self, rate: str, *names: str) -> Allowance:
        """Count one hit.

        Args:
            rate: see `parse_rate`.
            names: what is counted.

        Raises:
            StateError: the counters cannot be read or written.
        """
        limit = parse_rate(rate)
        is_allowed = self._limiter.hit(limit, *names)
        ends, remaining = self._limiter.get_window_stats(limit, *names)
        return Allowance(
            is_exceeded=not is_allowed,
            limit=limit.amount,
            remaining=remaining,
            reset_s=max(1, math.ceil(ends - time.time())),
        )

    def close(self) -> None:
        """Close the file."""
        self._windows.close()


class Windows(Storage):
    """Counters over windows of time, as the strategies of `limits` want them; the file is opened with the first."""

    STORAGE_SCHEME = None  # made by hand, not from an address

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return what the storage raises by itself."""
        return StateError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count hits; return how many there are in the window, which is `expiry` seconds long."""
        now = time.time()
        given = {"name": key, "amount": amount, "now": now, "seconds": expiry, "latest": now + expiry + CLOCK_S}
        with self._open() as connection:
            row = connection.execute(_HIT, given).fetchone()
            hits = int(row[0])
            if hits == amount:
                connection.execute("DELETE FROM windows WHERE ends <= ?", (now,))
        return hits

    def get(self, key: str) -> int:
        """Return the hits in the window."""
        return int(self._window(key)[0])

    def get_expiry(self, key: str) -> float:
        """Return when the window ends, in seconds since the epoch; now, when there is none."""
        return self._window(key)[1]

    def check(self) -> bool:
        """Return whether the counters can be read.

        Raises:
            StateError: they cannot.
        """
        self._window("")
        return True

    def reset(self) -> int:
        """Forget all hits; return how many windows there were."""
        with self._open() as connection:
            return connection.execute("DELETE FROM windows").rowcount

    def clear(self, key: str) -> None:
        """Forget the hits of one window."""
        with self._open() as connection:
            connection.execute("DELETE FROM windows WHERE name = ?", (key,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _window(self, key: str) -> tuple[int, float]:
        now = time.time()
        with self._open() as connection:
            row = connection.execute(
                "SELECT hits, ends FROM windows WHERE name = ? AND ends > ?", (key, now)
            ).fetchone()
        return (row[0], row[1]) if row else (0, now)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except (sqlite3.DatabaseError, OSError) as exc:
                raise StateError(
                    f"{self.path} cannot be used: {exc}. Make room, or stop and remove the file."
                ) from exc

    def _connect(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # flushed now and then; stays whole in a power cut
        connection.execute(_CREATE)
        connection.execute(_CREATE_INDEX)
        return connection


@lru_cache(maxsize=1024)
def parse_rate(text: str) -> RateLimitItem:
    """Read a rate such as 5/s, 60/min, 1000/h or 10000/day.

    Raises:
        WhenceError: it has another form, or allows nothing.
    """
    match = _RATE.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= MAX_AMOUNT:
        raise WhenceError(
            f"{text!r} is not a rate. Write a number and a unit of time: 5/s, 60/min, 1000/h or 10000/day."
        )
    unit = next(unit for unit, found in zip(_UNITS, match.groups()[1:], strict=True) if found)
    return parse(f"{match[1]}/{unit}")
