"""Asking, and checking what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import Scope

from index.answers import Answer, Question
from index.citations import PresentText, SavedCitation, Verification, verify
from index.errors import QuestionError
from service.departures import departure
from service.filter_syntax import parse_filters
from service.problems import Problem, documented
from service.schemas.answers import (
    MAX_CITATIONS,
    AnswerJson,
    AnswersJson,
    AskBatchJson,
    AskJson,
    AskQuery,
    VerificationJson,
    VerificationsJson,
    VerifyJson,
    answer_json,
)
from service.schemas.problems import FieldProblemJson
from service.services import Here, Services, services_of
from service.verification import citations_in

router = APIRouter(tags=["asking"])

TEXTS_AT_ONCE = 4  # documents kept in memory while citations are checked
REFUSED = ("invalid_request", "malformed_json", "content_type")
WAITING = ("starting", "overloaded", "deadline", "index_unavailable")


@router.post(
    "/v1/ask",
    response_model=AnswerJson,
    responses=documented("invalid_question", *REFUSED, *WAITING),
)
async def ask(body: AskJson, request: Request) -> Response:
    """Answer a question in the exact words of the documents, or say that they do not answer it."""
    services = services_of(request)
    return await _answer(question_of(body, services), request, services)


@router.get(
    "/v1/ask",
    response_model=AnswerJson,
    responses=documented("invalid_question", "invalid_request", *WAITING),
)
async def ask_by_address(asked: Annotated[AskQuery, Query()], request: Request, services: Here) -> Response:
    """Answer a question that is given in the address."""
    body = AskJson(
        question=asked.q,
        top_k=asked.top_k,
        filters=parse_filters(asked.filter),
        min_confidence=asked.min_confidence,
        encoder=asked.encoder,
    )
    return await _answer(question_of(body, services), request, services)


@router.post(
    "/v1/ask/batch",
    response_model=AnswersJson,
    responses=documented("invalid_question", *REFUSED, *WAITING),
)
async def ask_batch(body: AskBatchJson, request: Request, services: Here) -> Response:
    """Answer up to 256 questions; each gets the answer it would get alone."""
    questions = [_question_at(place, given, services) for place, given in enumerate(body.questions)]
    answers = await services.line.ask(questions, gone=departure(request.receive))
    log_questions(answers, request.scope, services)
    written = b",".join(map(answer_json, answers))
    return Response(b'{"answers":[%b]}' % written, media_type="application/json")


@router.post(
    "/v1/verify",
    response_model=VerificationsJson,
    responses=documented("invalid_citation", *REFUSED, "starting"),
)
def verify_citations(body: VerifyJson, services: Here) -> VerificationsJson:
    """Hold saved citations against the documents as they are indexed now: found, moved, changed or gone.

    `whence verify` on the machine itself holds them against the files.
    """
    citations = citations_in(body.citations)
    if not 1 <= len(citations) <= MAX_CITATIONS:
        raise Problem(
            "invalid_citation", f"There are {len(citations)} citations in the body. Send 1 to {MAX_CITATIONS}."
        )
    results, generation = _verified(citations, services)
    return VerificationsJson(results=[VerificationJson.of(result) for result in results], generation=generation)


async def _answer(question: Question, request: Request, services: Services) -> Response:
    (answer,) = await services.line.ask([question], gone=departure(request.receive))
    log_questions([answer], request.scope, services)
    return Response(answer_json(answer), media_type="application/json")


def question_of(body: AskJson, services: Services) -> Question:
    """Return what a body asks, with what the settings say where it says nothing.

    Raises:
        QuestionError: it is outside its bounds.
    """
    settings = services.settings
    return Question(
        body.question,
        top_k=settings.top_k if body.top_k is None else body.top_k,
        filters=body.filters,
        min_confidence=settings.min_confidence if body.min_confidence is None else body.min_confidence,
        encoder=body.encoder,
    )


def _question_at(place: int, given: str | AskJson, services: Services) -> Question:
    try:
        return question_of(AskJson(question=given) if isinstance(given, str) else given, services)
    except QuestionError as error:
        field = FieldProblemJson(pointer=f"/questions/{place}", detail=str(error))
        raise Problem("invalid_question", f"Question {place + 1}: {error}", fields=[field]) from error


def log_questions(answers: Sequence[Answer], scope: Scope, services: Services) -> None:
    """Note down what was asked, as far as the settings want it."""
    if services.settings.log_questions:
        scope["questions"] = [answer.question for answer in answers]
    for answer in answers:
        services.feedback.log_question(answer)


def _verified(citations: list[SavedCitation], services: Services) -> tuple[list[Verification], str]:
    with services.serving.lease() as served:

        @lru_cache(maxsize=TEXTS_AT_ONCE)
        def present_text(doc_id: str) -> PresentText | None:
            with served.corpus_lock:
                record = served.corpus.document(doc_id)
                return None if record is None else PresentText(served.corpus.text(record), record.sha256)

        return [verify(citation, present_text) for citation in citations], served.generation.name
