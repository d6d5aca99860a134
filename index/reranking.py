"""The first passages once more: a cross-encoder reads each together with the question, and puts them in its order.

An option for those who have such a model; none ships with the package. A cross-encoder reads question and passage at
once and judges better than two embeddings do, at the price of running for every pair (Nogueira & Cho 2019, "Passage
Re-ranking with BERT").

It decides the order and nothing else. Scores mean what they mean without it, and so does the confidence, which is
that of the passage that is now the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index.errors import ModelError
from index.models import Kind, ModelFiles, find_files, loading, needing_torch
from index.retrieval import Passage

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# Passages that are read once more. Each takes as long as encoding a chunk does: with all candidates a question would
# take seconds.
RERANKED = 20
BATCH_PAIRS = 8  # that go through the model together; with 256 tokens each as many tokens as when chunks are encoded

RERANKER = Kind(
    "reranker",
    "a folder with a cross-encoder, or a hub name",
    "--reranker",
    "Fetch it where there is a network (hf download {name})",
)


def find_reranker(name: str) -> ModelFiles:
    """Find a cross-encoder on this machine, and take its digests, without loading it.

    Args:
        name: a folder, or a name on the Hugging Face hub.

    Raises:
        ModelError: there is no such model, it has no safetensors weights, or it is no cross-encoder.
    """
    model = find_files(name, RERANKER)
    if not _is_cross_encoder(model):
        raise ModelError(
            f"The model {model.name} is no cross-encoder: it does not judge a question and a passage together. Give "
            f"{RERANKER.names}, with {RERANKER.option}."
        )
    return model


def load_reranker(name: str) -> Reranker:
    """Load a cross-encoder with sentence-transformers, on the processor, never running code that came with it.

    Raises:
        ModelError: see `find_reranker`; or it cannot be loaded, or judges by several labels.
    """
    model = find_reranker(name)
    with needing_torch():
        # Imported here: four seconds that nobody without a reranker should wait.
        import torch
        from sentence_transformers import CrossEncoder

    with loading(model):
        cross_encoder = CrossEncoder(
            str(model.folder),
            device="cpu",
            trust_remote_code=False,
            local_files_only=True,
            # Half precision is no faster on a processor, and in it different passages come out the same.
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            activation_fn=torch.nn.Identity(),
        )
    if cross_encoder.num_labels != 1:
        raise ModelError(
            f"The model {model.name} judges by {cross_encoder.num_labels} labels; a reranker has one, how relevant a "
            f"passage is. Give another one with {RERANKER.option}."
        )
    reranker = Reranker(model, cross_encoder)
    with loading(model):
        reranker.logits("Does it load?", ["It loads."])  # what a model needs beyond its weights may be missing
    return reranker


class Reranker:
    """Puts passages in the order of a cross-encoder.

    Attributes:
        model: its files, by whose digest it is known.
    """

    def __init__(self, model: ModelFiles, cross_encoder: CrossEncoder) -> None:
        self.model = model
        self._cross_encoder = cross_encoder

    def rerank(self, question: str, passages: Sequence[Passage]) -> list[Passage]:
        """Put the first `RERANKED` passages in order; the others follow as they were.

        Args:
            question: as it was asked.
            passages: best first. So that the order does not depend on how many are wanted, all that are to be read
                must be among them.

        Returns:
            All of them, those that were read with their `reranker` set; equal ones stay in their order.
        """
        read, others = passages[:RERANKED], passages[RERANKED:]
        logits = self.logits(question, [passage.chunk.embedded_text for passage in read])
        # By the logits: as probabilities large ones would be the same.
        order = np.argsort(-logits, kind="stable").tolist()
        probabilities = 0.5 + 0.5 * np.tanh(logits / 2)  # the logistic function, which so does not overflow
        return [*(replace(read[place], reranker=float(probabilities[place])) for place in order), *others]

    def logits(self, question: str, texts: Sequence[str]) -> NDArray[np.float64]:
        """Judge how relevant texts are; what a model does not take of a pair is cut off, the longer text first.

        The pairs of one question go through the model by themselves, so that it gets the same bits whatever else is
        asked with it.

        Returns:
            float64, shape (len(texts),), higher is better.
        """
        pairs = [(question, text) for text in texts]
        logits = self._cross_encoder.predict(pairs, batch_size=BATCH_PAIRS, show_progress_bar=False)
        return np.asarray(logits, np.float64)


def _is_cross_encoder(model: ModelFiles) -> bool:
    """Whether a model says that it is one: sentence-transformers would give any other a head of random weights."""
    if (model.folder / "modules.json").is_file():
        return bool(_config(model, "config_sentence_transformers.json").get("model_type") == "CrossEncoder")
    architectures = _config(model, "config.json").get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in architectures)


def _config(model: ModelFiles, name: str) -> dict[str, Any]:
    try:
        config = json.loads((model.folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ModelError(f"{name} in {model.folder} cannot be read: {exc}. Fetch the model anew.") from exc
    return config if isinstance(config, dict) else {}
