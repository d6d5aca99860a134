"""A cross-encoder puts the first passages in its order, the same everywhere; without one nothing of it is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import serving
from sources_in_memory import MemorySource
from tiny_models import write_static_model, write_tiny_cross_encoder, write_tiny_model

from index.answers import Answer, Question, answer_questions
from index.build import sync
from index.embeddings import Encoder, load_encoder
from index.errors import ModelError
from index.generations import Generation, Home
from index.models import find_model
from index.reranking import RERANKED, Reranker, find_reranker, load_reranker
from service.batch_formats import OutputFormat
from service.batch_output import Shape, output_of
from service.schemas.answers import AnswerJson
from service.schemas.operations import StatusJson

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]
RED = "What does the red light of the router mean?"
QUESTIONS = [RED, "blue light", "Which light of the switch means that there is no power, and what is to be done?"]
COLOURS = ("red", "blue", "red blue", "green", "white")
STATES = ("no power", "no network", "a paper jam", "an update", "low ink", "a warm room")
TEXTS = {
    f"{place:02}.md": f"The {colour} light of the {'router' if place % 2 else 'switch'} means {state}.\n"
    for place, (colour, state) in enumerate((colour, state) for state in STATES for colour in COLOURS)
}
TEXTS["copy.md"] = TEXTS["01.md"].upper()
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the models and the home of this module."""
    return tmp_path_factory.mktemp("reranking")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A cross-encoder."""
    return write_tiny_cross_encoder(folder / "cross-encoder")


@pytest.fixture(scope="module")
def reranker(model: Path) -> Reranker:
    return load_reranker(str(model))


@pytest.fixture(scope="module")
def encoder(folder: Path, cache_folder: Path) -> Encoder:
    """A model that loads at once."""
    return load_encoder(str(write_tiny_model(folder)), cache_folder=cache_folder / "models")


@pytest.fixture(scope="module")
def home(folder: Path, encoder: Encoder) -> Home:
    """A home with more passages than are reranked."""
    home = Home(folder / "home")
    sync(home, [MemorySource(TEXTS)], encoder)
    return home


@pytest.fixture(scope="module")
def generation(home: Home) -> Iterator[Generation]:
    with closing(home.open_current()) as generation:
        yield generation


def doc_ids(answer: Answer) -> list[str]:
    return [passage.citation.document.id for passage in answer.passages]


def embedded_text(generation: Generation, doc_id: str) -> str:
    """Return what models read of a document of one chunk."""
    record = generation.corpus.document(doc_id)
    assert record is not None
    (chunk,) = generation.corpus.chunks([record.first_row])
    return chunk.embedded_text


def as_json(answer: Answer) -> dict[str, Any]:
    """Return an answer as it is everywhere."""
    fields: dict[str, Any] = json.loads(AnswerJson.of(answer).model_dump_json(exclude={"took_ms"}))
    return fields


def run(home: Home, cache_folder: Path, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, offline."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("WHENCE_")}
    places = {"WHENCE_HOME": str(home.path), "WHENCE_CACHE": str(cache_folder), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**bare, **places, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_the_first_passages_are_in_the_order_of_the_cross_encoder(
    generation: Generation, encoder: Encoder, reranker: Reranker
) -> None:
    (plain,) = answer_questions(generation, encoder, [Question(RED, top_k=100)])
    (reranked,) = answer_questions(generation, encoder, [Question(RED, top_k=100)], reranker=reranker)
    first, rest = doc_ids(plain)[:RERANKED], doc_ids(plain)[RERANKED:]
    assert len(rest) == len(TEXTS) - 1 - RERANKED
    logits = reranker.logits(RED, [embedded_text(generation, doc_id) for doc_id in first])
    expected = [first[place] for place in np.argsort(-logits, kind="stable")]
    assert expected != first
    assert doc_ids(reranked) == expected + rest
    assert [passage.rank for passage in reranked.passages] == list(range(1, len(TEXTS)))
    shown = [passage.scores.reranker for passage in reranked.passages]
    assert shown[:RERANKED] == pytest.approx(sorted(1 / (1 + np.exp(-logits)), reverse=True))
    assert shown[RERANKED:] == [None] * len(rest)


def test_a_passage_is_the_same_but_for_its_rank(generation: Generation, encoder: Encoder, reranker: Reranker) -> None:
    (plain,) = answer_questions(generation, encoder, [Question(RED, top_k=100)])
    (reranked,) = answer_questions(generation, encoder, [Question(RED, top_k=100)], reranker=reranker)
    before = {passage.citation.document.id: passage for passage in plain.passages}
    for passage in reranked.passages:
        plainly = replace(passage, rank=1, scores=replace(passage.scores, reranker=None))
        assert plainly == replace(before[passage.citation.document.id], rank=1)
    assert [len(passage.also_in) for passage in reranked.passages].count(1) == 1  # the copy
    first = reranked.passages[0].citation.document.id
    alone = Question(RED, top_k=1, filters={"doc_id": first})
    assert reranked.confidence == answer_questions(generation, encoder, [alone])[0].confidence != plain.confidence


def test_the_order_does_not_depend_on_how_many_are_wanted(
    generation: Generation, encoder: Encoder, reranker: Reranker
) -> None:
    (most,) = answer_questions(generation, encoder, [Question(RED, top_k=100)], reranker=reranker)
    for top_k in (1, 3, RERANKED, RERANKED + 2):
        (answer,) = answer_questions(generation, encoder, [Question(RED, top_k=top_k)], reranker=reranker)
        assert answer.passages == most.passages[:top_k]


def test_a_question_gets_the_same_alone_and_with_others(
    generation: Generation, encoder: Encoder, reranker: Reranker
) -> None:
    asked = [Question(text, top_k=top_k) for text in QUESTIONS for top_k in (2, 30)]
    together = answer_questions(generation, encoder, [*asked, *reversed(asked)], reranker=reranker)
    alone = [answer_questions(generation, encoder, [question], reranker=reranker)[0] for question in asked]
    assert together == [*alone, *reversed(alone)]


def test_nothing_found_is_nothing_reranked(generation: Generation, encoder: Encoder, reranker: Reranker) -> None:
    nowhere = Question(RED, filters={"doc_id": "nowhere.md"})
    (answer,) = answer_questions(generation, encoder, [nowhere], reranker=reranker)
    assert (answer.passages, answer.confidence, answer.answered) == ((), 0.0, False)


def test_the_json_names_the_reranker_and_is_as_ever_without_one(
    generation: Generation, encoder: Encoder, reranker: Reranker
) -> None:
    question = Question(RED, top_k=RERANKED + 1)
    (plain,) = answer_questions(generation, encoder, [question])
    (reranked,) = answer_questions(generation, encoder, [question], reranker=reranker)
    fields = as_json(reranked)
    assert fields["reranker"] == {"name": reranker.model.name, "sha256": reranker.model.sha256}
    names = [list(passage["scores"]) for passage in fields["passages"]]
    assert names == [["dense", "lexical", "sentence", "reranker"]] * RERANKED + [["dense", "lexical", "sentence"]]
    assert "reranker" not in AnswerJson.of(plain).model_dump_json()


def test_the_service_and_the_commands_give_the_answer_of_the_library(
    home: Home, generation: Generation, encoder: Encoder, reranker: Reranker, model: Path, cache_folder: Path
) -> None:
    answers = answer_questions(generation, encoder, [Question(text) for text in QUESTIONS], reranker=reranker)
    expected = [as_json(answer) for answer in answers]
    with serving(home.path, cache_folder, reranker=str(model)) as client:
        served = client.post("/v1/ask/batch", json={"questions": QUESTIONS}).json()["answers"]
        alone = client.get("/v1/ask", params={"q": RED}).json()
        ready = client.get("/readyz").json()
        described = client.get("/openapi.json").json()["components"]["schemas"]
    assert [{**answer, "took_ms": 0} for answer in served] == [{**fields, "took_ms": 0} for fields in expected]
    assert {**alone, "took_ms": 0} == {**expected[0], "took_ms": 0}
    assert ready == {"status": "ok", "reranker": expected[0]["reranker"]}
    assert "reranker" not in [*described["AnswerJson"]["required"], *described["ScoresJson"]["required"]]
    done = run(home, cache_folder, "ask", RED, "--json", "--reranker", model)
    assert done.stderr == ""
    assert {**json.loads(done.stdout), "took_ms": 0} == {**expected[0], "took_ms": 0}


def test_readiness_names_no_reranker_where_there_is_none(home: Home, cache_folder: Path) -> None:
    with serving(home.path, cache_folder) as client:
        assert client.get("/readyz").json() == {"status": "ok"}


def test_the_status_names_the_reranker_of_the_settings(
    home: Home, generation: Generation, cache_folder: Path, model: Path
) -> None:
    files = find_reranker(str(model))
    done = run(home, cache_folder, "status", WHENCE_RERANKER=str(model))
    assert f"\nReranker {model}, SHA-256 {files.sha256}\n" in done.stdout
    fields = StatusJson.of(generation.manifest, home=home.path, reranker=files).model_dump()
    assert fields["reranker"] == {"name": str(model), "sha256": files.sha256, "files_sha256": files.files_sha256}
    assert StatusJson.of(generation.manifest, home=home.path).reranker is None


def test_a_batch_is_reranked_and_does_not_go_on_with_another_reranker(
    home: Home,
    generation: Generation,
    encoder: Encoder,
    reranker: Reranker,
    model: Path,
    cache_folder: Path,
    tmp_path: Path,
) -> None:
    texts = QUESTIONS * 11  # enough for two processes
    asked, out = tmp_path / "q.txt", tmp_path / "a.jsonl"
    asked.write_text("\n".join(texts))
    done = run(home, cache_folder, "batch", asked, out, "--reranker", model, "--workers", "2")
    assert (done.returncode, done.stderr[:8]) == (0, "33 rows:")
    answers = answer_questions(generation, encoder, [Question(text) for text in QUESTIONS], reranker=reranker)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines == [as_json(answer) for answer in answers] * 11
    manifest = json.loads(out.with_name("a.jsonl.manifest.json").read_text())
    files = find_reranker(str(model))
    assert manifest["reranker"] == {"name": str(model), "sha256": files.sha256, "files_sha256": files.files_sha256}
    plain = run(home, cache_folder, "batch", asked, out)
    assert plain.returncode == 1
    assert "--restart" in plain.stderr


def test_a_run_of_a_batch_has_scores_in_the_order_of_the_reranker(
    generation: Generation, encoder: Encoder, reranker: Reranker
) -> None:
    (answer,) = answer_questions(generation, encoder, [Question(RED, top_k=30)], reranker=reranker)
    rendered = output_of(Shape(OutputFormat.TREC, top_k=30)).render(answer).decode()
    rows = [line.split() for line in rendered.splitlines()]
    assert [row[1] for row in rows] == doc_ids(answer)
    scores = [float(row[3]) for row in rows]
    assert scores == sorted(set(scores), reverse=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "somebody/no-such-reranker",
            r"The reranker .* is not on this machine\. Fetch it .*\(hf download somebody/no",
        ),
        ("no such reranker", r"Give a folder with a cross-encoder, or a hub name"),
        ("embedding", r"is no cross-encoder: it does not judge a question and a passage together.*--reranker"),
        ("plain", r"is no cross-encoder"),
        ("static", r"is no cross-encoder"),
        (
            "all-MiniLM-L6-v2",
            r"The reranker all-MiniLM-L6-v2 is not on this machine",
        ),
        ("labels", r"judges by 3 labels; a reranker has one"),
        ("unsafe", r"holds no \*\.safetensors weights.*can run code"),
        ("altered", r"sentence-transformers cannot load the model"),
        ("malformed", r"config\.json in .* cannot be read"),
    ],
)
def test_what_is_no_reranker_is_refused(
    name: str, message: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    prepare = {
        "embedding": lambda: write_tiny_model(tmp_path / "tiny"),
        "plain": lambda: write_tiny_model(tmp_path / "tiny").parent / "plain",
        "static": lambda: write_static_model(tmp_path / "static"),
        "labels": lambda: write_tiny_cross_encoder(tmp_path / "labels", labels=3),
        "unsafe": lambda: without_safetensors(model, tmp_path / "unsafe"),
        "altered": lambda: with_text(model, tmp_path / "altered", "model.safetensors", "no weights"),
        "malformed": lambda: with_text(model, tmp_path / "malformed", "config.json", "{"),
    }
    with pytest.raises(ModelError, match=f"(?s){message}"):
        load_reranker(str(prepare[name]()) if name in prepare else name)


def without_safetensors(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def with_text(model: Path, folder: Path, name: str, text: str) -> Path:
    shutil.copytree(model, folder)
    (folder / name).write_text(text)
    return folder


def test_another_configuration_makes_another_reranker(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    other = with_text(model, tmp_path / "other", "tokenizer_config.json", json.dumps({**config, "note": "x"}))
    one, two = find_reranker(str(model)), find_reranker(str(other))
    assert one.sha256 == two.sha256
    assert one.files_sha256 != two.files_sha256


def test_a_model_saved_by_sentence_transformers_judges_as_it_did(model: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    saved = CrossEncoder(str(model), device="cpu", local_files_only=True)
    saved.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert (tmp_path / "saved" / "modules.json").is_file()
    texts = [*TEXTS.values(), "", "A text that is cut off. " * 100]
    expected = saved.predict([(RED, text) for text in texts], activation_fn=torch.nn.Identity())
    assert load_reranker(str(tmp_path / "saved")).logits(RED, texts) == pytest.approx(expected, abs=1e-5)


def test_code_that_comes_with_a_model_is_not_run(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-code"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"}
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.activation.ReLU"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    expected = load_reranker(str(model)).logits(RED, ["red light", "x"])
    assert load_reranker(str(folder)).logits(RED, ["red light", "x"]).tolist() == expected.tolist()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["serve", "mcp", "ask", "batch"])
def test_every_command_refuses_what_is_no_reranker(
    command: str, home: Home, cache_folder: Path, tmp_path: Path
) -> None:
    asked, out = tmp_path / "q.txt", tmp_path / "a.jsonl"
    asked.write_text(RED)
    arguments = {"ask": [RED], "batch": [asked, out], "serve": ["--port", "0"], "mcp": []}[command]
    done = run(home, cache_folder, command, *arguments, "--reranker", find_model().folder)
    assert done.returncode == 1
    assert re.fullmatch(r"whence: The model .* is no cross-encoder: .*--reranker\.\n", done.stderr)
    assert not out.exists()
