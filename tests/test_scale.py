"""The benchmark of scale makes homes that answer and can be added to, and keeps what it has measured of each size."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import corpora
import homes
import numpy as np
import plot
import pytest
import scale
from homes import Pool, VariedEncoder
from wrk import Load

from index.answers import Question, answer_questions
from index.embeddings import Encoder
from index.generations import Generation, Home
from index.sketches import DenseSearch

CHUNKS = 1_200
PASSAGES = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> corpora.Corpus:
    """A part of the bundled documents."""
    bundled = corpora.read_corpus(None)
    passages = dict(list(bundled.passages.items())[:PASSAGES])
    return dataclasses.replace(bundled, passages=passages, kept=tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def varied(corpus: corpora.Corpus, encoder: Encoder) -> VariedEncoder:
    return VariedEncoder(encoder, corpus.kept / "embeddings.npz")


@pytest.fixture(scope="module")
def home(corpus: corpora.Corpus, varied: VariedEncoder) -> Home:
    """A home of more chunks than there are passages."""
    home = Home(corpus.kept / "home")
    scale.build(home, Pool.of(corpus), varied, CHUNKS)
    return home


@pytest.fixture(scope="module")
def generation(home: Home) -> Iterator[Generation]:
    with closing(home.open_current()) as generation:
        yield generation


def test_the_first_chunks_are_the_passages_and_the_others_are_made_of_their_sentences(
    generation: Generation, corpus: corpora.Corpus
) -> None:
    chunks = generation.corpus.chunks(range(CHUNKS))
    assert [chunk.text for chunk in chunks[:PASSAGES]] == list(corpus.passages.values())
    pool = Pool.of(corpus)
    known = {sentence for sentences in pool.sentences.values() for sentence in sentences}
    varied = [chunk for chunk in chunks if homes.REFERENCE.search(chunk.text)]
    assert len({chunk.text for chunk in varied}) == len(varied) == CHUNKS - 44 * 20  # documents around the quarters
    for chunk in varied:
        assert len(chunk.sentences) == 4
        assert {homes.REFERENCE.sub("", text) for text in chunk.sentence_texts} <= known


def test_plain_text_has_the_embedding_of_the_model_and_varied_text_one_near_it(
    varied: VariedEncoder, encoder: Encoder, corpus: corpora.Corpus
) -> None:
    sentence = next(iter(Pool.of(corpus).sentences.values()))[0]
    plain, other, again = varied.encode_documents([sentence, f"※Kale 17 {sentence}", f"※Kale 17 {sentence}"])
    assert plain @ encoder.encode_documents([sentence])[0] == pytest.approx(1, abs=1e-3)
    assert plain @ other == pytest.approx(0.89, abs=0.08)  # noise of half the length
    assert np.array_equal(other, again)
    context = varied.encode_documents([f"A title\n※Kale 17 {sentence}"])[0]
    assert plain @ context > 0.8


def test_what_the_model_has_encoded_is_read_again(
    varied: VariedEncoder, encoder: Encoder, home: Home, corpus: corpora.Corpus
) -> None:
    class Silent:
        identity, tokenizer = encoder.identity, encoder.tokenizer

        def encode_documents(self, texts: list[str], *, on_progress: object = None) -> np.ndarray:
            raise AssertionError(f"encoded again: {texts}")

    pool = Pool.of(corpus)
    again = VariedEncoder(Silent(), corpus.kept / "embeddings.npz")  # type: ignore[arg-type]
    homes.learn(again, pool)
    assert np.array_equal(
        again.encode_documents(pool.sentences[corpus.doc_ids[next(iter(corpus.passages))]]),
        varied.encode_documents(pool.sentences[corpus.doc_ids[next(iter(corpus.passages))]]),
    )


def test_a_made_home_answers_and_its_stages_are_known(
    generation: Generation, home: Home, encoder: Encoder, corpus: corpora.Corpus, varied: VariedEncoder
) -> None:
    sentence = next(text for texts in Pool.of(corpus).sentences.values() for text in texts if len(text) > 80)
    (answer,) = answer_questions(generation, encoder, [Question(sentence)])
    assert sentence in answer.passages[0].text
    manifest, seconds = scale.build(home, Pool.of(corpus), varied, CHUNKS)
    assert manifest.chunks == CHUNKS
    assert seconds["in all"] == pytest.approx(sum(each for name, each in seconds.items() if name != "in all"))
    sizes = scale.disk(manifest)
    assert sum(sizes.values()) == pytest.approx(sum(file.size for file in manifest.files.values()) / 1e6)
    assert set(scale.KINDS) - {"sketches"} <= set(sizes)


def test_documents_are_added_while_a_reader_asks(
    home: Home, corpus: corpora.Corpus, varied: VariedEncoder, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(cache_folder))
    monkeypatch.setattr(scale, "ADDED", 1)
    pool = Pool.of(corpus)
    stages = scale.add_one(home, pool, varied, CHUNKS)
    assert {"Opening the index", "Writing documents", "Publishing"} <= set(stages)
    adding = scale.add(home, corpus, pool, CHUNKS + 1, seconds=0.5)
    assert len(adding.took_s) == 1
    assert adding.failed == 0
    assert adding.asked > 0
    assert adding.waits_ms[1] >= adding.median_ms[1] > 0
    manifest = home.known_manifest()
    assert manifest is not None
    assert manifest.documents == -(-CHUNKS // 20) + 2


def size(chunks: int, p95_ms: float = 8.0) -> scale.Size:
    loads = {"1": Load(100, 5, p95_ms, 9, 0), "16": Load(200, 50, 80, 90, 1)}
    resident = scale.Resident(pss=300, own=200, private=250)
    return scale.Size(
        chunks=chunks,
        documents=chunks // 20,
        sentences=4 * chunks,
        dense=DenseSearch(3, 0.9871, probes=64),
        split_ms=1.5,
        build_s={"Writing documents": 1.25, "in all": 2.5},
        disk={"text": 10.0, "the rest": 5.0},
        open_s=(0.5, 0.01),
        added_s={"Opening the index": 0.5, "in all": 4.0},
        serving={name: scale.Serving(3.0, resident, resident, loads) for name in scale.ENCODERS},
        adding=scale.Adding((4.0, 5.0, 6.0), (20.0, 40.0), (5.0, 9.0), asked=1_000, failed=0),
        conditions="a machine",
    )


def test_a_stopped_run_keeps_its_sizes_and_a_new_one_replaces_its_own(tmp_path: Path) -> None:
    results = tmp_path / "scale.md"
    for each in (size(100_000), size(10_000), size(100_000, p95_ms=7.5)):
        scale.keep(each, results)
    kept = json.loads((tmp_path / "scale.json").read_text())
    assert [each["chunks"] for each in kept] == [10_000, 100_000]
    lines = results.read_text().splitlines()
    assert "|  | 10,000 | 100,000 |" in lines
    assert "| full, 1 client: p95 ms | 8.00 | 7.50 |" in lines
    assert (
        "| dense search | 3 × as many sketches in 64 of 256 lists | 3 × as many sketches in 64 of 256 lists |"
        in lines
    )
    assert "| recall@10 of exact search | 0.9871 | 0.9871 |" in lines
    assert "| splitting, estimated | 15.0 | 150 |" in lines
    assert "| HTTP, from request to success, s | 4.00, 5.00, 6.00 | 4.00, 5.00, 6.00 |" in lines
    drawn = ElementTree.fromstring((tmp_path / "scale.svg").read_text())
    titles = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert "full, 1 client, 100,000: 7.5" in titles
    assert len(titles) == 2 * (4 + 3 + 3)


def test_what_is_not_measured_yet_is_left_out(tmp_path: Path) -> None:
    results = tmp_path / "scale.md"
    scale.keep(dataclasses.replace(size(10_000), added_s={}, adding=None), results)
    scale.keep(size(100_000), results)
    assert "| HTTP, from request to success, s |  | 4.00, 5.00, 6.00 |" in results.read_text().splitlines()
    drawn = (tmp_path / "scale.svg").read_text()
    assert "add one document, 100,000: 4" in drawn
    assert "add one document, 10,000" not in drawn


def test_curves_stay_within_their_panel() -> None:
    panels = [plot.Curves("ms", {"a": {10_000: 3.0, 1_000_000: 40.0}, "b": {10_000: 300.0}})]
    drawn = ElementTree.fromstring(plot.curves("Cost", "chunks", panels))
    circles = [each for each in drawn.iter("{http://www.w3.org/2000/svg}circle") if len(each)]
    places = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in circles]
    assert len(places) == 3
    assert all(0 < x < plot.WIDTH and 0 < y < plot.CURVES_HEIGHT for x, y in places)
    (left, low), (right, middle), (same, high) = places
    assert left == same < right
    assert low > middle > high  # down the page is less
