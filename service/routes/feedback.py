"""What people say of answers, and what they look for and do not find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from index.answers import Answer, Question
from service.departures import departure
from service.feedback import CitedSpan, Complaint, Feedback, Missed, Rating
from service.insights import Group
from service.problems import documented
from service.schemas.feedback import (
    FeedbackJson,
    FeedbackReceiptJson,
    UnansweredGroupJson,
    UnansweredJson,
    UnansweredQuery,
)
from service.services import Here, Services

router = APIRouter(tags=["feedback"])

# Encoding one takes some milliseconds, once; what came less often than a thousand others can wait.
MAX_WORDINGS = 1_000
ASKED_TOGETHER = 8  # so that they leave room in the line for people


@router.post(
    "/v1/feedback",
    status_code=201,
    responses=documented(
        "invalid_question", "invalid_request", "malformed_json", "content_type", "storage_unavailable"
    ),
)
def give_feedback(body: FeedbackJson, services: Here) -> FeedbackReceiptJson:
    """Keep what somebody says of an answer; the question is kept with it."""
    cited = body.citation
    feedback = Feedback(
        question=Question(body.question).text,
        rating=Rating(body.rating),
        reason=body.reason,
        answered=body.answered,
        generation=body.generation,
        cited=None if cited is None else CitedSpan(cited.document, cited.start, cited.end),
    )
    return FeedbackReceiptJson(id=services.feedback.add(feedback))


@router.get(
    "/v1/insights/unanswered",
    response_model=UnansweredJson,
    responses=documented(
        "invalid_request", "starting", "overloaded", "deadline", "index_unavailable", "storage_unavailable"
    ),
)
async def unanswered(wanted: Annotated[UnansweredQuery, Query()], request: Request, services: Here) -> Response:
    """Group the questions that were not answered, or whose answer was thumbed down, with the passage nearest to each.

    They come from feedback, and from the log of questions when it is switched on (`WHENCE_QUESTION_LOG_DAYS`).
    """
    async with services.insights.turn:
        missed, groups, complaints = await run_in_threadpool(_find, wanted, services)
    shown = groups[: wanted.limit]
    answers = await _answers(shown, request, services)
    is_logged = services.feedback.logs_questions
    described = UnansweredJson(
        groups=[
            UnansweredGroupJson.of(group, complaints, answer) for group, answer in zip(shown, answers, strict=True)
        ],
        groups_found=len(groups),
        wordings=missed.wordings,
        wordings_grouped=len(missed.questions),
        asked=missed.asked if is_logged else None,
        unanswered=missed.unanswered if is_logged else None,
    )
    return Response(described.model_dump_json(), media_type="application/json")


def _find(wanted: UnansweredQuery, services: Services) -> tuple[Missed, list[Group], list[Complaint]]:
    """Return what was missed, all of it in groups, and the complaints about those that are wanted."""
    services.feedback.flush()
    missed = services.feedback.missed(days=wanted.days, at_most=MAX_WORDINGS)
    with services.serving.lease() as served:
        groups = services.insights.groups(missed.questions, served.encoder)
    texts = [wording.text for group in groups[: wanted.limit] for wording in group.wordings]
    return missed, groups, services.feedback.complaints(texts, days=wanted.days)


async def _answers(groups: Sequence[Group], request: Request, services: Services) -> list[Answer]:
    """Ask the question of each group as people do, but for one passage only."""
    min_confidence = services.settings.min_confidence
    questions = [Question(group.question, top_k=1, min_confidence=min_confidence) for group in groups]
    answers: list[Answer] = []
    for first in range(0, len(questions), ASKED_TOGETHER):
        together = questions[first : first + ASKED_TOGETHER]
        answers += await services.line.ask(together, gone=departure(request.receive), is_counted=False)
    return answers
