"""Keys, as they are listed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from service.schemas.base import Schema

if TYPE_CHECKING:
    from service.auth import ApiKey


class KeyJson(Schema):
    """A key, without its secret."""

    id: str
    name: str
    scope: str
    origins: list[str]
    rate: str | None
    created: str
    expires: str | None
    revoked: str | None
    status: Literal["active", "expired", "revoked"]

    @classmethod
    def of(cls, key: ApiKey, now: datetime) -> KeyJson:
        """Convert from the service's record, as things stand at a moment."""
        is_over = "revoked" if key.revoked else "expired"
        return cls(
            id=key.id,
            name=key.name,
            scope=key.scope.value,
            origins=list(key.origins),
            rate=key.rate,
            created=key.created.isoformat(),
            expires=key.expires and key.expires.isoformat(),
            revoked=key.revoked and key.revoked.isoformat(),
            status="active" if key.is_active(now) else is_over,
        )


class NewKeyJson(KeyJson):
    """A key that was just made, with its secret, which is kept nowhere."""

    key: str
