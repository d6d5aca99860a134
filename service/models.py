"""The models as the settings want them."""

from __future__ import annotations

from index.embeddings import Encoder, QueryEncoder, load_encoder
from index.instant import instant_encoder
from index.models import ModelFiles
from index.reranking import Reranker, find_reranker, load_reranker
from index.store import OpenGeneration
from service.settings import Settings


def load_model(settings: Settings, name: str, *, may_download: bool = False) -> Encoder:
    """Load the encoder of a model on the backend and from the cache that the settings name.

    Raises:
        ModelError: it cannot be found, loaded or exported.
    """
    return load_encoder(
        name, cache_folder=settings.cache / "models", backend=settings.backend, may_download=may_download
    )


def load_query_encoder(settings: Settings, generation: OpenGeneration) -> QueryEncoder:
    """Load what the settings want questions to a generation to be encoded with.

    Raises:
        ModelError: it cannot be found, loaded or exported, or the model has no instant encoder.
    """
    if settings.encoder == "instant":
        return instant_encoder(generation, name=settings.model)
    return load_model(settings, settings.model or generation.manifest.model.name)


def load_chosen_reranker(settings: Settings) -> Reranker | None:
    """Load the reranker that the settings name; None when they name none.

    Raises:
        ModelError: it cannot be found or loaded, or is none.
    """
    return load_reranker(settings.reranker) if settings.reranker else None


def find_chosen_reranker(settings: Settings) -> ModelFiles | None:
    """Find the files of the reranker that the settings name, without loading it; None when they name none.

    Raises:
        ModelError: it cannot be found, or is none.
    """
    return find_reranker(settings.reranker) if settings.reranker else None
