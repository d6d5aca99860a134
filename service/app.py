"""The application: routes, middleware and what they work with, put together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI, Request

from index.generations import Home
from index.state import State
from index.uploads import Uploads
from service.access import Access, Cors, Gate, describe_access
from service.auth import KeyStore
from service.bodies import BodyLimits
from service.departures import handle_departures
from service.feedback import FeedbackStore
from service.headers import SecurityHeaders
from service.indexer import Indexer
from service.line import line_of
from service.logs import RequestLog
from service.metrics import Metrics
from service.models import load_chosen_reranker, load_model
from service.prefix import Prefix
from service.problems import Problem, describe_forms, documented, handle_problems
from service.routes import (
    asking,
    chat,
    deep_chat,
    documents,
    feedback,
    generations,
    mcp,
    openai,
    operations,
    pages,
    retrieval,
    tasks,
)
from service.routes.mcp import mcp_running
from service.schemas.problems import ProblemJson
from service.services import Services, services_of
from service.serving import Serving
from service.settings import Settings
from service.shortcut import Shortcut
from service.stores import chosen_store
from service.tasks import TaskQueue
from service.watching import Watcher

logger = logging.getLogger(__name__)

ANYWHERE = (
    "malformed_request",
    "head_timeout",
    "head_too_large",
    "host_refused",
    "key_required",
    "key_unknown",
    "key_expired",
    "scope_missing",
    "origin_refused",
    "body_timeout",
    "body_too_large",
    "rate_exceeded",
    "internal",
)
# A worker that takes the place of another one answers no question with "starting": it opens the index first.
OPENING_S = 20.0
READING = ("GET", "HEAD")
DESCRIPTION = "Answers questions in the exact words of a team's documents, and says whence they come."


def create_app(settings: Settings) -> FastAPI:
    """Build the application; index and model are loaded when it starts.

    Raises:
        StateError: the state of the home cannot be opened.
    """
    services = _services(settings)
    app = FastAPI(
        title="Whence",
        version=version("whence"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        responses=documented(*ANYWHERE),
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.services = services
    chats = (chat, openai, deep_chat, mcp)
    writing = (documents, tasks, generations)
    for module in (asking, *chats, retrieval, documents, tasks, generations, feedback, operations, pages):
        app.include_router(module.router, dependencies=[Depends(_refuse_to_write)] if module in writing else [])
    handle_problems(app)
    handle_departures(app)
    _add_middleware(app, services)
    app.openapi = partial(_openapi, app, app.openapi)  # type: ignore[method-assign]
    return app


def _services(settings: Settings) -> Services:
    store = chosen_store(settings)
    home, state, metrics = Home(settings.home), State(settings.home), Metrics()
    serving = Serving(
        home,
        lambda name: load_model(settings, settings.model or name),
        load_reranker=partial(load_chosen_reranker, settings),
        cached_answers=settings.answer_cache,
        store=store,
        on_change=metrics.generation,
    )
    tasks = TaskQueue(state)
    indexer = Indexer(settings, tasks)
    return Services(
        settings=settings,
        home=home,
        store=home if store is None else store,
        state=state,
        serving=serving,
        line=line_of(settings, serving, metrics),
        keys=KeyStore(state),
        tasks=tasks,
        uploads=Uploads(settings.home, state),
        indexer=indexer,
        watcher=Watcher(home, tasks, wake=indexer.wake, is_wanted=settings.watch),
        feedback=FeedbackStore(
            state, question_log_days=settings.question_log_days, feedback_days=settings.feedback_days
        ),
        metrics=metrics,
    )


async def _refuse_to_write(request: Request) -> None:
    """Refuse to change an index that is in a store beyond this machine, which has one writer and many readers."""
    if request.method not in READING and services_of(request).settings.store is not None:
        raise Problem(
            "method_not_allowed",
            "The index is in a store that is only read here. Change it where it is built: whence index PATH --store.",
            headers={"Allow": ", ".join(READING)},
        )


def _add_middleware(app: FastAPI, services: Services) -> None:
    """Put around the routes what every request passes, from the inside out."""
    settings, keys, metrics = services.settings, services.keys, services.metrics
    app.add_middleware(Shortcut, services=services)
    app.add_middleware(BodyLimits, max_body=settings.max_body, max_upload=settings.max_upload)
    app.add_middleware(Access, settings=settings, keys=keys)
    app.add_middleware(Cors, settings=settings, keys=keys)
    app.add_middleware(Gate, settings=settings, keys=keys)
    app.add_middleware(RequestLog, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Prefix, root_path=settings.root_path)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    await anyio.to_thread.run_sync(_start, services)
    try:
        async with mcp_running(app):
            yield
    finally:
        await anyio.to_thread.run_sync(_stop, services)


def _start(services: Services) -> None:
    is_elsewhere = services.settings.store is not None
    has_index = is_elsewhere or services.home.published_name() is not None
    if not has_index:
        what = "one from the bundled documents" if services.settings.bundled else "an empty one"
        logger.info("No index in %s yet: building %s", services.home.path, what)
        services.tasks.enqueue_sync(bundled=services.settings.bundled)
    services.serving.start(wait_s=OPENING_S if has_index else 0.0)
    services.line.start()
    services.feedback.start()
    services.indexer.start()
    services.watcher.start()


def _stop(services: Services) -> None:
    """Answer what waits, then let go of everything; what is to be written is taken up at the next start."""
    services.line.close()
    services.watcher.close()
    services.indexer.close()
    services.serving.stop()
    services.feedback.close()
    services.keys.close()
    services.state.close()


def _openapi(app: FastAPI, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Describe the service, with the form of every problem."""
    described = make()
    schemas = described["components"]["schemas"]
    if "Problem" not in schemas:
        problem = ProblemJson.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        describe_forms(described)
        describe_access(described, app.state.services.settings)
    return described
