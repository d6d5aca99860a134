"""All backends give a model's embeddings, with its prompts, and a text gets the same bits in any batch."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sources_in_memory import MemorySource
from tiny_models import DIMENSION, MAX_TOKENS, word_piece_tokenizer, write_static_model, write_tiny_model

from index.answers import Question, answer_questions
from index.build import sync
from index.embeddings import (
    BATCH_TEXTS,
    Encoder,
    ModelIdentity,
    ModelTokenizer,
    OnnxEncoder,
    TorchEncoder,
    load_encoder,
)
from index.errors import ModelError
from index.generations import Home
from index.models import DEFAULT_MODEL, find_model
from index.onnx_export import EXACT, GRAPH, OnnxSession, Precision, _optimised, exported_model

QUESTION = "How much memory did Pingora save?"
TEXTS = [
    QUESTION,
    "Straße, naïve café, 東京タワー and 🦀",
    "a",
    "The red light means that there is no power. " * 40,
    "",
]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with mean pooling and prompts."""
    return write_tiny_model(tmp_path_factory.mktemp("mean"), prompts={"query": "query: ", "document": "passage: "})


@pytest.fixture(scope="module")
def tiny_encoder(tiny_model: Path, cache_folder: Path) -> Encoder:
    return load_encoder(str(tiny_model), cache_folder=cache_folder / "models")


@pytest.fixture(scope="module")
def exact_encoder(cache_folder: Path) -> Encoder:
    return load_encoder(DEFAULT_MODEL, cache_folder=cache_folder / "models", backend="onnx-float32")


@pytest.fixture(scope="module")
def torch_encoder(cache_folder: Path) -> Encoder:
    return load_encoder(DEFAULT_MODEL, cache_folder=cache_folder / "models", backend="torch")


def test_the_embedding_of_a_known_question(encoder: Encoder) -> None:
    (embedding,) = encoder.encode_queries([QUESTION])
    assert embedding.shape == (384,)
    assert embedding.dtype == np.float32
    expected = [0.108340, 0.039529, -0.034549, 0.010635, 0.038404, 0.017826]
    np.testing.assert_allclose(embedding[:6], expected, atol=0.02)


def test_in_float32_the_embedding_of_a_known_question_is_that_of_the_reference(exact_encoder: Encoder) -> None:
    (embedding,) = exact_encoder.encode_queries([QUESTION])
    expected = [0.108340, 0.039529, -0.034549, 0.010635, 0.038404, 0.017826]
    np.testing.assert_allclose(embedding[:6], expected, atol=2e-6)


def test_the_identity_of_the_default_model(encoder: Encoder) -> None:
    model = find_model()
    expected = ModelIdentity(DEFAULT_MODEL, model.sha256, model.files_sha256, 384, 256, precision="int8")
    assert encoder.identity == expected
    assert encoder.tokenizer.max_tokens == 256


def test_all_backends_agree_on_the_default_model(
    encoder: Encoder, exact_encoder: Encoder, torch_encoder: Encoder
) -> None:
    assert isinstance(exact_encoder, OnnxEncoder)
    assert isinstance(torch_encoder, TorchEncoder)
    assert exact_encoder.identity == torch_encoder.identity
    for one in ("encode_queries", "encode_documents"):
        reference, exact, integers = (getattr(each, one)(TEXTS) for each in (torch_encoder, exact_encoder, encoder))
        np.testing.assert_allclose(exact, reference, atol=1e-6)
        assert np.sum(integers * reference, axis=1).min() > 0.98


def test_embeddings_have_unit_length(encoder: Encoder) -> None:
    for embeddings in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows(encoder: Encoder, torch_encoder: Encoder) -> None:
    for each in (encoder, torch_encoder):
        assert each.encode_queries([]).shape == (0, 384)
        assert each.encode_documents([]).shape == (0, 384)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_question_gets_the_same_bits_alone_and_in_a_batch(
    encoder: Encoder, torch_encoder: Encoder, backend: str
) -> None:
    each = encoder if backend == "onnx" else torch_encoder
    together = each.encode_queries(TEXTS)
    alone = [each.encode_queries([text])[0] for text in TEXTS]
    assert together.tobytes() == np.stack(alone).tobytes()


def test_documents_come_back_in_their_order_whatever_their_length(encoder: Encoder, torch_encoder: Encoder) -> None:
    texts = [f"{'word ' * (position * 7 % 40)}number {position}" for position in range(BATCH_TEXTS + 10)]
    together, by_torch = encoder.encode_documents(texts), torch_encoder.encode_documents(texts)
    for position in (0, 1, BATCH_TEXTS, len(texts) - 1):
        assert together[position].tobytes() == encoder.encode_documents([texts[position]])[0].tobytes()
        (alone,) = torch_encoder.encode_documents([texts[position]])
        np.testing.assert_allclose(by_torch[position], alone, atol=1e-6)


def test_progress_counts_every_document_once(encoder: Encoder, torch_encoder: Encoder) -> None:
    for each in (encoder, torch_encoder):
        steps: list[int] = []
        each.encode_documents(["a", "b c", "d"] * 30, on_progress=steps.append)
        assert sum(steps) == 90


def test_a_long_question_is_the_mean_of_its_windows(encoder: Encoder) -> None:
    question = "Which " + " ".join(f"service{number} saved memory" for number in range(120)) + "?"
    windows = encoder.tokenizer.windows(question)
    assert len(windows) > 1
    assert max(encoder.tokenizer.count(windows)) <= 256
    assert "".join(windows).replace(" ", "") == question.replace(" ", "")
    mean = np.mean([encoder.encode_queries([window])[0] for window in windows], axis=0)
    (embedding,) = encoder.encode_queries([question])
    np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_end_of_a_long_question_counts(encoder: Encoder) -> None:
    start = "Tell me about the weather. " * 60
    one, other = encoder.encode_queries([start + "How do I descale the kettle?", start + "Who wrote it?"])
    assert not np.allclose(one, other, atol=0.01)


def test_an_unknown_backend_is_refused(cache_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no backend 'gpu'\. Choose one of onnx, onnx-float32, torch"):
        load_encoder(DEFAULT_MODEL, cache_folder=cache_folder, backend="gpu")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("prompts", [{}, {"query": "query: ", "document": "passage: "}])
def test_backends_agree_on_any_model(tmp_path: Path, pooling: str, prompts: dict[str, str]) -> None:
    name = str(write_tiny_model(tmp_path, pooling=pooling, prompts=prompts))
    onnx = load_encoder(name, cache_folder=tmp_path / "cache", backend="onnx-float32")
    torch = load_encoder(name, cache_folder=tmp_path / "cache", backend="torch")
    assert isinstance(onnx, OnnxEncoder)
    assert onnx.identity == torch.identity
    np.testing.assert_allclose(onnx.encode_queries(TEXTS), torch.encode_queries(TEXTS), atol=1e-6)
    np.testing.assert_allclose(onnx.encode_documents(TEXTS), torch.encode_documents(TEXTS), atol=1e-6)


def test_pooling_makes_a_difference(tmp_path: Path, cache_folder: Path) -> None:
    mean, cls = (
        load_encoder(str(write_tiny_model(tmp_path / pooling, pooling=pooling)), cache_folder=cache_folder / "models")
        for pooling in ("mean", "cls")
    )
    assert not np.allclose(mean.encode_queries([QUESTION]), cls.encode_queries([QUESTION]), atol=0.01)


def test_prompts_stand_before_questions_and_documents(
    tiny_encoder: Encoder, tiny_model: Path, tmp_path: Path, cache_folder: Path
) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "without"))
    settings = json.loads((copy / "config_sentence_transformers.json").read_text())
    settings["prompts"] = {}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    plain = load_encoder(str(copy), cache_folder=cache_folder / "models")
    question, document = "what is the red light", "the red light is a router"
    assert tiny_encoder.encode_queries([question]).tobytes() == plain.encode_queries([f"query: {question}"]).tobytes()
    assert (
        tiny_encoder.encode_documents([document]).tobytes()
        == plain.encode_documents([f"passage: {document}"]).tobytes()
    )


def test_the_limit_of_a_model_is_its_own(tiny_encoder: Encoder) -> None:
    assert tiny_encoder.identity.max_tokens == MAX_TOKENS
    # "passage: " is two tokens.
    assert tiny_encoder.tokenizer.max_tokens == MAX_TOKENS - 2
    assert tiny_encoder.tokenizer.count(["the red light", ""]) == [5, 2]
    assert tiny_encoder.tokenizer.spans("the red") == [(0, 3), (4, 7)]


def test_windows_leave_room_for_the_prompt_of_questions(tiny_encoder: Encoder) -> None:
    windows = tiny_encoder.tokenizer.windows(" ".join(["light"] * 100))
    # 48 tokens, without two special ones and two of the prompt.
    assert [len(window.split()) for window in windows] == [44, 44, 12]
    (short,) = tiny_encoder.tokenizer.windows("  what is it ")
    assert short == "  what is it "


def test_a_model_of_unusual_build_runs_on_torch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = str(write_tiny_model(tmp_path, has_dense=True))
    encoder = load_encoder(name, cache_folder=tmp_path / "cache")
    assert isinstance(encoder, TorchEncoder)
    assert "is of an unusual build: it runs on torch" in caplog.text
    assert encoder.encode_queries(TEXTS).shape == (len(TEXTS), DIMENSION)


def test_a_static_model_runs_on_torch(tmp_path: Path) -> None:
    encoder = load_encoder(str(write_static_model(tmp_path / "static")), cache_folder=tmp_path / "cache")
    assert isinstance(encoder, TorchEncoder)
    # It averages the vectors of its tokens, so their order says nothing.
    one, other = encoder.encode_queries(["the red light", "light red the"])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_index_is_made_and_asked_with_any_model(tiny_encoder: Encoder, home: Home) -> None:
    source = MemorySource({"router.md": "# Router\n\nThe red light means no power.\n\nThe blue light is a switch.\n"})
    report = sync(home, [source], tiny_encoder)
    assert report.chunks == report.encoded == 1
    generation = home.open_current()
    assert generation.manifest.model == tiny_encoder.identity
    question = Question("What does the red light mean?", min_confidence=0)
    (answer,) = answer_questions(generation, tiny_encoder, [question])
    assert answer.answer is not None
    assert "red light means no power" in answer.answer.text
    generation.close()


def test_questions_of_another_model_are_refused(tiny_encoder: Encoder, encoder: Encoder, home: Home) -> None:
    sync(home, [MemorySource({"a.md": "The red light means no power."})], tiny_encoder)
    generation = home.open_current()
    tiny = re.escape(tiny_encoder.identity.name)
    with pytest.raises(ModelError, match=f"built with the model {tiny}.*encoded by {DEFAULT_MODEL}.*--model {tiny}"):
        answer_questions(generation, encoder, [Question(QUESTION)])
    generation.close()


def test_a_model_with_other_weights_is_another_model(tiny_encoder: Encoder, home: Home, tmp_path: Path) -> None:
    sync(home, [MemorySource({"a.md": "The red light means no power."})], tiny_encoder)
    other = write_tiny_model(tmp_path, prompts={"query": "query: ", "document": "passage: "}, seed=1)
    generation = home.open_current()
    with pytest.raises(ModelError, match="whence index --model"):
        answer_questions(generation, load_encoder(str(other), cache_folder=tmp_path / "cache"), [Question(QUESTION)])
    generation.close()


def test_questions_in_another_precision_are_refused(
    encoder: Encoder, exact_encoder: Encoder, torch_encoder: Encoder, home: Home
) -> None:
    sync(home, [MemorySource({"a.md": "The red light means no power."})], exact_encoder)
    generation = home.open_current()
    assert answer_questions(generation, torch_encoder, [Question(QUESTION)])[0].passages
    with pytest.raises(
        ModelError, match=r"built in float32.*encoded in int8.*--backend onnx-float32.*--backend onnx$"
    ):
        answer_questions(generation, encoder, [Question(QUESTION)])
    generation.close()
    assert sync(home, [MemorySource({"a.md": "The red light means no power."})], encoder).encoded == 1
    generation = home.open_current()
    assert answer_questions(generation, encoder, [Question(QUESTION)])[0].passages
    generation.close()


def test_a_model_that_loses_too_much_in_integers_runs_in_float32(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Precision, "smallest_agreement", 0.999999)
    encoder = load_encoder(str(tiny_model), cache_folder=tmp_path)
    assert encoder.identity.precision == "float32"
    assert "it runs in float32" in caplog.text
    again = load_encoder(str(tiny_model), cache_folder=tmp_path)
    exact = load_encoder(str(tiny_model), cache_folder=tmp_path, backend="onnx-float32")
    assert encoder.encode_queries(TEXTS).tobytes() == again.encode_queries(TEXTS).tobytes()
    assert encoder.encode_queries(TEXTS).tobytes() == exact.encode_queries(TEXTS).tobytes()


def test_an_export_is_made_once(tiny_model: Path, tmp_path: Path) -> None:
    model = find_model(str(tiny_model))
    first = exported_model(model, tmp_path, Precision.INT8)
    assert first is not None
    written = first.graph_path.stat().st_mtime_ns
    assert exported_model(model, tmp_path, Precision.INT8) == first
    assert first.graph_path.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "encoder.json"])
@pytest.mark.parametrize("damage", ["altered", "emptied", "missing", "nonsense"])
def test_an_altered_export_is_made_anew(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    model = find_model(str(tiny_model))
    exported = exported_model(model, tmp_path, Precision.FLOAT32)
    assert exported is not None
    path = exported.folder / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"altered": whole[:-9] + b"!" + whole[-8:], "emptied": b"", "nonsense": b"[1]"}[damage])
    again = exported_model(model, tmp_path, Precision.FLOAT32)
    assert again == exported
    assert path.read_bytes() == whole
    assert ("was altered; it is made anew" in caplog.text) == (damage != "missing")
    (ids,) = OnnxSession(exported).token_ids(["the red light"])
    assert OnnxSession(exported).embed(ids).shape == (DIMENSION,)


def test_a_cache_folder_that_cannot_be_written_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"cannot be written to .*WHENCE_CACHE.*--backend torch"):
        load_encoder(str(tiny_model), cache_folder=tmp_path / "file")


def test_a_disk_that_is_full_when_the_runtime_writes_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    exported = exported_model(find_model(str(tiny_model)), tmp_path, Precision.FLOAT32)
    assert exported is not None
    exported.graph_path.rename(tmp_path / EXACT)
    (tmp_path / GRAPH).symlink_to("/dev/full")
    with pytest.raises(OSError, match="could not optimise the graph and write it"):
        _optimised(tmp_path, EXACT, exported.architecture, Precision.FLOAT32)


def test_a_tokenizer_that_pads_and_cuts_is_used_without_either(tiny_encoder: Encoder) -> None:
    tokenizer = word_piece_tokenizer()
    tokenizer.enable_padding(length=40)
    tokenizer.enable_truncation(8)
    assert ModelTokenizer(tokenizer, tiny_encoder.identity).count(["the " * 20, "the"]) == [22, 3]


def test_nothing_is_logged_when_all_is_well(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="index"):
        load_encoder(str(tiny_model), cache_folder=tmp_path)
    assert caplog.text == ""
