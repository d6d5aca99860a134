"""Counts and times for Prometheus.

Labels take few values: a route is its template, never a path, and nothing that a client makes up becomes a label.
Several processes count together when they are started within `service.shared_metrics`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from index.manifest import Manifest
from service.shared_metrics import FOLDER_VARIABLE

MEDIA_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
# Seconds; an answer takes a few milliseconds, an upload may take minutes.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Outcome = Literal["answered", "unanswered", "overloaded", "deadline", "gone"]
Stage = Literal["waiting", "answering"]


class Metrics:
    """What a service counts and measures; its methods may be called from any thread."""

    def __init__(self) -> None:
        # A second series for each one, which nothing reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self._registry = registry
        self._folder = os.environ.get(FOLDER_VARIABLE)
        self._manifest: Manifest | None = None
        self._requests = Counter(
            "whence_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "whence_request_seconds", "Time to answer a request.", ["route"], buckets=BUCKETS, registry=registry
        )
        self._questions = Counter(
            "whence_questions", "Questions, by what became of them.", ["outcome"], registry=registry
        )
        self._stage_seconds = Histogram(
            "whence_stage_seconds", "Time of a question in a stage.", ["stage"], buckets=BUCKETS, registry=registry
        )
        self._batch_questions = Histogram(
            "whence_batch_questions", "Questions answered together.", buckets=BATCH_BUCKETS, registry=registry
        )
        self._queue_questions = Gauge(
            "whence_queue_questions", "Questions that wait.", multiprocess_mode="livesum", registry=registry
        )
        self._ready = Gauge(
            "whence_ready", "Whether every process can answer.", multiprocess_mode="livemin", registry=registry
        )
        self._number = Gauge(
            "whence_generation_number",
            "Number of the oldest generation that a process serves.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        if self._folder is None:
            ProcessCollector(registry=registry)
        # Looked up once, and there from the start: a rate needs the zero before the first one.
        self._outcomes = {outcome: self._questions.labels(outcome) for outcome in get_args(Outcome)}
        self._stages = {stage: self._stage_seconds.labels(stage) for stage in get_args(Stage)}

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: its template; None when there is none.
            method: of HTTP, in capitals.
            status: of HTTP; 499 when the client left before there was one.
            seconds: from its head to the end of the response.
        """
        self._requests.labels(route or OTHER, method if method in METHODS else OTHER, status).inc()
        self._request_seconds.labels(route or OTHER).observe(seconds)

    def question(self, outcome: Outcome, count: int = 1) -> None:
        """Count questions by what became of them."""
        self._outcomes[outcome].inc(count)

    def stage(self, stage: Stage, seconds: float) -> None:
        """Record how long a question was in a stage."""
        self._stages[stage].observe(seconds)

    def batch(self, size: int) -> None:
        """Record how many questions were answered together."""
        self._batch_questions.observe(size)

    def queue(self, length: int) -> None:
        """Set how many questions wait now."""
        self._queue_questions.set(length)

    def generation(self, manifest: Manifest) -> None:
        """Set what is served now; a process that serves a generation is ready."""
        self._manifest = manifest
        self._number.set(manifest.number)
        self._ready.set(1)

    def render(self, *, tasks: Mapping[str, int]) -> bytes:
        """Return everything in the text format of Prometheus, as `MEDIA_TYPE`.

        Args:
            tasks: how many tasks there are, by status.
        """
        registry = CollectorRegistry()
        registry.register(_Now(self._manifest, tasks))
        if self._folder is None:
            registry.register(self._registry)
        else:
            _forget_dead_processes(Path(self._folder))
            MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class _Now(Collector):
    """What is known when somebody looks, rather than counted."""

    def __init__(self, manifest: Manifest | None, tasks: Mapping[str, int]) -> None:
        self._manifest = manifest
        self._tasks = tasks

    def collect(self) -> Iterable[Metric]:
        yield _info(
            "whence_build_info",
            "What runs here.",
            {"version": importlib.metadata.version("whence"), "python": platform.python_version()},
        )
        tasks = GaugeMetricFamily("whence_tasks", "Tasks, by status.", labels=["status"])
        for status, count in self._tasks.items():
            tasks.add_metric([status], count)
        yield tasks
        if self._manifest is not None:
            yield from _of_generation(self._manifest)


def _of_generation(manifest: Manifest) -> Iterator[Metric]:
    yield _info(
        "whence_generation_info", "The generation served.", {"name": manifest.name, "model": manifest.model.name}
    )
    yield GaugeMetricFamily("whence_generation_documents", "Documents in it.", value=manifest.documents)
    yield GaugeMetricFamily("whence_generation_chunks", "Chunks in it.", value=manifest.chunks)


def _info(name: str, help_text: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _forget_dead_processes(folder: Path) -> None:
    """Drop the gauges of processes that ended; their counts stay."""
    for path in folder.glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _is_running(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
