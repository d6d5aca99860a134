"""Compare sentences that the model reads alone with sentences pooled from the pass over their chunk.

    python benchmarks/late.py DATASET ... [--write FILE]

Each chunk goes through the model once for its own embedding. The states of the tokens of a sentence, averaged, would
do for that sentence without another pass (Guenther et al. 2024, "Late Chunking: Contextual Chunk Embeddings Using
Long-Context Embedding Models"). Both kinds of sentences are put into the same index of a data set in BEIR layout, and
its questions ranked by the same weights. Processor time is that of the passes, tokenizing included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from figures import compared, measured, print_figures, table
from indexes import default_encoder, open_dataset, progress_bars
from machine import machine

from index.chunks import embedded_text
from index.corpus import ChunkRecord
from index.embeddings import Embeddings, Encoder
from index.evaluation import Difference, Measurement, compare, evaluate
from index.generations import Generation
from index.models import DEFAULT_MODEL, find_model
from index.onnx_export import OnnxSession, Precision, exported_model
from index.runs import rank_queries
from index.vectors import SentenceVectors, lengths_of, quantise
from service.settings import read_settings

METRICS = ("ndcg@10", "recall@1")
TOP_K = 100  # documents ranked for a query
CHUNKS_AT_ONCE = 256

Result = TypeVar("Result")


@dataclass(frozen=True)
class Compared:
    """What a data set gave.

    Attributes:
        name: of its folder.
        alone, pooled: by name of the metric.
        differences: of the pooled sentences to those that were read alone.
        chunks_s, sentences_s, pooled_s: processor seconds of the pass over all chunks, of that over all sentences,
            and of one over all chunks that gives both.
    """

    name: str
    alone: dict[str, Measurement]
    pooled: dict[str, Measurement]
    differences: dict[str, Difference]
    chunks_s: float
    sentences_s: float
    pooled_s: float


def compare_on(folder: Path, encoder: Encoder, session: OnnxSession) -> Compared:
    """Rank the questions of a data set with both kinds of sentences."""
    with progress_bars() as progress, open_dataset(folder, encoder, progress) as (dataset, generation):

        def ranked() -> dict[str, dict[str, float]]:
            return rank_queries(generation, encoder, dataset.queries, top_k=TOP_K, progress=progress)["whence"]

        chunks = list(all_chunks(generation))
        texts = [embedded_text(chunk.context, chunk.text) for chunk in chunks]
        sentences = [sentence for chunk in chunks for sentence in chunk.embedded_sentences]
        _, chunks_s = timed(lambda: [session.embed(ids) for ids in session.token_ids(texts)])
        _, sentences_s = timed(lambda: [session.embed(ids) for ids in session.token_ids(sentences)])
        embeddings, pooled_s = timed(lambda: np.concatenate([pooled(chunk, session) for chunk in chunks]))
        alone = evaluate(dataset.qrels, ranked())
        quantised = quantise(embeddings)
        starts = generation.sentences.starts
        generation.sentences = SentenceVectors(quantised, lengths_of(quantised, np.arange(len(quantised))), starts)
        late = evaluate(dataset.qrels, ranked())
    return Compared(folder.resolve().name, alone, late, compare(late, alone), chunks_s, sentences_s, pooled_s)


def all_chunks(generation: Generation) -> Iterator[ChunkRecord]:
    """Read every chunk, in order."""
    for first in range(0, generation.manifest.chunks, CHUNKS_AT_ONCE):
        yield from generation.corpus.chunks(range(first, min(first + CHUNKS_AT_ONCE, generation.manifest.chunks)))


def pooled(chunk: ChunkRecord, session: OnnxSession) -> Embeddings:
    """Average the states of the tokens of each sentence of a chunk; one without tokens gets the average of all.

    Returns:
        float32, shape (sentences, dimension), rows of unit length.
    """
    text = embedded_text(chunk.context, chunk.text)
    (ids,) = session.token_ids([text])
    states = session.hidden_states(ids)
    starts, ends = np.array(session.tokenizer.encode(text).offsets[: len(ids)]).T
    shift = len(text) - len(chunk.text)
    rows = np.empty((len(chunk.sentences), states.shape[1]), np.float32)
    for place, (first, end) in enumerate(chunk.sentences):
        (inside,) = ((starts >= first + shift) & (ends <= end + shift) & (ends > starts)).nonzero()
        rows[place] = states[inside].mean(axis=0) if len(inside) else states.mean(axis=0)
    unit: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Do something, and return the processor seconds that it took as well."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def report(results: Sequence[Compared]) -> Iterator[str]:
    """Write everything as Markdown."""
    yield "## Sentences read alone, and pooled from their chunks\n"
    rows = [
        [
            result.name,
            metric,
            measured(result.alone[metric]),
            measured(result.pooled[metric]),
            compared(result.differences[metric]),
        ]
        for result in results
        for metric in METRICS
    ]
    yield from table(["data set", "metric", "read alone", "pooled", "pooled against alone"], rows)
    times = [[each.name, *(f"{s:.1f}" for s in (each.chunks_s, each.sentences_s, each.pooled_s))] for each in results]
    yield from table(["data set", "chunks, processor s", "sentences", "one pass for both"], times)
    yield f"{machine()}."


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--write", type=Path, help="file for the tables; what stands above them there stays")
    arguments = parser.parse_args()
    encoder = default_encoder()
    exported = exported_model(find_model(DEFAULT_MODEL), read_settings().cache / "models", Precision.INT8)
    if exported is None:
        raise SystemExit("The model could not be exported.")
    session = OnnxSession(exported)
    results = [compare_on(folder, encoder, session) for folder in arguments.folders]
    print_figures(list(report(results)), arguments.write)


if __name__ == "__main__":
    main()
