"""Documents put into a home as the service puts them."""

from __future__ import annotations

from index.state import State
from index.uploads import Upload, Uploads, name_for


def received(uploads: Uploads, doc_id: str, data: str | bytes, **described: object) -> Upload:
    """Receive a document, without keeping it."""
    content = data.encode() if isinstance(data, str) else data
    incoming = uploads.receive()
    incoming.write(content)
    sha256 = incoming.finish()
    fields = {"put_at": "2026-11-21T06:00:00.000+00:00", **described}
    return Upload(doc_id, incoming.file, name_for(doc_id), sha256, incoming.size, **fields)  # type: ignore[arg-type]


def kept(state: State, uploads: Uploads, doc_id: str, data: str | bytes, **described: object) -> Upload:
    """Receive a document and make its file stay."""
    upload = received(uploads, doc_id, data, **described)
    with state.transaction():
        uploads.keep([upload])
    return upload
