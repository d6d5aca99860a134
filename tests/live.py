"""The real application over real HTTP, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from uvicorn import Config, Server
from waiting import until

from index.answers import Answer, Question
from index.weights import EncoderName
from service.app import create_app
from service.protocol import HeadLimitProtocol
from service.serving import Served
from service.settings import Settings

READY_S = 60.0


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an app on a free port; gives its address, without a slash at the end."""
    config = Config(
        app,
        port=0,
        loop="uvloop",
        http=HeadLimitProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, name="live")
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@contextmanager
def serving(home: Path, cache: Path, **given: object) -> Iterator[httpx.Client]:
    """Serve a home; gives a client of the service when it is ready."""
    settings = Settings.model_validate({"home": home, "cache": cache, **given})
    with running(create_app(settings)) as address, httpx.Client(base_url=address, timeout=30) as client:
        until(lambda: client.get("/readyz").status_code == httpx.codes.OK, seconds=READY_S)
        yield client


@contextmanager
def answers_held_back() -> Iterator[None]:
    """Let every question wait until the end of the block, in whatever service of this process."""
    over, answer = threading.Event(), Served.answer

    def answer_late(served: Served, questions: Sequence[Question], encoder: EncoderName) -> list[Answer]:
        assert over.wait(timeout=30)
        return answer(served, questions, encoder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Served, "answer", answer_late)
        try:
            yield
        finally:
            over.set()
