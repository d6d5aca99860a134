"""The address of a store: `milvus://[USER:PASSWORD@]HOST[:PORT]/COLLECTION[?tls=true]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from index.errors import StoreError

SCHEME = "milvus"
PORT = 19530
FORM = "milvus://[USER:PASSWORD@]HOST[:PORT]/COLLECTION"
# Milvus's own rule, with room for the name of a generation behind it.
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True)
class Address:
    """Where a store is. As text it has neither user nor password.

    Attributes:
        host, port: of the server.
        collection: the name under which generations are published.
        user, password: empty where the server asks for none.
        uses_tls: whether the connection is encrypted.
    """

    host: str
    port: int
    collection: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    uses_tls: bool = False

    def __str__(self) -> str:
        return f"{SCHEME}://{self._place}/{self.collection}"

    @property
    def uri(self) -> str:
        """What the client library calls it, without user and password."""
        return f"{'https' if self.uses_tls else 'http'}://{self._place}"

    @property
    def _place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse the address of a store.

    Raises:
        StoreError: it is none. The message does not repeat it, for it may hold a password.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _refused("its host or port makes no sense") from exc
    collection = parts.path.removeprefix("/")
    if parts.scheme != SCHEME:
        raise _refused(f"it does not begin with {SCHEME}://")
    if not host:
        raise _refused("it names no host")
    if not _COLLECTION.fullmatch(collection):
        raise _refused(
            f"{collection!r} is no name of a collection, which has letters, digits and _ and begins with no digit"
        )
    if parts.query not in ("", "tls=true", "tls=false") or parts.fragment:
        raise _refused("all that may stand behind it is ?tls=true")
    return Address(
        host=host,
        port=PORT if port is None else port,
        collection=collection,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        uses_tls=parts.query == "tls=true",
    )


def _refused(reason: str) -> StoreError:
    return StoreError(f"The address of the store cannot be used: {reason}. Give {FORM}")
