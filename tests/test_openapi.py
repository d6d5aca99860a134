"""The service does what its description says: every answer is documented, and nothing that is sent brings it down."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from handbook import Handbook
from live import serving

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from service.problems import CODES

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
LIMIT_S = 150


@pytest.fixture
def client(home: Home, encoder: Encoder, cache_folder: Path) -> httpx.Client:
    """A client of a service that anything may be done to."""
    sync(home, [Handbook()], encoder)
    with serving(home.path, cache_folder) as client:
        yield client  # type: ignore[misc]


def test_anything_that_fits_the_description_or_does_not_gets_a_documented_answer(
    client: httpx.Client, tmp_path: Path
) -> None:
    schemathesis = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            str(schemathesis),
            "run",
            f"{client.base_url}/openapi.json",
            f"--checks={CHECKS}",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=8",
            "--max-time=20",
            "--seed=1",
            "--request-timeout=20",
            "--no-color",
            "--suppress-health-check=all",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert client.get("/livez").status_code == 200


def test_every_operation_says_what_it_does_and_which_problems_it_has(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    operations = [
        (method, path, operation) for path, item in described["paths"].items() for method, operation in item.items()
    ]
    assert len(operations) > 15
    for method, path, operation in operations:
        assert operation.get("summary") and operation.get("description"), (method, path)
        problems = [
            status
            for status, response in operation["responses"].items()
            if re.search("Problem|Error", str(response.get("content")))
        ]
        assert "500" in problems, (method, path)
    assert set(described["components"]["schemas"]["Problem"]["required"]) >= {"code", "detail", "status"}


def test_every_code_is_documented_somewhere(client: httpx.Client) -> None:
    described = client.get("/openapi.json").text
    assert [
        code for code in CODES if f"`{code}`" not in described and code not in ("not_found", "method_not_allowed")
    ] == []
