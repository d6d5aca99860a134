"""Questions, and the answer that is the same over HTTP, on the command line and in a batch; citations, checked."""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json

from index.answers import Answer, CitedPassage, PassageScores, Quote
from index.citations import Citation, Verification
from index.weights import EncoderName
from service.schemas.base import SCORE_DIGITS, TIME_DIGITS, Milliseconds, RequestSchema, Schema, Score, is_none

MAX_BATCH = 256
MAX_CITATIONS = 100
# Of which the JSON is kept, because the same chunks are found again and again. About 15 MB when they are all taken.
WRITTEN_CITATIONS = 4_096

_json = partial(to_json, inf_nan_mode="null")  # as pydantic writes the fields of a model


class DocumentJson(Schema):
    """The document of a citation."""

    id: str
    title: str
    uri: str | None
    media_type: str
    sha256: str
    metadata: dict[str, Any]


class CitationJson(Schema):
    """Whence a quote comes."""

    document: DocumentJson
    start: int
    end: int
    first_line: int
    last_line: int
    page: int | None
    headings: list[str]
    quote: str
    prefix: str
    suffix: str
    url: str

    @classmethod
    def of(cls, citation: Citation) -> CitationJson:
        """Convert from the library's record."""
        return cls.model_validate(citation)


class QuoteJson(Schema):
    """The answer: exact words."""

    text: str
    citation: CitationJson


class HighlightJson(Schema):
    """A span of a passage's text, in code points."""

    start: int
    end: int


def _highlight(span: object) -> object:
    return dict(zip(("start", "end"), span, strict=True)) if isinstance(span, tuple) else span


class ScoresJson(Schema):
    """What a passage's score is made of, and what the reranker says of it."""

    dense: Score
    lexical: Score
    sentence: Score
    reranker: Score | None = Field(
        None, description="Probability that it is relevant, by the reranker, if it was read.", exclude_if=is_none
    )


class PassageJson(Schema):
    """A passage returned for a question."""

    rank: int
    score: Score
    text: str
    highlights: list[Annotated[HighlightJson, BeforeValidator(_highlight)]]
    scores: ScoresJson
    citation: CitationJson
    also_in: list[CitationJson]


class ModelJson(Schema):
    """A model: that of a generation, or a reranker."""

    name: str
    sha256: str


class AnswerJson(Schema):
    """What a question gets."""

    question: str
    answered: bool
    confidence: Score
    answer: QuoteJson | None
    passages: list[PassageJson]
    generation: str
    model: ModelJson
    encoder: EncoderName = Field(
        description="What encoded the question: the model, or a table of its tokens, which is faster and less exact."
    )
    reranker: ModelJson | None = Field(
        None, description="In whose order the passages are, if one is used.", exclude_if=is_none
    )
    took_ms: Milliseconds

    @classmethod
    def of(cls, answer: Answer) -> AnswerJson:
        """Convert from the library's record."""
        return cls.model_validate(answer)


def answer_json(answer: Answer, *, include: Container[str] | None = None) -> bytes:
    """Write an answer as `AnswerJson` does, byte for byte, in a small part of the time.

    Nothing is made that is only written: no models, and what a citation says is written once.

    Args:
        answer: to be written.
        include: the names of the fields that are wanted; None for all.
    """
    fields: dict[str, Sequence[bytes] | None] = {
        "question": [_json(answer.question)],
        "answered": [b"true" if answer.answered else b"false"],
        "confidence": [_number(answer.confidence)],
        "answer": [b"null"] if answer.answer is None else _quote_parts(answer.answer),
        "passages": [b"[", b",".join(map(_passage_json, answer.passages)), b"]"],
        "generation": [_json(answer.generation)],
        "model": [_model_json(answer.model.name, answer.model.sha256)],
        "encoder": [_json(answer.encoder)],
        "reranker": None if answer.reranker is None else [_model_json(answer.reranker.name, answer.reranker.sha256)],
        "took_ms": [_number(answer.took_ms, TIME_DIGITS)],
    }
    written: list[bytes] = []
    for name, parts in fields.items():
        if parts is not None and (include is None or name in include):
            written += (b',"' if written else b'{"', name.encode(), b'":', *parts)
    return b"".join((*(written or (b"{",)), b"}"))


class _Itself:
    """A record as a key that is equal to nothing but that very record: quicker to find than by its fields."""

    __slots__ = ("record",)

    def __init__(self, record: Citation) -> None:
        self.record = record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.record is other.record

    def __hash__(self) -> int:
        return id(self.record)


@lru_cache(WRITTEN_CITATIONS)
def _written(key: _Itself) -> tuple[bytes, bytes]:
    """Return the JSON of a citation, and that of its quote alone."""
    citation = key.record
    document = citation.document
    record = {
        "document": {
            "id": document.id,
            "title": document.title,
            "uri": document.uri,
            "media_type": document.media_type,
            "sha256": document.sha256,
            "metadata": document.metadata,
        },
        "start": citation.start,
        "end": citation.end,
        "first_line": citation.first_line,
        "last_line": citation.last_line,
        "page": citation.page,
        "headings": citation.headings,
        "quote": citation.quote,
        "prefix": citation.prefix,
        "suffix": citation.suffix,
        "url": citation.url,
    }
    return _json(record), _json(citation.quote)


def _quote_parts(quote: Quote) -> Sequence[bytes]:
    citation, text = _written(_Itself(quote.citation))
    return (
        b'{"text":',
        text if quote.text == quote.citation.quote else _json(quote.text),
        b',"citation":',
        citation,
        b"}",
    )


def _passage_json(passage: CitedPassage) -> bytes:
    citation, text = _written(_Itself(passage.citation))
    return b'{"rank":%d,"score":%b,"text":%b,"highlights":[%b],"scores":%b,"citation":%b,"also_in":[%b]}' % (
        passage.rank,
        _number(passage.score),
        text if passage.text == passage.citation.quote else _json(passage.text),
        b",".join([b'{"start":%d,"end":%d}' % span for span in passage.highlights]),
        _scores_json(passage.scores),
        citation,
        b",".join([_written(_Itself(other))[0] for other in passage.also_in]),
    )


def _scores_json(scores: PassageScores) -> bytes:
    numbers = _number(scores.dense), _number(scores.lexical), _number(scores.sentence)
    if scores.reranker is None:
        return b'{"dense":%b,"lexical":%b,"sentence":%b}' % numbers
    return b'{"dense":%b,"lexical":%b,"sentence":%b,"reranker":%b}' % (*numbers, _number(scores.reranker))


def _model_json(name: str, sha256: str) -> bytes:
    return _json({"name": name, "sha256": sha256})


def _number(value: float, digits: int = SCORE_DIGITS) -> bytes:
    return to_json(round(float(value), digits))


class AskJson(RequestSchema):
    """A question over HTTP."""

    question: str = Field(description="1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100; 5 unless the service is set otherwise.")
    filters: dict[str, Any] | None = Field(
        None,
        description='Field -> value, list of values, or a range such as {"gte": 2024}; {"prefix": "guide/"}.',
        examples=[{"doc_id": {"prefix": "rust-"}}],
    )
    min_confidence: float | None = Field(
        None, description="Below it the question is not answered, 0 to 1; the fitted threshold if unset."
    )
    encoder: EncoderName | None = Field(
        None, description="What is to encode it: full or instant; full unless the service is set otherwise."
    )


class AskQuery(BaseModel):
    """A question in an address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: str = Field(description="The question, 1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100.")
    filter: list[str] = Field([], description="FIELD=VALUE, or a JSON object of filters; may be repeated.")
    min_confidence: float | None = Field(None, description="Below it the question is not answered, 0 to 1.")
    encoder: EncoderName | None = Field(None, description="What is to encode the question: full or instant.")


class AskBatchJson(RequestSchema):
    """Several questions over HTTP, each a text or an object."""

    questions: list[str | AskJson] = Field(min_length=1, max_length=MAX_BATCH)


class AnswersJson(Schema):
    """The answers of a batch, in the order of its questions."""

    answers: list[AnswerJson]


class VerifyJson(RequestSchema):
    """Saved citations: bare, or within the passages or answers in which they came."""

    citations: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_CITATIONS)


class VerificationJson(Schema):
    """What became of a citation."""

    document: str
    quote: str
    status: str
    start: int | None
    end: int | None
    same_source: bool

    @classmethod
    def of(cls, verification: Verification) -> VerificationJson:
        """Convert from the library's record."""
        return cls(
            document=verification.citation.doc_id,
            quote=verification.citation.quote,
            status=verification.standing.value,
            start=verification.start,
            end=verification.end,
            same_source=verification.is_same_source,
        )


class VerificationsJson(Schema):
    """What became of citations, in their order, each once; against the generation that is served."""

    results: list[VerificationJson]
    generation: str
