"""The JSON of the wire: what every answer looks like over HTTP, on the command line and in a batch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from index.answers import Answer, CitedPassage, Quote
from index.citations import Citation, Verification


def _rounded(digits: int) -> Any:
    return BeforeValidator(lambda value: round(float(value), digits))


Score = Annotated[float, _rounded(4)]
Milliseconds = Annotated[float, _rounded(1)]


class _Schema(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True, protected_namespaces=())


class DocumentJson(_Schema):
    """The document of a citation."""

    id: str
    title: str
    uri: str | None
    media_type: str
    sha256: str
    metadata: dict[str, Any]


class CitationJson(_Schema):
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


class QuoteJson(_Schema):
    """The answer: exact words."""

    text: str
    citation: CitationJson

    @classmethod
    def of(cls, quote: Quote) -> QuoteJson:
        """Convert from the library's record."""
        return cls(text=quote.text, citation=CitationJson.of(quote.citation))


class HighlightJson(_Schema):
    """A span of a passage's text, in code points."""

    start: int
    end: int


class ScoresJson(_Schema):
    """What a passage's score is made of."""

    dense: Score
    lexical: Score
    sentence: Score


class PassageJson(_Schema):
    """A passage returned for a question."""

    rank: int
    score: Score
    text: str
    highlights: list[HighlightJson]
    scores: ScoresJson
    citation: CitationJson
    also_in: list[CitationJson]

    @classmethod
    def of(cls, passage: CitedPassage) -> PassageJson:
        """Convert from the library's record."""
        return cls(
            rank=passage.rank,
            score=passage.score,
            text=passage.text,
            highlights=[HighlightJson(start=start, end=end) for start, end in passage.highlights],
            scores=ScoresJson(dense=passage.dense, lexical=passage.lexical, sentence=passage.sentence),
            citation=CitationJson.of(passage.citation),
            also_in=[CitationJson.of(citation) for citation in passage.also_in],
        )


class ModelJson(_Schema):
    """The embedding model of a generation."""

    name: str
    sha256: str


class AnswerJson(_Schema):
    """What a question gets."""

    question: str
    answered: bool
    confidence: Score
    answer: QuoteJson | None
    passages: list[PassageJson]
    generation: str
    model: ModelJson
    took_ms: Milliseconds

    @classmethod
    def of(cls, answer: Answer) -> AnswerJson:
        """Convert from the library's record."""
        return cls(
            question=answer.question,
            answered=answer.answered,
            confidence=answer.confidence,
            answer=None if answer.answer is None else QuoteJson.of(answer.answer),
            passages=[PassageJson.of(passage) for passage in answer.passages],
            generation=answer.generation,
            model=ModelJson(name=answer.model_name, sha256=answer.model_sha256),
            took_ms=answer.took_ms,
        )


class VerificationJson(_Schema):
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
