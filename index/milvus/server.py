"""A Milvus server, reached through pymilvus: what goes wrong there are errors of ours, and no call lasts for ever.

pymilvus tries again by itself while a server cannot be reached, until the time given for a call is over. It takes
half a second and pandas to load, so that only this module imports it, and only when a server is wanted.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from index.errors import StoreError
from index.milvus.address import Address

CONNECT_S = 10.0
READ_S = 3.0  # for a call that a question waits for
WRITE_S = 60.0  # for one that writes
# Every call has its own limit, so a connection that nobody uses need not be kept alive: servers that are asked too
# often whether they live close it. One that was lost is tried again within a second.
GRPC_OPTIONS = {
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.use_local_subchannel_pool": 1,
}
INSTALL = "pip install 'whence[milvus]'"
# With *Bounded* a search may miss what was written in the last seconds, and need not wait for the server's clock:
# 2 ms instead of 200. A generation is never changed, and is counted by *Strong* before it is published, so that
# nothing is missed; files and what is published are few calls, and are read by *Strong*.
READ_CONSISTENCY = "Bounded"
CHECK_CONSISTENCY = "Strong"
UNKNOWN_ALIAS = 1600  # code of Milvus; its smaller kin have the words only
_UNKNOWN_ALIAS = re.compile(r"alias\b.* (?:not found|does not exist)")

Result = TypeVar("Result")
Row = dict[str, Any]


@dataclass(frozen=True)
class Match:
    """A chunk that a search found: its row, and how well it fits."""

    row: int
    score: float


class Server:
    """A connection, made when it is first needed. Its methods may be called from any thread.

    Args:
        address: of the store.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client: Any = None
        self._lock = threading.Lock()
        self._has_aliases: bool | None = None

    def close(self) -> None:
        """Close the connection; the next call makes another one."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def collections(self) -> list[str]:
        """List the collections."""
        return list(self.call(lambda client: client.list_collections(timeout=READ_S)))

    def create(self, name: str, fields: Sequence[Row], indexes: Sequence[Row]) -> None:
        """Create a collection, ready to be searched."""

        def create(client: Any) -> None:
            types = importlib.import_module("pymilvus").DataType
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            for each in fields:
                schema.add_field(**{**each, "datatype": getattr(types, each["datatype"])})
            params = client.prepare_index_params()
            for index in indexes:
                params.add_index(**index)
            client.create_collection(
                name, schema=schema, index_params=params, consistency_level=READ_CONSISTENCY, timeout=WRITE_S
            )

        self.call(create)

    def drop(self, name: str) -> None:
        """Drop a collection; one that is not there is no mistake."""
        self.call(lambda client: client.drop_collection(name, timeout=WRITE_S))

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows, in place of those of the same key, so that writing them twice is writing them once."""
        if rows:
            self.call(lambda client: client.upsert(name, list(rows), timeout=WRITE_S))

    def delete(self, name: str, condition: str) -> None:
        """Delete rows."""
        self.call(lambda client: client.delete(name, filter=condition, timeout=WRITE_S))

    def count(self, name: str) -> int:
        """Count the rows, all that was ever written among them."""
        rows = self._query(name, "", ["count(*)"], CHECK_CONSISTENCY, WRITE_S)
        return int(rows[0]["count(*)"])

    def read(self, name: str, condition: str, fields: Sequence[str]) -> list[Row]:
        """Return fields of the rows for which a condition holds, in any order."""
        return self._query(name, condition, list(fields), READ_CONSISTENCY, READ_S)

    def read_latest(self, name: str, condition: str, fields: Sequence[str]) -> list[Row]:
        """Return what `read` does, all that was ever written among it."""
        return self._query(name, condition, list(fields), CHECK_CONSISTENCY, WRITE_S)

    def search(self, name: str, field: str, vector: Any, *, limit: int, condition: str = "") -> list[Match]:
        """Find the rows whose vectors have the largest inner product with one, best first."""
        (hits,) = self.call(
            lambda client: client.search(
                name,
                data=[vector],
                anns_field=field,
                limit=limit,
                filter=condition,
                search_params={"metric_type": "IP"},
                consistency_level=READ_CONSISTENCY,
                timeout=READ_S,
            )
        )
        return [Match(int(hit.id), float(hit.distance)) for hit in hits]

    def alias(self, name: str) -> str | None:
        """Return the collection that an alias stands for; None where there is no such alias."""
        try:
            return str(self._connected().describe_alias(name, timeout=READ_S)["collection_name"])
        except Exception as exc:
            if _is_unknown_alias(exc):
                return None
            raise self._error(exc) from exc

    def set_alias(self, name: str, collection: str) -> None:
        """Make an alias stand for a collection, in one step."""
        if self.alias(name) is None:
            self.call(lambda client: client.create_alias(collection, name, timeout=WRITE_S))
        else:
            self.call(lambda client: client.alter_alias(collection, name, timeout=WRITE_S))

    def has_aliases(self) -> bool:
        """Whether the server knows aliases; milvus-lite of the 2.5 line does not."""
        if self._has_aliases is None:
            try:
                self._connected().describe_alias(self.address.collection, timeout=READ_S)
                self._has_aliases = True
            except Exception as exc:
                if not _is_unknown_alias(exc) and not _is_unimplemented(exc):
                    raise self._error(exc) from exc
                self._has_aliases = not _is_unimplemented(exc)
        return self._has_aliases

    def call(self, operation: Callable[[Any], Result]) -> Result:
        """Do something with the client.

        Raises:
            StoreError: the server cannot be reached, took too long or refused.
        """
        try:
            return operation(self._connected())
        except Exception as exc:
            raise self._error(exc) from exc

    def _query(self, name: str, condition: str, fields: list[str], consistency: str, timeout_s: float) -> list[Row]:
        return list(
            self.call(
                lambda client: client.query(
                    name, filter=condition, output_fields=fields, consistency_level=consistency, timeout=timeout_s
                )
            )
        )

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                address = self.address
                self._client = _client_class()(
                    address.uri,
                    user=address.user,
                    password=address.password,
                    timeout=CONNECT_S,
                    dedicated=True,
                    grpc_options=dict(GRPC_OPTIONS),
                )
            return self._client

    def _error(self, error: Exception) -> StoreError:
        """Say what went wrong; an exception that is not the client library's is passed on as it is."""
        if isinstance(error, StoreError):
            return error
        if not _is_of_client(error):
            raise error
        message = " ".join(str(getattr(error, "message", "") or error).split())
        if self.address.password:
            message = message.replace(self.address.password, "…")
        return StoreError(
            f"{self.address} does not do what it is asked: {message[:300]}. Is the server up, and may this user "
            "read and write there? Nothing that was published has changed."
        )


def _client_class() -> Any:
    try:
        pymilvus = importlib.import_module("pymilvus")
    except ImportError as exc:
        raise StoreError(f"A store on Milvus needs its client library. Install it: {INSTALL}") from exc
    # It logs each error with its traceback; they are raised, too.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus.MilvusClient


def _is_of_client(error: Exception) -> bool:
    exceptions, grpc = importlib.import_module("pymilvus.exceptions"), importlib.import_module("grpc")
    return isinstance(error, (exceptions.MilvusException, grpc.RpcError, grpc.FutureTimeoutError))


def _is_unimplemented(error: Exception) -> bool:
    grpc = importlib.import_module("grpc")
    return isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED


def _is_unknown_alias(error: Exception) -> bool:
    exceptions = importlib.import_module("pymilvus.exceptions")
    return isinstance(error, exceptions.MilvusException) and (
        error.code == UNKNOWN_ALIAS or _UNKNOWN_ALIAS.search(str(error)) is not None
    )
