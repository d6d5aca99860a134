"""The store that the settings name."""

from __future__ import annotations

from index.milvus.address import parse_address
from index.milvus.store import MilvusStore
from service.settings import Settings


def chosen_store(settings: Settings) -> MilvusStore | None:
    """Return the store beyond this machine that the settings name; None where they name none.

    Raises:
        StoreError: its address makes no sense.
    """
    if settings.store is None:
        return None
    return MilvusStore(parse_address(settings.store.get_secret_value()), settings.cache)
