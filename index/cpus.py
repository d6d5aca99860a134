"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Count the processors that this process may use: by its affinity, and by what its container allows.

    Args:
        cgroups: where control groups are mounted, of version 2 or 1.
        own: the file that tells the group of this process.

    Returns:
        At least 1; a share of a processor counts as a whole one.
    """
    allowed = [quota for folder in _own_folders(cgroups, own) if (quota := _quota(folder)) is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, allowed)]))


def _own_folders(cgroups: Path, own: Path) -> list[Path]:
    """Return the folders that limit this process: its group's and those above it."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        root = cgroups if not controllers else cgroups / controllers
        if not controllers or "cpu" in controllers.split(","):
            folder = root / group.lstrip("/")
            folders += [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    return folders


def _quota(folder: Path) -> float | None:
    """Return how many processors a control group may keep busy; None when it says nothing or sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max" is no number: no limit
        return None
