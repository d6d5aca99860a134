"""The instant encoder: a table of token vectors, and its adaptation to a corpus."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from handbook import Handbook
from live import serving
from scipy import sparse
from tiny_models import write_tiny_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from index import instant
from index.adaptation import adapt, fit, token_counts
from index.answers import Question, answer_questions
from index.build import sync
from index.embeddings import Encoder, ModelIdentity, ModelTokenizer, load_encoder
from index.errors import DamagedGenerationError, ModelError, QuestionError
from index.generations import Generation, Home
from index.instant import (
    InstantEncoder,
    has_instant,
    instant_beside,
    instant_encoder,
    load_instant,
    shipped_table,
)
from index.labels import first_passages
from index.models import DEFAULT_WEIGHTS_SHA256, find_model
from index.token_table import Adaptation, TokenTable, scaled
from index.weights import default_weights
from service.serving import Served

VOCABULARY = {"[UNK]": 0, "red": 1, "green": 2, "apple": 3, "##s": 4, "?": 5}
IDENTITY = ModelIdentity("tiny", "a" * 64, "b" * 64, dimension=4, max_tokens=16)
VECTORS = np.array(
    [[0, 0, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=np.float32
)
QUESTIONS = [
    "What is the difference between descriptive and inferential statistics?",
    "who wrote it",
    "naïve café in 東京?",
    "[MASK] [CLS] brackets [and] such",
    "x" * 150,
    "Don't e-mail me @ 10:30\tor\nat noon_time",
    "?",
    "How do I " + "really " * 300 + "mean it?",
]


@pytest.fixture
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.fixture
def table() -> TokenTable:
    return TokenTable.from_vectors(VECTORS, np.zeros(4, np.float32), model_sha256="a" * 64)


@pytest.fixture
def tiny(tokenizer: Tokenizer, table: TokenTable) -> InstantEncoder:
    return InstantEncoder(IDENTITY, ModelTokenizer(tokenizer, IDENTITY), table)


@pytest.fixture(scope="module")
def shipped() -> InstantEncoder:
    return load_instant(find_model())


def test_a_question_points_where_the_sum_of_its_tokens_does(tiny: InstantEncoder) -> None:
    (embedding,) = tiny.encode_queries(["Red apples"])
    expected = np.array([2, 0, 2, 1]) / 3
    assert np.allclose(embedding, expected, atol=1e-3)


def test_a_question_of_unknown_words_gives_zeros_or_the_bias_but_no_nan(
    tiny: InstantEncoder, tokenizer: Tokenizer, table: TokenTable
) -> None:
    assert tiny.encode_queries(["blue", "?", "\u200b"]).tolist() == [[0.0] * 4] * 3
    biased = replace(table, bias=np.array([0, 3, 0, 0], np.float32))
    encoder = InstantEncoder(IDENTITY, ModelTokenizer(tokenizer, IDENTITY), biased)
    assert encoder.encode_queries(["blue"]).tolist() == [[0, 1, 0, 0]]


def test_no_question_gives_no_row(tiny: InstantEncoder) -> None:
    assert tiny.encode_queries([]).shape == (0, 4)


def test_a_saved_table_is_the_same_after_loading(table: TokenTable, tmp_path: Path) -> None:
    path = tmp_path / "table.safetensors"
    table.save(path)
    loaded = TokenTable.load(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert loaded.rows.tolist() == table.rows.tolist()
    assert loaded.scales.tolist() == table.scales.tolist()
    assert loaded.bias.tolist() == table.bias.tolist()
    assert loaded.model_sha256 == "a" * 64


@pytest.mark.parametrize("content", [None, b"", b"altered"])
def test_a_table_that_is_missing_or_altered_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "table.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="Install Whence anew"):
        TokenTable.load(path, sha256="0" * 64)


def test_vectors_survive_as_bytes_to_within_their_step() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    vectors[7] = 0
    rows, scales = scaled(vectors)
    assert np.abs(rows * scales[:, None] - vectors).max() <= 0.6 * scales.max()
    assert rows[7].tolist() == [0] * 8
    assert np.abs(np.delete(rows, 7, axis=0)).max(axis=1).min() >= 126


def test_an_adaptation_replaces_the_vectors_of_its_tokens_and_no_others(tiny: InstantEncoder, tmp_path: Path) -> None:
    rows, scales = scaled(np.array([[0, 0, 0, 5]], np.float32))
    Adaptation(np.array([1], np.int32), rows, scales).save(tmp_path / "instant")
    adapted = tiny.adapted(Adaptation.load(tmp_path / "instant"))
    assert np.allclose(adapted.encode_queries(["red", "green"]), [[0, 0, 0, 1], [0, 1, 0, 0]], atol=1e-3)
    assert np.allclose(tiny.encode_queries(["red"]), [[1, 0, 0, 0]], atol=1e-3)


def test_an_adaptation_without_its_files_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedGenerationError, match=r"tokens\.npy"):
        Adaptation.load(tmp_path)


def test_counts_of_tokens_know_how_often_each_text_has_each() -> None:
    tokens, counts = token_counts([[7, 3, 7], [], [9]])
    assert tokens.tolist() == [3, 7, 9]
    assert counts.toarray().tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_the_fit_finds_what_least_squares_with_a_penalty_has() -> None:
    random = np.random.default_rng(1)
    counts = sparse.csr_array(random.integers(0, 3, (40, 6)).astype(np.float32))
    embeddings = random.normal(size=(40, 3)).astype(np.float32)
    vectors = random.normal(size=(6, 3)).astype(np.float32)
    bias = np.zeros(3, np.float32)
    sums = counts @ vectors
    lengths = np.linalg.norm(sums, axis=1)
    mean = lengths.mean()
    lengths = np.maximum(lengths, 0.2 * mean)
    inputs = counts.toarray() / lengths[:, None]
    gram = inputs.T @ inputs + 2.0 / mean**2 * np.eye(6)
    expected = np.linalg.solve(gram, inputs.T @ (embeddings - sums / lengths[:, None]))
    found = fit(counts, embeddings, vectors, bias, strength=2.0, steps=30)
    assert np.allclose(found, expected, atol=1e-4)


def test_a_corpus_without_texts_changes_nothing() -> None:
    tokens, counts = token_counts([])
    empty = np.empty((0, 4), np.float32)
    assert tokens.tolist() == []
    assert fit(counts, empty, empty, np.zeros(4, np.float32), strength=1, steps=2).shape == (0, 4)


def test_the_shipped_table_is_small_and_of_the_default_model() -> None:
    path = Path(instant.__file__).with_name(instant.TABLE)
    assert path.stat().st_size <= 12_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == instant.TABLE_SHA256
    assert shipped_table().model_sha256 == DEFAULT_WEIGHTS_SHA256
    assert shipped_table().rows.shape == (30_522, 384)


def test_another_model_has_no_instant_encoder() -> None:
    with pytest.raises(
        ModelError, match=r"default model all-MiniLM-L6-v2 only, not for other\. Ask with --encoder full"
    ):
        load_instant(replace(find_model(), name="other", sha256="0" * 64))


def test_it_says_of_the_model_what_the_full_encoder_says(shipped: InstantEncoder, encoder: Encoder) -> None:
    assert replace(shipped.identity, precision=encoder.identity.precision) == encoder.identity


def test_a_question_gets_the_same_bits_alone_and_among_others(shipped: InstantEncoder) -> None:
    together = shipped.encode_queries(QUESTIONS * 3)
    alone = np.concatenate([shipped.encode_queries([question]) for question in QUESTIONS])
    assert together.tobytes() == np.tile(alone, (3, 1)).tobytes()
    assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_plain_questions_get_the_ids_that_the_tokenizer_gives(shipped: InstantEncoder) -> None:
    choice = random.Random(0)
    characters = "abcXYZ019 .,'\"-_/\\^`{|}~@[]()\t\n\x07\x7fé東"
    texts = [*QUESTIONS, *("".join(choice.choices(characters, k=choice.randrange(40))) for _ in range(500))]
    tokenizer = Tokenizer.from_file(str(find_model().folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in texts:
        assert shipped._token_ids(text) == tokenizer.encode(text, add_special_tokens=False).ids, text


def test_questions_land_where_the_model_puts_them(shipped: InstantEncoder, encoder: Encoder) -> None:
    questions = [
        "Who wrote the book?",
        "When was the university founded?",
        "What is the largest city of the country?",
        "how does a vaccine work",
    ]
    cosines = np.einsum("ij,ij->i", shipped.encode_queries(questions), encoder.encode_queries(questions))
    assert cosines.min() > 0.75


RED = "What does the red light mean?"
ASKING = """
import sys
from service.cli import main
try:
    main()
finally:
    print("onnxruntime" in sys.modules, "scipy" in sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the handbook."""
    home = Home(tmp_path_factory.mktemp("instant"))
    sync(home, [Handbook()], encoder)
    return home.path


@pytest.fixture(scope="module")
def client(home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A service that has a place for one question, and answers more all the same."""
    with serving(home, cache_folder, queue=1, overload="instant") as client:
        yield client


def whence(home: Path, cache: Path, *arguments: str | Path) -> tuple[str, str]:
    """Run a command, and return what it printed, and which libraries it loaded."""
    environment = {**os.environ, "WHENCE_HOME": str(home), "WHENCE_CACHE": str(cache)}
    command = [sys.executable, "-c", ASKING, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()[-1]


def test_a_generation_is_adapted_to_its_own_words(handbook: Generation, encoder: Encoder) -> None:
    again = adapt(shipped_table(), encoder.tokenizer, handbook.corpus, handbook.sentences)
    adaptation = handbook.adaptation
    assert adaptation is not None
    words = encoder.tokenizer.ids(["kettle xylophone"])[0]
    assert np.isin(words[0], adaptation.tokens)
    assert not np.isin(words[1:], adaptation.tokens).any()
    for name in ("tokens", "rows", "scales"):
        assert getattr(again, name).tobytes() == getattr(adaptation, name).tobytes()


def test_adapted_questions_come_nearer_to_where_the_model_puts_them(
    handbook: Generation, encoder: Encoder, shipped: InstantEncoder
) -> None:
    questions = [RED, "How often should I descale the kettle?"]
    reference = encoder.encode_queries(questions)
    adapted = instant_encoder(handbook).encode_queries(questions)
    before = np.einsum("ij,ij->i", shipped.encode_queries(questions), reference)
    assert np.einsum("ij,ij->i", adapted, reference).mean() > before.mean()


def test_beside_a_loaded_model_a_question_gets_the_same_bits(handbook: Generation, encoder: Encoder) -> None:
    questions = [RED, "Straße, naïve café [MASK]", "How often should I descale the kettle?"]
    beside = instant_beside(encoder, handbook)
    assert beside is not None
    alone = instant_encoder(handbook)
    assert beside.identity == alone.identity
    assert beside.encode_queries(questions).tobytes() == alone.encode_queries(questions).tobytes()


def test_an_answer_names_its_encoder(handbook: Generation, encoder: Encoder) -> None:
    (full,) = answer_questions(handbook, encoder, [Question(RED)])
    (instant,) = answer_questions(handbook, instant_encoder(handbook), [Question(RED)])
    assert (full.encoder, instant.encoder) == ("full", "instant")
    assert instant.answer is not None
    assert instant.answer == full.answer
    (passage,) = first_passages(handbook, instant_encoder(handbook), [RED])
    assert instant.confidence == default_weights("instant").confidence.probability(passage.evidence)


def test_a_model_without_a_table_answers_in_full_only(tmp_path: Path, cache_folder: Path) -> None:
    name = str(write_tiny_model(tmp_path))
    encoder = load_encoder(name, cache_folder=cache_folder / "models")
    home = Home(tmp_path / "home")
    sync(home, [Handbook()], encoder)
    assert not has_instant(encoder.identity)
    with closing(home.open_current()) as generation:
        assert generation.adaptation is None
        with pytest.raises(ModelError, match="Ask with --encoder full"):
            instant_encoder(generation)
        assert instant_beside(encoder, generation) is None
        served = Served(generation, encoder, default_weights(), None)
        with closing(served.corpus), pytest.raises(QuestionError, match="Ask with the encoder full"):
            served.answer([Question(RED)], "instant")


def test_a_request_chooses_its_encoder(client: httpx.Client, home: Path, cache_folder: Path) -> None:
    full = client.post("/v1/ask", json={"question": RED}).json()
    posted = client.post("/v1/ask", json={"question": RED, "encoder": "instant"}).json()
    got = client.get("/v1/ask", params={"q": RED, "encoder": "instant"}).json()
    assert [answer["encoder"] for answer in (full, posted, got)] == ["full", "instant", "instant"]
    assert posted["answer"] == full["answer"]
    assert {**posted, "took_ms": 0} == {**got, "took_ms": 0}
    chat = {"messages": [{"role": "user", "content": RED}], "encoder": "instant"}
    assert client.post("/v1/chat", json=chat).json()["answer"]["encoder"] == "instant"
    refused = client.post("/v1/ask", json={"question": RED, "encoder": "quick"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


def test_what_finds_no_place_in_the_line_is_answered_at_once(client: httpx.Client) -> None:
    questions = [RED, {"question": RED, "encoder": "full"}, RED]
    answers = client.post("/v1/ask/batch", json={"questions": questions}).json()["answers"]
    assert [answer["encoder"] for answer in answers] == ["instant"] * 3
    refused = client.post("/v1/ask/batch", json={"questions": [RED] * 5})
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")


def test_a_batch_may_mix_encoders(home: Path, cache_folder: Path) -> None:
    with serving(home, cache_folder, encoder="instant") as client:
        questions = [RED, {"question": RED, "encoder": "full"}]
        answers = client.post("/v1/ask/batch", json={"questions": questions}).json()["answers"]
    assert [answer["encoder"] for answer in answers] == ["instant", "full"]


def test_the_command_line_gives_the_same_answer_and_loads_no_model(
    client: httpx.Client, home: Path, cache_folder: Path
) -> None:
    printed, loaded = whence(home, cache_folder, "ask", RED, "--encoder", "instant", "--json")
    over_http = client.post("/v1/ask", json={"question": RED, "encoder": "instant"}).json()
    assert {**json.loads(printed), "took_ms": 0} == {**over_http, "took_ms": 0}
    assert loaded == "False False"


def test_a_batch_by_the_instant_encoder_says_so(home: Path, cache_folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text(f"{RED}\n", encoding="utf-8")
    answers = tmp_path / "answers.jsonl"
    whence(home, cache_folder, "batch", questions, answers, "--input-format", "lines", "--encoder", "instant")
    assert json.loads(answers.read_text(encoding="utf-8"))["encoder"] == "instant"
    manifest = json.loads((tmp_path / "answers.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert manifest["settings"]["encoder"] == "instant"
