"""The commands of `whence keys`: who may use the HTTP service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from index.errors import StateError, WhenceError
from index.generations import utc_now
from index.state import State
from service.display import output, print_done, print_json, print_line, visible
from service.options import HomeOption, JsonOption
from service.schemas.keys import KeyJson, NewKeyJson
from service.settings import read_settings

if TYPE_CHECKING:
    from service.auth import KeyStore

NEVER = "never"

_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_SPAN = re.compile(rf"([0-9]{{1,5}})([{''.join(_HOURS)}])", re.ASCII)

keys = typer.Typer(help="Make, list and end the keys of the HTTP service.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="What you call it, to tell it from others.")],
    scope: Annotated[
        Literal["ask", "write", "admin"],
        typer.Option(help="What it is for: asking; documents, too; everything."),
    ] = "ask",
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Only for pages of this origin, such as https://docs.example.com; may be repeated."),
    ] = None,
    rate: Annotated[str | None, typer.Option(help="How often it may be used: 5/s, 60/min, 1000/h.")] = None,
    expires: Annotated[
        str, typer.Option(help="Until when it is valid: 12h, 30d, 2027-01-01 (UTC) or never.")
    ] = NEVER,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once; a running service takes it within a second."""
    from service.auth import Scope

    now = utc_now()
    ending = _parse_expiry(expires, now)
    with _open_keys(home) as store, _wrong_usage():
        key, token = store.create(name, Scope(scope), origins=origin or (), rate=rate, expires=ending, now=now)
    if as_json:
        print_json(NewKeyJson(**vars(KeyJson.of(key, now)), key=token))
    else:
        typer.echo(visible(f"The key {key.id} ({key.name}) is shown only now:"), err=True)
        print_line(token)


@keys.command("list")
def list_keys(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the keys, the oldest first, without their secrets."""
    with _open_keys(home) as store:
        records = [KeyJson.of(key, utc_now()) for key in store.list()]
    if as_json:
        for record in records:
            print_json(record)
        return
    table = Table("id", "name", "scope", "status", "created", "expires", "rate", "origins", box=None)
    for record in records:
        cells = (record.name, record.scope, record.status, record.created, record.expires or NEVER, record.rate or "")
        table.add_row(record.id, *(Text(visible(cell)) for cell in (*cells, " ".join(record.origins))))
    output.print(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `whence keys list` shows it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key; a running service refuses it within a second."""
    with _open_keys(home) as store:
        key = store.revoke(key_id)
    print_done(KeyJson.of(key, utc_now()), f"Revoked {key.id} ({key.name}).", as_json)


@contextmanager
def _open_keys(home: Path | None) -> Iterator[KeyStore]:
    # Imported here: no other command needs keys, and counting rates takes a tenth of a second to load.
    from service.auth import KeyStore

    with State(home or read_settings().home) as state, closing(KeyStore(state)) as store:
        yield store


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """Say that an option makes no sense, unless it is the disk."""
    try:
        yield
    except StateError:
        raise
    except WhenceError as exc:
        raise typer.BadParameter(str(exc)) from exc


def _parse_expiry(text: str, now: datetime) -> datetime | None:
    """Return the moment that a span or a date names; None for never."""
    if text == NEVER:
        return None
    if span := _SPAN.fullmatch(text):
        return now.replace(microsecond=0) + timedelta(hours=int(span[1]) * _HOURS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise typer.BadParameter(
            f"{text!r} is no time. Write 12h, 30d, 8w, a date such as 2027-01-01, or never.", param_hint="--expires"
        ) from exc
