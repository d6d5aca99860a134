"""Where the metrics of several processes come together; to be entered before `service.metrics` is loaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client, when it is imported


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Let the processes that are started within the block count together; each of them answers for all."""
    with tempfile.TemporaryDirectory(prefix="whence-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]
