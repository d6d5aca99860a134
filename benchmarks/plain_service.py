"""The search service that one would write: sentence-transformers, an exact FAISS index and FastAPI.

python benchmarks/plain_service.py PASSAGES FOLDER     encode passages, a line of JSON each, once
PLAIN_FOLDER=FOLDER uvicorn --app-dir benchmarks --factory plain_service:create_app
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import faiss
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from index.models import find_model, load_reference


class Question(BaseModel):
    """What is asked."""

    question: str
    top_k: int = 5


class Passage(BaseModel):
    """What is found."""

    id: str
    text: str
    score: float


class Passages(BaseModel):
    """What is answered."""

    passages: list[Passage]


def build(passages: Path, folder: Path) -> None:
    """Encode passages, and keep them with their embeddings."""
    records = [json.loads(line) for line in passages.read_text(encoding="utf-8").splitlines()]
    embeddings = load_reference(find_model()).encode(
        [record["text"] for record in records], normalize_embeddings=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "embeddings.npy", embeddings)
    (folder / "passages.json").write_text(json.dumps(records), encoding="utf-8")


def create_app() -> FastAPI:
    """Load model and index, and return the service."""
    folder = Path(os.environ["PLAIN_FOLDER"])
    model, embeddings = load_reference(find_model()), np.load(folder / "embeddings.npy")
    records = json.loads((folder / "passages.json").read_text(encoding="utf-8"))
    nearest = faiss.IndexFlatIP(embeddings.shape[1])
    nearest.add(embeddings)
    app = FastAPI()

    @app.post("/search")
    def search(body: Question) -> Passages:
        embedding = model.encode([body.question], normalize_embeddings=True)
        scores, rows = nearest.search(embedding, body.top_k)
        found = [Passage(**records[row], score=score) for score, row in zip(scores[0], rows[0], strict=True)]
        return Passages(passages=found)

    return app


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
