"""An encoder that costs nothing and has no model: texts that share words are near to each other."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from tiny_models import word_piece_tokenizer

from index.embeddings import Embeddings, ModelIdentity, ModelTokenizer, OnProgress

DIMENSION = 16
MAX_TOKENS = 64
DIRECTIONS = 4_096


class WordEncoder:
    """Adds up a made-up direction for each word of a text."""

    def __init__(self) -> None:
        self.identity = ModelIdentity("words", "0" * 64, "0" * 64, dimension=DIMENSION, max_tokens=MAX_TOKENS)
        self.tokenizer = ModelTokenizer(word_piece_tokenizer(), self.identity)
        self._directions = np.random.default_rng(1).standard_normal((DIRECTIONS, DIMENSION), dtype=np.float32)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """See `index.embeddings.Encoder`."""
        embeddings = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())
            places = [zlib.crc32(word.encode()) % DIRECTIONS for word in ["", *words]]
            embeddings[row] = self._directions[places].sum(axis=0)
        if on_progress is not None:
            on_progress(len(texts))
        unit: Embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        return unit

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """As documents."""
        return self.encode_documents(texts)
