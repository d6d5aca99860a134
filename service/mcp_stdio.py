"""The Model Context Protocol over standard input and output, for a program that starts `whence mcp` itself.

The same index, line and answers as those of the service. Standard output belongs to the protocol; the log goes to
standard error. The protocol answers at once, while index and model are still being opened.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from index.answers import Answer
from index.generations import Home
from index.sources import find_file
from index.state import State
from service.addresses import below
from service.feedback import FeedbackStore
from service.indexer import Indexer
from service.line import line_of
from service.logs import configure_logging
from service.mcp_server import Caller, Desk, make_server, uri_of
from service.metrics import Metrics
from service.models import find_chosen_reranker, load_chosen_reranker, load_model
from service.serving import Serving
from service.settings import Settings
from service.stores import chosen_store
from service.tasks import TaskQueue

logger = logging.getLogger(__name__)

STARTING_S = 45.0  # programs give a call up after a minute
POLL_S = 0.05


def serve_stdio(settings: Settings) -> None:
    """Answer on standard input and output until the input is closed.

    Raises:
        WhenceError: the state of the home is needed and cannot be opened, the home is another version's, or there is
            no such reranker.
    """
    find_chosen_reranker(settings)
    Home(settings.home).refuse_other_format()
    configure_logging(settings)
    # A thread waits for input, and only the end of the process ends it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with _opened(settings) as desk:
        anyio.run(_serve, make_server(desk))


async def _serve(server: Server[object]) -> None:
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    except* BrokenPipeError:
        logger.info("The client has left before it was answered")


@contextmanager
def _opened(settings: Settings) -> Iterator[Desk]:
    home, store, metrics = Home(settings.home), chosen_store(settings), Metrics()
    serving = Serving(
        home,
        lambda name: load_model(settings, settings.model or name),
        load_reranker=partial(load_chosen_reranker, settings),
        store=store,
        on_change=metrics.generation,
    )
    line = line_of(settings, serving, metrics)
    with ExitStack() as stack:
        if store is None and home.published_name() is None:
            stack.enter_context(_building(settings))
        note = stack.enter_context(_noting(settings))
        stack.callback(serving.stop)
        serving.start()
        stack.callback(line.close)
        line.start()
        caller = Caller(gone=anyio.sleep_forever, address=Addresses(settings, serving), note=note)
        yield Desk(settings, serving, line, caller=lambda _ctx: caller, ready=partial(_ready, serving))


@contextmanager
def _building(settings: Settings) -> Iterator[None]:
    """Let an indexer build an index where there is none, as the service does."""
    what = "one from the bundled documents" if settings.bundled else "an empty one"
    logger.info("No index in %s yet: building %s", settings.home, what)
    with State(settings.home) as state:
        tasks = TaskQueue(state)
        tasks.enqueue_sync(bundled=settings.bundled)
        indexer = Indexer(settings, tasks)
        indexer.start()
        try:
            yield
        finally:
            indexer.close()


@contextmanager
def _noting(settings: Settings) -> Iterator[Callable[[Answer], None]]:
    """Give what logs the question of an answer, if questions are to be logged."""
    if not settings.question_log_days:
        yield lambda _answer: None
        return
    days, feedback_days = settings.question_log_days, settings.feedback_days
    with (
        State(settings.home) as state,
        FeedbackStore(state, question_log_days=days, feedback_days=feedback_days) as store,
    ):
        yield store.log_question


async def _ready(serving: Serving) -> None:
    """Wait until something is served, but not longer than a program waits; whoever asks then is told."""
    with anyio.move_on_after(STARTING_S):
        while not serving.is_ready:
            await anyio.sleep(POLL_S)


class Addresses:
    """Makes links that open on this machine, where no service may be running.

    A document's own address stays. Another one is linked below `WHENCE_PUBLIC_URL`, if that is set; else as the file
    that it was read from, if that is still there; else as the resource that it is in the protocol.

    Args:
        settings: of the process.
        serving: whose documents are linked.
    """

    def __init__(self, settings: Settings, serving: Serving) -> None:
        self._public_url = settings.public_url
        self._serving = serving

    def __call__(self, doc_id: str, url: str) -> str:
        """Return an absolute address for one of a document."""
        if not url.startswith("/"):
            return url
        if self._public_url:
            return below(self._public_url)(url)
        file = self._file(doc_id)
        return uri_of(doc_id) if file is None else file.as_uri()

    def _file(self, doc_id: str) -> Path | None:
        with self._serving.lease() as served:
            with served.corpus_lock:
                record = served.corpus.document(doc_id)
            sources = {source.path: source for source in served.generation.manifest.sources}
        source = None if record is None else sources.get(record.source)
        if source is None or not Path(source.path).is_absolute():
            return None
        try:
            return find_file(source.source(), doc_id)
        except OSError:
            return None
