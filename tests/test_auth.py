"""Keys: made once, kept as a digest, found by their token, gone for everyone when they are revoked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from waiting import until

from index.errors import StateError, WhenceError
from index.state import State
from service.auth import CACHE_S, ApiKey, KeyStore, Scope, parse_origin

NOW = datetime(2026, 11, 21, 6, 0, 1, 250_000, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """The state of an empty home."""
    with State(tmp_path) as state:
        yield state


@pytest.fixture
def keys(state: State) -> Iterator[KeyStore]:
    """A store without keys."""
    with closing(KeyStore(state)) as keys:
        yield keys


def test_a_key_is_found_by_its_token(keys: KeyStore) -> None:
    key, token = keys.create("docs site", Scope.WRITE, rate="60/min", expires=NOW + DAY, now=NOW)
    assert key == ApiKey(
        id=key.id,
        name="docs site",
        scope=Scope.WRITE,
        origins=(),
        rate="60/min",
        created=NOW.replace(microsecond=0),
        expires=(NOW + DAY).replace(microsecond=0),
        revoked=None,
    )
    assert keys.find(token) == key


def test_a_token_tells_its_kind_and_the_id_of_its_key(keys: KeyStore) -> None:
    key, token = keys.create("program", Scope.ASK)
    kind, key_id, secret = token.split("_")
    assert (kind, key_id, len(bytes.fromhex(secret))) == ("whence", key.id, 32)
    key, token = keys.create("page", Scope.ASK, origins=["https://docs.example.com"])
    assert token.startswith(f"whence_pub_{key.id}_")


def test_no_secret_is_kept(keys: KeyStore, state: State, tmp_path: Path) -> None:
    _, token = keys.create("program", Scope.ADMIN)
    secret = token.rpartition("_")[2]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"program" in kept
    assert secret.encode() not in kept
    assert bytes.fromhex(secret) not in kept


def test_another_token_finds_nothing(keys: KeyStore) -> None:
    key, token = keys.create("program", Scope.ASK)
    last = "0" if token[-1] != "0" else "1"
    secret = token.rpartition("_")[2]
    for wrong in (
        token[:-1] + last,
        token[:-1],
        token + "0",
        token.upper(),
        token + "\n",
        f"whence_pub_{key.id}_{secret}",
        f"whence_{'0' * len(key.id)}_{secret}",
        secret,
        "",
        "🦀",
    ):
        assert keys.find(wrong) is None
    assert keys.find(token) == key


def test_a_key_that_expired_is_found_as_such(keys: KeyStore) -> None:
    _, token = keys.create("program", Scope.ASK, expires=NOW + DAY, now=NOW)
    found = keys.find(token)
    assert found is not None
    assert not found.is_expired(NOW + DAY - timedelta(seconds=2))
    assert found.is_expired(NOW + DAY)
    assert not found.is_active(NOW + DAY)


def test_each_scope_includes_those_before_it() -> None:
    included = {scope: [other for other in Scope if scope.includes(other)] for scope in Scope}
    assert included == {
        Scope.ASK: [Scope.ASK],
        Scope.WRITE: [Scope.ASK, Scope.WRITE],
        Scope.ADMIN: [Scope.ASK, Scope.WRITE, Scope.ADMIN],
    }


def test_a_revoked_key_is_not_found_and_stays_in_the_list(keys: KeyStore) -> None:
    first, token = keys.create("first", Scope.ASK, now=NOW)
    second, _ = keys.create("second", Scope.ASK, now=NOW + DAY)
    revoked = keys.revoke(first.id, now=NOW + DAY)
    assert revoked.revoked == (NOW + DAY).replace(microsecond=0)
    assert keys.find(token) is None
    assert keys.list() == [revoked, second]
    assert keys.revoke(first.id, now=NOW + 2 * DAY) == revoked


def test_a_key_that_is_not_there_cannot_be_revoked(keys: KeyStore) -> None:
    with pytest.raises(WhenceError, match=r"There is no key 00ff00. List them: whence keys list"):
        keys.revoke("00ff00")


def test_a_change_is_known_to_every_process_within_a_second(keys: KeyStore, tmp_path: Path) -> None:
    assert CACHE_S < 1
    with State(tmp_path) as state, closing(KeyStore(state)) as others:
        assert others.list() == []
        key, token = keys.create("program", Scope.ASK)
        until(lambda: others.find(token) == key, seconds=1)
        keys.revoke(key.id)
        until(lambda: others.find(token) is None, seconds=1)


def test_the_store_that_makes_a_change_knows_it_at_once_whoever_reads_meanwhile(keys: KeyStore) -> None:
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            keys.refresh()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(50):
            key, token = keys.create("program", Scope.ASK)
            assert keys.find(token) == key
            keys.revoke(key.id)
            assert keys.find(token) is None
    finally:
        done.set()
        reader.join()


def test_a_look_up_reads_the_disk_only_now_and_then(keys: KeyStore, state: State) -> None:
    _, token = keys.create("program", Scope.ASK)
    assert not keys.is_fresh
    keys.refresh()
    assert keys.is_fresh
    state.close()
    assert keys.find(token) is not None
    until(lambda: not keys.is_fresh, seconds=1)
    with pytest.raises(StateError, match=r"state.sqlite cannot be used"):
        keys.find(token)


def test_only_valid_keys_count(keys: KeyStore) -> None:
    assert not keys.any_active()
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    keys.create("over", Scope.ASK, origins=["https://over.example.com"], expires=long_ago + DAY, now=long_ago)
    revoked, _ = keys.create("revoked", Scope.ASK, origins=["https://revoked.example.com"])
    keys.revoke(revoked.id)
    assert (keys.any_active(), keys.origins()) == (False, frozenset())
    keys.create("page", Scope.ASK, origins=["https://a.example.com", "https://b.example.com"])
    keys.create("program", Scope.ASK)
    assert (keys.any_active(), keys.origins()) == (True, {"https://a.example.com", "https://b.example.com"})


def test_origins_are_kept_once_and_as_browsers_write_them(keys: KeyStore) -> None:
    given = ["https://Docs.Example.com:443", "http://localhost:3000", "https://docs.example.com"]
    key, _ = keys.create("page", Scope.ASK, origins=given)
    assert key.origins == ("https://docs.example.com", "http://localhost:3000")


@pytest.mark.parametrize("scope", [Scope.WRITE, Scope.ADMIN])
def test_a_key_for_pages_can_only_ask(keys: KeyStore, scope: Scope) -> None:
    with pytest.raises(WhenceError, match=f"it can have the scope ask, not {scope.value}"):
        keys.create("page", scope, origins=["https://docs.example.com"])
    assert keys.list() == []


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "two\nlines", "\x1b[31m", "\ud800"])
def test_a_name_can_be_shown(keys: KeyStore, name: str) -> None:
    with pytest.raises(WhenceError, match="The name"):
        keys.create(name, Scope.ASK)


def test_what_makes_no_sense_is_refused(keys: KeyStore) -> None:
    with pytest.raises(WhenceError, match="'often' is not a rate"):
        keys.create("program", Scope.ASK, rate="often")
    with pytest.raises(WhenceError, match="would have expired"):
        keys.create("program", Scope.ASK, expires=NOW - DAY, now=NOW)
    assert keys.list() == []


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://docs.example.com", "https://docs.example.com"),
        ("HTTPS://Docs.Example.com", "https://docs.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:443", "http://localhost:443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "docs.example.com",
        "https://",
        "https://docs.example.com/",
        "https://docs.example.com/path",
        "https://docs.example.com?q",
        "https://user@docs.example.com",
        "https://docs.example.com:",
        "https://docs.example.com:https",
        "https://bücher.example",
        "https://*.example.com",
        "https://a b",
        "https://docs.example.com\n",
        "https://\u212a.example",
        "ftp://docs.example.com",
        "https://[::1",
    ],
)
def test_anything_else_is_no_origin(text: str) -> None:
    with pytest.raises(WhenceError, match="is not an origin"):
        parse_origin(text)
