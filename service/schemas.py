"""The JSON of the wire: what every answer looks like over HTTP, on the command line and in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from index.answers import Answer, CitedPassage, Quote
from index.build import SyncReport
from index.citations import Citation, Verification
from index.manifest import Manifest

if TYPE_CHECKING:  # the metrics library takes half a second to load
    from index.evaluation import Measurement


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


class ModelIdentityJson(ModelJson):
    """Everything that decides which embedding a text gets."""

    files_sha256: str
    dimension: int
    max_tokens: int
    query_prompt: str
    document_prompt: str


class SourceJson(_Schema):
    """A source of a generation."""

    path: str
    prefix: str
    documents: int
    is_bundled: bool


class FileJson(_Schema):
    """A file of a generation."""

    size: int
    sha256: str


class StatusJson(_Schema):
    """The published generation, and where it is."""

    home: str
    name: str
    format_version: int
    number: int
    created: str
    parent: str | None
    model: ModelIdentityJson
    making: dict[str, str | int]
    documents: int
    chunks: int
    sentences: int
    sources: list[SourceJson]
    files: dict[str, FileJson]

    @classmethod
    def of(cls, manifest: Manifest, *, home: Path) -> StatusJson:
        """Convert from the library's record."""
        return cls.model_validate({"home": str(home), **vars(manifest)})


class GenerationJson(_Schema):
    """A generation in the list of them; `model` is the model's name."""

    name: str
    number: int
    created: str
    parent: str | None
    documents: int
    chunks: int
    sentences: int
    model: str
    published: bool

    @classmethod
    def of(cls, manifest: Manifest, *, published: bool) -> GenerationJson:
        """Convert from the library's record."""
        return cls.model_validate({**vars(manifest), "model": manifest.model.name, "published": published})


class RejectedJson(_Schema):
    """A file that could not be read."""

    path: str
    reason: str


class SyncReportJson(_Schema):
    """What a sync did."""

    generation: str
    is_new: bool
    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int
    rejected: list[RejectedJson]
    encoded: int
    documents: int
    chunks: int
    sentences: int
    pruned: list[str]

    @classmethod
    def of(cls, report: SyncReport) -> SyncReportJson:
        """Convert from the library's record."""
        return cls.model_validate(report)


class PublishedJson(_Schema):
    """The generation that was published again or restored."""

    published: str


class BackupJson(_Schema):
    """A backup that was written."""

    generation: str
    file: str


class MeasurementJson(_Schema):
    """The mean of a metric over the queries, with its 95 % interval."""

    mean: float
    low: float
    high: float


class EvaluationJson(_Schema):
    """The metrics of one way of retrieval, each under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, MeasurementJson]

    retrieval: str

    @classmethod
    def of(cls, retrieval: str, measured: Mapping[str, Measurement]) -> EvaluationJson:
        """Convert from the library's records."""
        return cls.model_validate({"retrieval": retrieval, **measured})
