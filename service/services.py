"""What the routes work with, made once when the service starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from index.generations import Home
from index.state import State
from index.store import Store
from index.uploads import Uploads
from service.auth import KeyStore
from service.feedback import FeedbackStore
from service.indexer import Indexer
from service.insights import Insights
from service.line import Line
from service.metrics import Metrics
from service.openings import Openings
from service.serving import Serving
from service.settings import Settings
from service.tasks import TaskQueue
from service.watching import Watcher


@dataclass(frozen=True)
class Services:
    """The parts of a running service.

    Attributes:
        settings: as given to `create_app`.
        home: whose index is served.
        store: that the served generation comes from: the home itself, or one beyond this machine.
        state: of that home.
        serving: the generation that is served now.
        line: where questions wait.
        keys: who may do what.
        tasks: what is to be written.
        uploads: documents put over HTTP.
        indexer: does what the tasks ask for.
        watcher: enqueues a sync when a folder changes.
        feedback: what people said of answers, and the question log.
        metrics: counts and times.
        insights: groups questions without a good answer.
        openings: finds what a chat can be opened with.
    """

    settings: Settings
    home: Home
    store: Store
    state: State
    serving: Serving
    line: Line
    keys: KeyStore
    tasks: TaskQueue
    uploads: Uploads
    indexer: Indexer
    watcher: Watcher
    feedback: FeedbackStore
    metrics: Metrics
    insights: Insights = field(default_factory=Insights)
    openings: Openings = field(default_factory=Openings)


def services_of(request: Request) -> Services:
    """Return the services of the app that got a request."""
    return cast(Services, request.app.state.services)


async def _here(request: Request) -> Services:
    return services_of(request)  # in a coroutine, because a plain function would be called in a thread


Here = Annotated[Services, Depends(_here)]
