from __future__ import annotations

from pathlib import Path

import httpx
from handbook import Handbook
from live import running, serving
from prometheus_client.parser import text_string_to_metric_families

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from service.app import create_app
from service.settings import Settings


def test_a_service_without_an_index_lives_and_is_not_ready(tmp_path: Path, cache_folder: Path) -> None:
    app = create_app(Settings(home=tmp_path / "home", cache=cache_folder))
    with running(app) as address, httpx.Client(base_url=address) as client:
        live, ready = client.get("/livez"), client.get("/readyz")
        assert (live.status_code, live.json()) == (200, {"status": "ok"})
        assert (ready.status_code, ready.json()["code"]) == (503, "starting")
        assert ready.headers["Retry-After"] == "1"
        assert "whence_ready 0.0" in client.get("/metrics").text.splitlines()


def test_metrics_tell_of_questions_and_of_the_generation(home: Home, encoder: Encoder, cache_folder: Path) -> None:
    sync(home, [Handbook()], encoder)
    with serving(home.path, cache_folder) as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        for question in ("What does the red light mean?", "Who wrote the opera Tosca?"):
            client.post("/v1/ask", json={"question": question}).raise_for_status()
        for path in ("/", "/static/nothing.js", "/nothing", "/openapi.json", "/documents/kettle.md"):
            client.get(path)
        response = client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    outcomes = {sample.labels["outcome"]: sample.value for sample in families["whence_questions"].samples}
    routes = {sample.labels["route"] for sample in families["whence_requests"].samples}
    assert response.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert (outcomes["answered"], outcomes["unanswered"]) == (1, 1)
    assert families["whence_generation_documents"].samples[0].value == 6
    assert families["whence_tasks"].samples[0].labels == {"status": "enqueued"}
    assert {"/v1/ask", "/readyz", "/", "/documents/{doc_id:path}", "/openapi.json", "other"} <= routes
    assert not [route for route in routes if "nothing" in route or "kettle" in route]
