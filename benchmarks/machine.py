"""On what a benchmark ran."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

QUIET_LOAD = 0.5  # of the machine, above which its figures are not worth much


def machine() -> str:
    """Say on what kind of machine and when this runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"


def warning(load: float) -> str:
    """Say so if a machine did other work, by its load before a benchmark began; begins with a space, or is empty."""
    return f" **The machine was busy with other work: load {load:.1f}.**" if load > QUIET_LOAD else ""
