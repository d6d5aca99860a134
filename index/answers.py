"""Question to answer: the exact words of a document with their citation, or an honest "not found".

Everything that answers, over HTTP, in a chat, on the command line or in a batch, calls `answer_questions`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from index.citations import Citation
from index.citing import cite
from index.documents import HALF_SURROGATE, Span
from index.embeddings import ModelIdentity, QueryEncoder
from index.errors import ModelError, QuestionError
from index.filters import Filters, allowed_rows, check_filters
from index.instant import InstantEncoder
from index.kinds import Expected, expected_of
from index.models import ModelFiles
from index.reranking import RERANKED, Reranker
from index.retrieval import Passage, Wanted, retrieve
from index.store import OpenGeneration
from index.terms import asked_terms
from index.weights import AnswerWeights, EncoderName, Weights, default_weights

# How many questions are looked at in the same array operations: more gain nothing, as the arrays outgrow the cache.
TOGETHER = 8
MAX_QUESTION_CHARS = 4_000
MAX_TOP_K = 100
DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Question:
    """A question with what is wanted for it. Making one checks it.

    Attributes:
        text: 1 to 4,000 characters with at least one word.
        top_k: passages wanted, 1 to 100.
        filters: see `index.filters`; None searches everything.
        min_confidence: below it the question counts as not answered, 0 to 1; None for the fitted threshold.
        encoder: what is to encode it; None leaves that to whoever answers.

    Raises:
        QuestionError: one of them is outside its bounds.
    """

    text: str
    top_k: int = DEFAULT_TOP_K
    filters: Filters | None = None
    min_confidence: float | None = None
    encoder: EncoderName | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise QuestionError("The question is empty. Ask something.")
        if len(self.text) > MAX_QUESTION_CHARS:
            raise QuestionError(
                f"The question has {len(self.text):,} characters; at most {MAX_QUESTION_CHARS:,} can be asked. "
                "Shorten it to what you want to know."
            )
        if HALF_SURROGATE.search(self.text):
            raise QuestionError("The question is not valid Unicode: it has half a character. Send it as UTF-8.")
        if not asked_terms(self.text):
            raise QuestionError(f"The question {self.text.strip()[:40]!r} has no word in it. Ask in words.")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise QuestionError(f"top_k is {self.top_k}. Ask for 1 to {MAX_TOP_K} passages.")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise QuestionError(f"min_confidence is {self.min_confidence}. Give a number from 0 to 1.")
        check_filters(self.filters or {})


@dataclass(frozen=True)
class Quote:
    """Exact words of a document, and whence they come; `text` is `citation.quote`."""

    text: str
    citation: Citation


@dataclass(frozen=True)
class PassageScores:
    """What a passage's score is made of.

    Attributes:
        dense: cosine similarity of question and passage, 0 if below.
        lexical: BM25, 0 or more.
        sentence: cosine similarity of question and best sentence, 0 if below.
        reranker: probability that the passage is relevant, by the reranker; None if none has read it.
    """

    dense: float
    lexical: float
    sentence: float
    reranker: float | None = None


@dataclass(frozen=True)
class CitedPassage:
    """A passage as it is returned.

    Attributes:
        rank: from 1.
        score: fused relevance in [0, 1], higher is better.
        text: exact words.
        highlights: spans of `text`, in code points: the sentences that come nearest to the question.
        citation: of the whole passage.
        also_in: citations of passages that say the same.
    """

    rank: int
    score: float
    text: str
    highlights: tuple[Span, ...]
    scores: PassageScores
    citation: Citation
    also_in: tuple[Citation, ...]


@dataclass(frozen=True)
class Answer:
    """What a question gets.

    Attributes:
        answered: whether `confidence` reaches the threshold.
        confidence: probability that the first passage answers the question; 0 without a passage.
        answer: best sentence or neighbouring sentences of the first passage; None when not answered.
        passages: best first; the nearest ones when not answered.
        generation: name of the generation that was asked.
        model: that the generation was built with.
        took_ms: time from question to answer, in milliseconds; of what was done for several questions together an
            equal part.
        encoder: what made the question's embedding: the model, or the instant encoder.
        reranker: cross-encoder in whose order the passages are; None if they are in the order of their scores.
    """

    question: str
    answered: bool
    confidence: float
    answer: Quote | None
    passages: tuple[CitedPassage, ...]
    generation: str
    model: ModelIdentity
    took_ms: float = field(compare=False)
    encoder: EncoderName = "full"
    reranker: ModelFiles | None = None


def answer_questions(
    generation: OpenGeneration,
    encoder: QueryEncoder,
    questions: Sequence[Question],
    *,
    weights: Weights | None = None,
    reranker: Reranker | None = None,
) -> list[Answer]:
    """Answer questions from one generation.

    Args:
        generation: to answer from.
        encoder: of the model that the generation was built with, or the instant encoder for the generation; it
            encodes all the questions, so those that name another do not belong here.
        questions: in any number; each gets the answer it would get alone.
        weights: of scores and confidence; None for those that ship with the package for the encoder.
        reranker: puts the first passages in its order; None leaves them in that of their scores.

    Returns:
        One answer for each question, in their order.

    Raises:
        ModelError: the generation was built with another model.
    """
    check_model(generation, encoder)
    name = name_of(encoder)
    weights = weights or default_weights(name)
    started = time.perf_counter()
    embeddings = encoder.encode_queries([question.text for question in questions])
    encoding_ms = 1000 * (time.perf_counter() - started) / max(1, len(questions))
    # The questions of a batch mostly share one object of filters, which looks at every document.
    filters = {id(question.filters): question.filters for question in questions}
    allowed = {key: _allowed(generation, each) for key, each in filters.items()}
    answers: list[Answer] = []
    for first in range(0, len(questions), TOGETHER):
        asked = questions[first : first + TOGETHER]
        started = time.perf_counter()
        wanted = [
            Wanted(
                query=generation.lexical.query(question.text),
                embedding=embedding,
                top_k=question.top_k if reranker is None else max(question.top_k, RERANKED),
                allowed=allowed[id(question.filters)],
            )
            for question, embedding in zip(asked, embeddings[first : first + TOGETHER], strict=True)
        ]
        found = retrieve(generation, wanted, weights.score)
        shared_ms = encoding_ms + 1000 * (time.perf_counter() - started) / len(asked)
        answers += [
            _answer(generation, question, passages, weights, reranker, name, shared_ms)
            for question, passages in zip(asked, found, strict=True)
        ]
    return answers


def name_of(encoder: QueryEncoder) -> EncoderName:
    """Return what an encoder is called."""
    return "instant" if isinstance(encoder, InstantEncoder) else "full"


def check_model(generation: OpenGeneration, encoder: QueryEncoder) -> None:
    """Refuse questions encoded by another model than the generation's.

    Raises:
        ModelError: weights, tokenizer, configuration or precision differ.
    """
    built_with, asked_with = generation.manifest.model, encoder.identity
    if asked_with.files_sha256 != built_with.files_sha256:
        raise ModelError(
            f"The index was built with the model {built_with.name} ({built_with.sha256[:12]}…), the question would "
            f"be encoded by {asked_with.name} ({asked_with.sha256[:12]}…). Ask with "
            f"--model {built_with.name}, or rebuild: whence index --model {asked_with.name}"
        )
    if asked_with.precision != built_with.precision:
        backend = {"int8": "onnx", "float32": "onnx-float32"}
        raise ModelError(
            f"The index was built in {built_with.precision}, the question would be encoded in "
            f"{asked_with.precision}. Ask with --backend {backend[built_with.precision]}, or rebuild: "
            f"whence index --backend {backend[asked_with.precision]}"
        )


def _answer(
    generation: OpenGeneration,
    question: Question,
    passages: Sequence[Passage],
    weights: Weights,
    reranker: Reranker | None,
    encoder: EncoderName,
    shared_ms: float,
) -> Answer:
    started = time.perf_counter()
    if reranker is not None:
        passages = reranker.rerank(question.text, passages)[: question.top_k]
    expected = expected_of(question.text)
    highlights = [best_sentences(passage, weights.answer, expected) for passage in passages]
    confidence = _confidence(passages, weights)
    threshold = weights.confidence.threshold if question.min_confidence is None else question.min_confidence
    is_answered = bool(passages) and confidence >= threshold
    return Answer(
        question=question.text,
        answered=is_answered,
        confidence=confidence,
        answer=_quote(generation, passages[0], highlights[0]) if is_answered else None,
        passages=tuple(
            _cited(generation, rank, passage, highlight)
            for rank, (passage, highlight) in enumerate(zip(passages, highlights, strict=True), start=1)
        ),
        generation=generation.name,
        model=generation.manifest.model,
        took_ms=shared_ms + 1000 * (time.perf_counter() - started),
        encoder=encoder,
        reranker=None if reranker is None else reranker.model,
    )


def _allowed(generation: OpenGeneration, filters: Filters | None) -> np.ndarray | None:
    if not filters:
        return None
    return allowed_rows(filters, generation.document_records, generation.manifest.chunks)


def _confidence(passages: Sequence[Passage], weights: Weights) -> float:
    if not passages:
        return 0.0
    return weights.confidence.probability(passages[0].evidence)


def best_sentences(passage: Passage, weights: AnswerWeights, expected: Expected | None = None) -> Span:
    """Find the sentence of a passage that answers best, with the neighbours that do nearly as well.

    Args:
        passage: with similarity and coverage of each of its sentences.
        weights: of the parts of a sentence's score.
        expected: what an answer should hold; None if that is not known.

    Returns:
        The span of the sentences in the passage's text, in code points.
    """
    scores = [
        weights.similarity * similarity + weights.coverage * coverage
        for similarity, coverage in zip(passage.sentence_similarities, passage.sentence_coverages, strict=True)
    ]
    if expected is not None:
        # What is further behind could not even join the best.
        enough = weights.near_best * max(scores) - weights.kind
        texts = passage.chunk.sentence_texts
        scores = [
            score + weights.kind * expected.held_by(text) if score >= enough else score
            for score, text in zip(scores, texts, strict=True)
        ]
    best = scores.index(max(scores))
    enough = weights.near_best * scores[best]
    first = best - 1 if best > 0 and scores[best - 1] >= enough else best
    last = best + 1 if best + 1 < len(scores) and scores[best + 1] >= enough else best
    return passage.chunk.sentences[first][0], passage.chunk.sentences[last][1]


def _quote(generation: OpenGeneration, passage: Passage, span: Span) -> Quote:
    citation = cite(generation.corpus, passage.chunk, *span)
    return Quote(citation.quote, citation)


def _cited(generation: OpenGeneration, rank: int, passage: Passage, highlight: Span) -> CitedPassage:
    return CitedPassage(
        rank=rank,
        score=passage.score,
        text=passage.chunk.text,
        highlights=(highlight,),
        scores=PassageScores(passage.evidence.dense, passage.bm25, passage.evidence.sentence, passage.reranker),
        citation=cite(generation.corpus, passage.chunk),
        also_in=tuple(cite(generation.corpus, chunk) for chunk in passage.also_in),
    )
