"""Keys: who may do what over HTTP. A key is shown once, when it is made; only its SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from index.errors import WhenceError
from index.generations import utc_now
from index.state import State
from service.rates import Rates, parse_rate

CACHE_S = 0.5  # a key that was revoked works no longer than that
MAX_NAME = 100
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

_ID_BYTES = 6
_SECRET_BYTES = 32
KEY_MARK = "whence_"  # how our keys begin
_TOKEN = re.compile(rf"{KEY_MARK}(?:pub_)?([0-9a-f]{{{2 * _ID_BYTES}}})_[0-9a-f]{{{2 * _SECRET_BYTES}}}", re.ASCII)
_NAME = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_NAME}}}")
_ORIGIN = re.compile(r"(https?)://(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.A | re.I)
_NO_DIGEST = bytes(hashlib.sha256().digest_size)
_CREATE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    origins TEXT NOT NULL,
    rate TEXT,
    created TEXT NOT NULL,
    expires TEXT,
    revoked TEXT
) STRICT
"""
_REVOKE = "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ? RETURNING *"


class Scope(Enum):
    """What a key is for; each scope includes those before it."""

    ASK = "ask"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Return whether a key of this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret.

    Attributes:
        id: the part of the key that may be shown and logged.
        name: what its owner calls it.
        scope: what it is for.
        origins: of the pages that may use it, such as `https://docs.example.com`; of any program if empty.
        rate: how often it may be used, such as `60/min`; None: as often as one likes.
        created: UTC, in whole seconds, as the other times.
        expires: from then on it is not valid; None: never.
        revoked: since when it is not valid; None: it was not revoked.
    """

    id: str
    name: str
    scope: Scope
    origins: tuple[str, ...]
    rate: str | None
    created: datetime
    expires: datetime | None
    revoked: datetime | None

    def is_expired(self, now: datetime) -> bool:
        """Return whether its time is over."""
        return self.expires is not None and self.expires <= now

    def is_active(self, now: datetime) -> bool:
        """Return whether it is valid."""
        return self.revoked is None and not self.is_expired(now)


@dataclass(frozen=True)
class _Known:
    """The keys as they were read; `digests` and `keys` by id, `moment` on the monotonic clock, in seconds."""

    keys: Mapping[str, ApiKey]
    digests: Mapping[str, bytes]
    moment: float


class KeyStore:
    """The keys of a home, and how often each is used; its methods may be called from any thread.

    Every process that holds a store of the home knows of a change within `CACHE_S`.

    Raises:
        StateError: the state cannot be read or written; so do all methods.
    """

    def __init__(self, state: State) -> None:
        self.rates = Rates(state.path.parent)
        self._state = state
        self._lock = threading.Lock()
        self._known: _Known | None = None
        state.create(_CREATE)

    def create(
        self,
        name: str,
        scope: Scope,
        *,
        origins: Iterable[str] = (),
        rate: str | None = None,
        expires: datetime | None = None,
        now: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; return it and its token, which is kept nowhere.

        A key with origins stands in a page for everyone to see: it is good for asking only, and only from there.

        Args:
            name: 1 to 100 characters.
            scope: what it is for.
            origins: see `parse_origin`.
            rate: see `parse_rate`.
            expires: a moment to come, with its time zone.
            now: the time; None asks the clock.

        Raises:
            WhenceError: one of these makes no sense.
        """
        moment = (now or utc_now()).replace(microsecond=0)
        key = ApiKey(
            id=secrets.token_hex(_ID_BYTES),
            name=name,
            scope=scope,
            origins=tuple(dict.fromkeys(parse_origin(origin) for origin in origins)),
            rate=rate,
            created=moment,
            expires=None if expires is None else expires.astimezone(UTC).replace(microsecond=0),
            revoked=None,
        )
        _check(key)
        kind = "whence_pub" if key.origins else "whence"
        token = f"{kind}_{key.id}_{secrets.token_hex(_SECRET_BYTES)}"
        with self._state.transaction() as connection:
            connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(key, _digest(token)))
        self._forget()
        return key, token

    def find(self, token: str) -> ApiKey | None:
        """Return the key of a token, which may have expired; None for one that is unknown, revoked or malformed."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        known = self._read()
        # Always compared, and in constant time: how long it takes tells nothing.
        is_same = hmac.compare_digest(known.digests.get(match[1], _NO_DIGEST), _digest(token))
        key = known.keys.get(match[1])
        return key if is_same and key is not None and key.revoked is None else None

    def list(self) -> list[ApiKey]:
        """Return all keys, the oldest first; expired and revoked ones too."""
        return sorted(self._read().keys.values(), key=lambda key: (key.created, key.id))

    def revoke(self, key_id: str, *, now: datetime | None = None) -> ApiKey:
        """End a key; return it. One that was revoked before stays as it is.

        Raises:
            WhenceError: there is no such key.
        """
        moment = (now or utc_now()).isoformat(timespec="seconds")
        with self._state.transaction() as connection:
            row = connection.execute(_REVOKE, (moment, key_id)).fetchone()
        self._forget()
        if row is None:
            raise WhenceError(f"There is no key {key_id}. List them: whence keys list")
        return _key(row)

    def any_active(self) -> bool:
        """Return whether anyone has a valid key."""
        now = utc_now()
        return any(key.is_active(now) for key in self._read().keys.values())

    def origins(self) -> frozenset[str]:
        """Return the origins of all valid keys."""
        now = utc_now()
        return frozenset(origin for key in self._read().keys.values() if key.is_active(now) for origin in key.origins)

    @property
    def is_fresh(self) -> bool:
        """Whether the next look-up does without the disk."""
        return self._fresh() is not None

    def refresh(self) -> None:
        """Read the keys, if that is due."""
        self._read()

    def close(self) -> None:
        """Close the counters; the state stays open."""
        self.rates.close()

    def _forget(self) -> None:
        with self._lock:  # after whoever is just reading what was there before
            self._known = None

    def _fresh(self) -> _Known | None:
        known = self._known
        return known if known is not None and time.monotonic() - known.moment < CACHE_S else None

    def _read(self) -> _Known:
        known = self._fresh()
        if known is None:
            with self._lock:  # one reads, and the others wait for what it finds
                known = self._known = self._fresh() or self._read_now()
        return known

    def _read_now(self) -> _Known:
        moment = time.monotonic()  # before reading: what is known is never older than that
        with self._state.reading() as connection:
            rows = connection.execute("SELECT * FROM keys").fetchall()
        return _Known(
            keys={row["id"]: _key(row) for row in rows},
            digests={row["id"]: row["sha256"] for row in rows},
            moment=moment,
        )


def parse_origin(text: str) -> str:
    """Read an origin, such as `https://docs.example.com` or `http://localhost:3000`; return it as browsers write it.

    Raises:
        WhenceError: it is not the scheme, the host and perhaps the port of a page.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise WhenceError(
            f"{text!r} is not an origin. Write scheme, host and perhaps port as browsers do, without a path: "
            "https://docs.example.com or http://localhost:3000 (xn-- and so on for a name beyond ASCII)."
        )
    return match[0].lower().removesuffix(DEFAULT_PORTS[match[1].lower()])


def _check(key: ApiKey) -> None:
    if not _NAME.fullmatch(key.name) or not key.name.strip():
        raise WhenceError(f"The name {key.name!r} cannot be shown. Take 1 to {MAX_NAME} characters.")
    if key.origins and key.scope is not Scope.ASK:
        raise WhenceError(
            f"A key with origins can be read by everyone in the page it is used in: it can have the scope ask, not "
            f"{key.scope.value}. Leave the origins out, or take the scope ask."
        )
    if key.rate is not None:
        parse_rate(key.rate)
    if key.is_expired(key.created):
        raise WhenceError(f"The key would have expired at {key.expires}. Name a day to come.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _row(key: ApiKey, digest: bytes) -> tuple[str | bytes | None, ...]:
    times = (key.created, key.expires, key.revoked)
    created, expires, revoked = (None if time is None else time.isoformat(timespec="seconds") for time in times)
    return (
        key.id,
        key.name,
        key.scope.value,
        digest,
        json.dumps(key.origins),
        key.rate,
        created,
        expires,
        revoked,
    )


def _key(row: sqlite3.Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        scope=Scope(row["scope"]),
        origins=tuple(json.loads(row["origins"])),
        rate=row["rate"],
        created=datetime.fromisoformat(row["created"]),
        expires=_time(row["expires"]),
        revoked=_time(row["revoked"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
