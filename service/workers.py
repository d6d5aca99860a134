"""The processes that answer, where there are several: copies of the one that starts and replaces them.

It has loaded the application by then, so that none of them has to, and they share the memory that it takes. It has
neither index nor model, and no threads, which a copy would be without.
"""

from __future__ import annotations

import multiprocessing
import signal
from socket import socket

from uvicorn import Config
from uvicorn.supervisors import multiprocess

FORK = multiprocessing.get_context("fork")


class Worker(multiprocess.Process):
    """A process that answers."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.process = FORK.Process(target=self._run, args=(sockets,))  # type: ignore[assignment]

    def start(self) -> None:
        """Start it; from then on its end of the pipe ends with it, so that its death is noticed at once."""
        super().start()
        self.child_conn.close()

    def _run(self, sockets: list[socket]) -> None:
        for number in multiprocess.SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # those of the supervisor, until the server has its own
        self.target(sockets)


def supervise(config: Config, listener: socket) -> list[multiprocess.Process]:
    """Start workers, replace those that end or hang, and end them all when this process is told to end.

    Returns:
        The workers, ended.
    """
    multiprocess.Process = Worker  # type: ignore[misc]  # uvicorn would have each load everything anew
    supervisor = multiprocess.Multiprocess(config, [listener])
    supervisor.run()
    return supervisor.processes
