"""The processors that may be used are those of the affinity and of the container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from index.cpus import usable_cpus

ALL = len(os.sched_getaffinity(0))


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path, tmp_path / "missing") == ALL


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", ALL), ("100000 100000", 1), ("50000 100000", 1), ("9900000 100000", ALL)]
)
def test_the_limit_of_the_container_counts(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "own").write_text("0::/service/inner\n")
    (tmp_path / "service" / "inner").mkdir(parents=True)
    (tmp_path / "service" / "cpu.max").write_text(f"{limit}\n")
    (tmp_path / "service" / "inner" / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(tmp_path, tmp_path / "own") == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", ALL), ("100000", 1), ("nonsense", ALL)])
def test_control_groups_of_version_1_count_as_well(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "own").write_text("5:memory:/x\n4:cpu,cpuacct:/service\n")
    folder = tmp_path / "cpu,cpuacct" / "service"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path, tmp_path / "own") == expected
