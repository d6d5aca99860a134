"""A chunk written as a row of a store is the same chunk when it is read, and scores the same."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from index.embeddings import Encoder
from index.generations import Generation
from index.milvus.address import parse_address
from index.milvus.collections import Collections
from index.milvus.rows import (
    FIELD_BYTES,
    PART_BYTES,
    RECORD,
    Scoring,
    excerpt_of,
    joined_parts,
    pack_record,
    query_vector,
    scorings,
    term_vector,
    unpack_record,
)
from index.milvus.server import Server

QUESTIONS = ["How do I reset the router?", "crumb tray of the toaster", "to be or not to be", "東京タワー", "zebra"]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_bytes_go_into_parts_that_fit_into_a_field(size: int) -> None:
    data = bytes(np.arange(size, dtype=np.uint8))
    fields, rest = Collections(Server(parse_address("milvus://localhost/docs")), "name").fields(RECORD, 7, data)
    assert fields[f"{RECORD}_parts"] == 1 + len(rest) == max(1, -(-size // PART_BYTES))
    assert [part["key"] for part in rest] == [f"record/7#{number}" for number in range(1, 1 + len(rest))]
    parts = [fields[RECORD], *(part["data"] for part in rest)]
    assert max(map(len, parts)) <= FIELD_BYTES
    assert joined_parts(parts) == data


def test_all_that_scores_a_chunk_comes_back(handbook: Generation) -> None:
    for scoring in scorings(handbook):
        back = Scoring.unpack(scoring.pack())
        for field in fields(Scoring):
            np.testing.assert_array_equal(getattr(back, field.name), getattr(scoring, field.name))


def test_a_record_comes_back(handbook: Generation) -> None:
    for stored in handbook.corpus.rows():
        assert unpack_record(pack_record(stored)) == stored
        (chunk,) = handbook.corpus.chunks([stored.located.row])
        assert stored.located.values.text == chunk.text
        assert stored.before == handbook.corpus.text_before(chunk, 32)
        assert stored.after == handbook.corpus.text_after(chunk, 32)


@pytest.mark.parametrize("question", QUESTIONS)
def test_candidates_from_rows_score_as_those_at_hand(handbook: Generation, encoder: Encoder, question: str) -> None:
    (embedding,) = encoder.encode_queries([question])
    query = handbook.lexical.query(question)
    local = handbook.excerpt(query, embedding)
    rows = list(scorings(handbook))
    found = [rows[row] for row in local.rows]
    excerpt = excerpt_of(local.rows, found, query, handbook.lexical, embedding)
    assert excerpt.in_corpus(excerpt.rows).tolist() == local.rows.tolist()
    assert excerpt.bm25.tolist() == local.bm25.tolist()
    assert excerpt.dense.tolist() == local.dense.tolist()
    np.testing.assert_array_equal(excerpt.furniture, local.furniture[local.rows])
    sentences, same = excerpt.sentences.of_chunks(excerpt.rows), local.sentences.of_chunks(local.rows)
    np.testing.assert_array_equal(sentences.bounds, same.bounds)
    np.testing.assert_array_equal(
        excerpt.sentences.similarities(embedding, sentences.positions),
        local.sentences.similarities(embedding, same.positions),
    )
    ours, theirs = (each.sequences.wording([(query, each.rows)]) for each in (excerpt, local))
    for field in fields(ours):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_product_of_question_and_chunk_is_its_keyword_score(handbook: Generation, question: str) -> None:
    query = handbook.lexical.query(question)
    asked = query_vector(query, handbook.lexical)
    vectors = [term_vector(scoring, handbook.lexical) for scoring in scorings(handbook)]
    products = [sum(weight * vector.get(term, 0) for term, weight in asked.items()) for vector in vectors]
    np.testing.assert_allclose(products, query.scores, rtol=1e-6)


def test_no_candidates_make_an_empty_excerpt(handbook: Generation) -> None:
    query = handbook.lexical.query("router")
    excerpt = excerpt_of(np.empty(0, np.int64), [], query, handbook.lexical, np.zeros(384, np.float32))
    assert (len(excerpt.rows), len(excerpt.bm25), len(excerpt.dense)) == (0, 0, 0)
