"""Starting the service: its address, its processes, and its end."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from contextlib import closing
from functools import partial

from fastapi import FastAPI
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE

from index.calibration import calibration_of
from index.errors import WhenceError
from index.generations import Home
from index.state import State
from service.access import refuse_to_bind
from service.auth import KeyStore
from service.loading import loaded_for_good
from service.logs import configure_logging
from service.models import find_chosen_reranker
from service.protocol import HeadLimitProtocol
from service.settings import Settings
from service.shared_metrics import shared_metrics
from service.workers import supervise

logger = logging.getLogger(__name__)

BACKLOG = 2_048  # connections that the system holds until they are taken
KEEP_ALIVE_S = 30
SHUTDOWN_S = 30  # for the requests under way
WORKER_START_S = 60  # after which one that gives no sign of life is replaced; a busy machine is slow to start it


def serve(settings: Settings) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); requests under way are finished.

    Raises:
        WhenceError: the address needs a key and there is none, it cannot be listened on, or the home, its
            calibration or the reranker cannot be used.
    """
    find_chosen_reranker(settings)  # refused here rather than by every worker, as is a calibration
    manifest = Home(settings.home).known_manifest()
    with State(settings.home) as state:
        refuse_to_bind(settings, KeyStore(state))
    if manifest is not None:
        calibration_of(settings.home, manifest)
    configure_logging(settings)
    with closing(_listen(settings.host, settings.port)) as listener:
        logger.info("Whence is at %s", _address(listener, settings.root_path))
        if settings.workers == 1:
            _run_alone(settings, listener)
        else:
            _run_workers(settings, listener)


def worker_app(settings: Settings) -> FastAPI:
    """Build the application in the process that serves it."""
    with loaded_for_good():
        from service.app import create_app  # late, for `shared_metrics` to come first

    configure_logging(settings)
    return create_app(settings)


def _config(settings: Settings) -> Config:
    return Config(
        partial(worker_app, settings),
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        http=HeadLimitProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_worker_healthcheck=WORKER_START_S,
    )


def _run_alone(settings: Settings, listener: socket.socket) -> None:
    # uvicorn raises the signal that ended it once more; being asked to end is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    Server(_config(settings)).run(sockets=[listener])


def _run_workers(settings: Settings, listener: socket.socket) -> None:
    with shared_metrics():
        with loaded_for_good():
            import service.app  # noqa: F401  # of which the workers are copies
        workers = supervise(_config(settings), listener)
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers):
        sys.exit(STARTUP_FAILURE)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # from now on those who come wait until a worker is there
    except OSError as exc:
        raise WhenceError(
            f"{host} port {port} cannot be listened on: {exc.strerror or exc}. Choose another: --host, --port"
        ) from exc
    listener.set_inheritable(True)
    return listener


def _address(listener: socket.socket, root_path: str) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{root_path}/"
