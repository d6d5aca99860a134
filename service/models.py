"""The embedding model as the settings want it."""

from __future__ import annotations

from index.embeddings import Encoder, load_encoder
from service.settings import Settings


def load_model(settings: Settings, name: str, *, may_download: bool = False) -> Encoder:
    """Load the encoder of a model on the backend and from the cache that the settings name.

    Raises:
        ModelError: it cannot be found, loaded or exported.
    """
    return load_encoder(
        name, cache_folder=settings.cache / "models", backend=settings.backend, may_download=may_download
    )
