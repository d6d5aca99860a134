from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from index.embeddings import ModelIdentity
from index.manifest import FORMAT_VERSION, Manifest
from service.metrics import Metrics
from service.shared_metrics import FOLDER_VARIABLE, shared_metrics

MODEL = ModelIdentity("all-MiniLM-L6-v2", "53aa", "8c1b", 384, 256)


def manifest(number: int) -> Manifest:
    name = f"20261121T06000{number}Z-3f9c2a"
    return Manifest(name, FORMAT_VERSION, number, "2026-11-21T06:00:00", None, MODEL, {}, 5, 78, 400)


def samples(rendered: bytes) -> dict[str, float]:
    """Return the value of each sample by its name and labels, as they are written."""
    found = {}
    for family in text_string_to_metric_families(rendered.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_requests_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    metrics.request("/v1/ask", "POST", 200, 0.004)
    metrics.request("/v1/ask", "POST", 200, 0.2)
    metrics.request(None, "BREW", 404, 0.001)
    found = samples(metrics.render(tasks={}))
    assert found["whence_requests_total{method=POST,route=/v1/ask,status=200}"] == 2
    assert found["whence_requests_total{method=other,route=other,status=404}"] == 1
    assert found["whence_request_seconds_bucket{le=0.005,route=/v1/ask}"] == 1
    assert found["whence_request_seconds_bucket{le=0.25,route=/v1/ask}"] == 2
    assert found["whence_request_seconds_sum{route=/v1/ask}"] == pytest.approx(0.204)


def test_questions_are_counted_by_outcome_and_stages_are_timed() -> None:
    metrics = Metrics()
    metrics.question("answered")
    metrics.question("overloaded", 3)
    metrics.stage("waiting", 0.02)
    metrics.batch(7)
    metrics.queue(4)
    found = samples(metrics.render(tasks={"enqueued": 2, "failed": 0}))
    assert found["whence_questions_total{outcome=answered}"] == 1
    assert found["whence_questions_total{outcome=overloaded}"] == 3
    assert found["whence_questions_total{outcome=unanswered}"] == 0
    assert found["whence_stage_seconds_count{stage=waiting}"] == 1
    assert found["whence_stage_seconds_count{stage=answering}"] == 0
    assert found["whence_batch_questions_bucket{le=8.0}"] == 1
    assert found["whence_queue_questions"] == 4
    assert found["whence_tasks{status=enqueued}"] == 2
    assert found["whence_tasks{status=failed}"] == 0


def test_the_generation_that_is_served_is_shown_and_no_other() -> None:
    metrics = Metrics()
    before = samples(metrics.render(tasks={}))
    assert before["whence_ready"] == 0
    assert "whence_generation_chunks" not in before
    metrics.generation(manifest(1))
    metrics.generation(manifest(2))
    found = samples(metrics.render(tasks={}))
    assert found["whence_ready"] == 1
    assert found["whence_generation_number"] == 2
    assert found["whence_generation_documents"] == 5
    assert found["whence_generation_chunks"] == 78
    assert [name for name in found if name.startswith("whence_generation_info")] == [
        "whence_generation_info{model=all-MiniLM-L6-v2,name=20261121T060002Z-3f9c2a}"
    ]


def test_the_process_and_its_version_are_shown() -> None:
    found = samples(Metrics().render(tasks={}))
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert [name for name in found if name.startswith("whence_build_info{python=3.")]


def test_no_series_is_shown_twice() -> None:
    metrics = Metrics()
    metrics.request("/v1/ask", "GET", 200, 0.1)
    names = [line.rpartition(" ")[0] for line in metrics.render(tasks={}).decode().splitlines() if line[0] != "#"]
    assert len(names) == len(set(names))
    assert not [name for name in names if "_created" in name]


COUNTING = """
import sys
from index.embeddings import ModelIdentity
from index.manifest import Manifest
from service.metrics import Metrics
number = int(sys.argv[1])
metrics = Metrics()
metrics.request("/v1/ask", "GET", 200, 0.01)
metrics.queue(number)
metrics.generation(Manifest("g", 1, number, "", None, ModelIdentity("m", "", "", 1, 1), {}, 1, 1, 1))
print("counted", flush=True)
sys.stdin.readline()
sys.stdout.buffer.write(metrics.render(tasks={"enqueued": 1}))
"""


def counting(number: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def test_several_processes_count_together() -> None:
    with shared_metrics():
        assert Path(os.environ[FOLDER_VARIABLE]).is_dir()
        first, second, third = counting(5), counting(6), counting(7)
        first.kill()
        first.communicate(timeout=10)
        second_found, third_found = (
            samples(process.communicate("go\n", timeout=10)[0].encode()) for process in (second, third)
        )
    assert FOLDER_VARIABLE not in os.environ
    assert second_found["whence_requests_total{method=GET,route=/v1/ask,status=200}"] == 3
    assert second_found["whence_request_seconds_bucket{le=0.025,route=/v1/ask}"] == 3
    assert second_found["whence_queue_questions"] == 6 + 7  # what waited in a process that is gone waits no more
    assert second_found["whence_generation_number"] == 6
    assert second_found["whence_ready"] == 1
    assert second_found["whence_tasks{status=enqueued}"] == 1
    assert third_found["whence_queue_questions"] == 7
