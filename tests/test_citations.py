"""A citation points at its quote to the code point, and says what became of it when the document has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from handbook import ADDRESS
from hypothesis import given
from hypothesis import strategies as st

from index.citations import (
    Citation,
    PresentText,
    SavedCitation,
    Standing,
    Verification,
    verify,
)
from index.citing import CITATIONS_OF_CHUNK, cite
from index.corpus import ChunkRecord
from index.generations import Generation

TEXT = "One fish, two fish, red fish, blue fish.\nThis one has a little star, this one has a little car.\n"


def every_chunk(generation: Generation) -> list[ChunkRecord]:
    return generation.corpus.chunks(range(generation.manifest.chunks))


def chunk_with(generation: Generation, words: str) -> ChunkRecord:
    (chunk,) = [chunk for chunk in every_chunk(generation) if words in chunk.text]
    return chunk


def sentence_with(generation: Generation, words: str) -> Citation:
    chunk = chunk_with(generation, words)
    (span,) = [(start, end) for start, end in chunk.sentences if words in chunk.text[start:end]]
    return cite(generation.corpus, chunk, *span)


def saved(quote: str, start: int, *, text: str = TEXT, context: int = 32) -> SavedCitation:
    """Save the citation of a quote that stands at `start` in a text."""
    end = start + len(quote)
    prefix, suffix = text[max(0, start - context) : start], text[end : end + context]
    return SavedCitation("fish.txt", "a" * 64, start, end, quote, prefix, suffix)


def verified(citation: SavedCitation, text: str, sha256: str = "b" * 64) -> Verification:
    return verify(citation, {"fish.txt": PresentText(text, sha256)}.get)


def test_offsets_point_at_the_quoted_text(handbook: Generation) -> None:
    for chunk in every_chunk(handbook):
        text = handbook.corpus.text(chunk.document)
        for start, end in [(0, len(chunk.text)), *chunk.sentences]:
            citation = cite(handbook.corpus, chunk, start, end)
            assert text[citation.start : citation.end] == citation.quote == chunk.text[start:end]
            assert citation.document.id == chunk.document.doc_id
            assert citation.document.sha256 == chunk.document.sha256


def test_a_chunk_is_cited_once_for_each_of_its_parts(handbook: Generation) -> None:
    chunk = max(every_chunk(handbook), key=lambda chunk: len(chunk.text))
    whole = cite(handbook.corpus, chunk)
    assert cite(handbook.corpus, chunk, 0, len(chunk.text)) is whole
    parts = [cite(handbook.corpus, chunk, start) for start in range(2 * CITATIONS_OF_CHUNK)]
    assert [part.quote for part in parts] == [chunk.text[start:] for start in range(2 * CITATIONS_OF_CHUNK)]
    assert len(chunk.citations) == CITATIONS_OF_CHUNK


def test_prefix_and_suffix_are_the_32_characters_around_a_quote(handbook: Generation) -> None:
    lengths = set()
    for chunk in every_chunk(handbook):
        text = handbook.corpus.text(chunk.document)
        for start, end in [(0, len(chunk.text)), *chunk.sentences]:
            citation = cite(handbook.corpus, chunk, start, end)
            assert citation.prefix == text[max(0, citation.start - 32) : citation.start]
            assert citation.suffix == text[citation.end : citation.end + 32]
            lengths |= {len(citation.prefix), len(citation.suffix)}
    # From the middle of documents, from both of their edges, and from a chunk away.
    assert {0, 1, 12, 32} <= lengths


def test_lines_are_those_of_the_canonical_text(handbook: Generation) -> None:
    for chunk in every_chunk(handbook):
        lines = handbook.corpus.text(chunk.document).split("\n")
        for start, end in [(0, len(chunk.text)), *chunk.sentences]:
            citation = cite(handbook.corpus, chunk, start, end)
            quoted = "\n".join(lines[citation.first_line - 1 : citation.last_line])
            assert citation.quote in quoted
            assert quoted.count("\n") == citation.quote.count("\n")


def test_a_quote_over_two_lines_says_both(handbook: Generation) -> None:
    chunk = chunk_with(handbook, "Descale the kettle")
    citation = cite(handbook.corpus, chunk)
    assert (citation.first_line, citation.last_line) == (10, 11)
    assert citation.quote == (
        "Descale the kettle every three months. Fill it with equal parts of water and vinegar, and boil it twice.\n"
        "Rinse it three times before you make tea."
    )
    assert citation.headings == ("Kettle", "Descaling")
    assert citation.document.metadata == {"product": "kettle", "year": 2023, "tags": ["kitchen", "safety"]}


def test_characters_outside_the_basic_plane_count_as_one(handbook: Generation) -> None:
    citation = sentence_with(handbook, "東京タワー")
    text = handbook.corpus.text(chunk_with(handbook, "東京タワー").document)
    assert citation.quote == "東京タワーの下にあります。"
    assert text.index("東") == citation.start > text.index("🦀")


@pytest.mark.parametrize(
    ("words", "page"), [("crumb tray", 1), ("browning dial", 2), ("humming toaster", 3), ("95 °C", None)]
)
def test_the_page_is_the_one_a_quote_starts_on(handbook: Generation, words: str, page: int | None) -> None:
    chunks = [chunk for chunk in every_chunk(handbook) if words in chunk.text and not chunk.is_furniture]
    assert [cite(handbook.corpus, chunk).page for chunk in chunks] == [page]


def test_a_document_without_an_address_has_a_page_of_this_service(handbook: Generation) -> None:
    citation = sentence_with(handbook, "red light")
    assert citation.quote == "The red light means that there is no power."
    assert citation.url == f"/documents/router.md?start={citation.start}&end={citation.end}"
    assert citation.document.uri is None


def test_an_id_is_percent_encoded_in_a_url(handbook: Generation) -> None:
    citation = sentence_with(handbook, "on a shelf")
    offsets = f"start={citation.start}&end={citation.end}"
    assert citation.url == f"/documents/guide/router%20reset%20%26%20tips%20%28%C3%A4%29.md?{offsets}"


def test_an_address_gets_a_text_fragment_in_the_place_of_its_own(handbook: Generation) -> None:
    citation = sentence_with(handbook, "salt")
    assert citation.document.uri == ADDRESS
    assert citation.url == "https://example.org/dishwasher?lang=en#:~:text=Use%20salt."


def test_a_long_quote_is_named_by_its_first_and_last_words(handbook: Generation) -> None:
    citation = sentence_with(handbook, "lower basket")
    assert citation.url == (
        "https://example.org/dishwasher?lang=en#:~:text="
        "The%20filter%20of%20the%20dishwasher%20sits%20under%20the,"
        "or%20whenever%20the%20plates%20come%20out%20with%20crumbs."
    )


def test_signs_of_the_fragment_syntax_are_encoded(handbook: Generation) -> None:
    chunk = chunk_with(handbook, "lower basket")
    start = chunk.text.index("basket")
    citation = cite(handbook.corpus, chunk, start, chunk.text.index(", lift"))
    assert citation.quote == "basket - turn it to the left"
    assert citation.url.endswith("#:~:text=basket%20%2D%20turn%20it%20to%20the%20left")
    comma = cite(handbook.corpus, chunk, chunk.text.index("left,"), chunk.text.index(" it out"))
    assert comma.url.endswith("#:~:text=left%2C%20lift")


def test_a_quote_at_its_place_is_found() -> None:
    citation = saved("red fish", 20)
    assert verified(citation, TEXT) == Verification(citation, Standing.FOUND, 20, 28, is_same_source=False)
    assert verified(citation, TEXT, "a" * 64).is_same_source


def test_a_quote_after_inserted_text_has_moved() -> None:
    result = verified(saved("red fish", 20), "Once upon a time: " + TEXT)
    assert (result.standing, result.start, result.end) == (Standing.MOVED, 38, 46)


@pytest.mark.parametrize(
    "inserted", ["", "fish, ", "one has a little ", "this one has a little star, this one has a little car. "]
)
@pytest.mark.parametrize("occurrence", [0, 1])
def test_a_repeated_quote_is_told_by_what_stands_around_it(inserted: str, occurrence: int) -> None:
    quote = "one has a little"
    starts = [TEXT.index(quote), TEXT.rindex(quote)]
    text = TEXT[:20] + inserted + TEXT[20:]
    result = verified(saved(quote, starts[occurrence]), text)
    assert result.start == starts[occurrence] + len(inserted)
    assert result.standing is (Standing.MOVED if inserted else Standing.FOUND)


def test_of_equal_occurrences_the_nearest_is_taken() -> None:
    text = "ham. " * 10
    result = verified(SavedCitation("fish.txt", "", 21, 24, "ham", "", ""), text)
    assert (result.standing, result.start) == (Standing.MOVED, 20)


def test_a_quote_that_is_not_word_for_word_there_was_changed() -> None:
    citation = saved("red fish", 20)
    result = verified(citation, TEXT.replace("red fish", "pink fish"))
    assert result == Verification(citation, Standing.CHANGED, None, None, is_same_source=False)


def test_a_document_that_is_not_there_is_gone() -> None:
    citation = saved("red fish", 20)
    assert verify(citation, lambda doc_id: None) == Verification(citation, Standing.GONE, None, None, False)


def test_an_empty_quote_is_never_found() -> None:
    assert verified(saved("", 20), TEXT).standing is Standing.CHANGED


def test_without_a_digest_nobody_knows_whether_the_source_is_the_same() -> None:
    citation = replace(saved("red fish", 20), sha256="")
    assert not verified(citation, TEXT, "").is_same_source


texts = st.text(alphabet="ab \n🦀é", max_size=30)


@given(before=texts, inserted=texts, quote=texts.filter(bool), after=texts)
def test_a_quote_that_is_still_there_is_never_lost(before: str, inserted: str, quote: str, after: str) -> None:
    citation = saved(quote, len(before), text=before + quote + after)
    text = inserted + before + quote + after
    result = verified(citation, text)
    assert result.standing in (Standing.FOUND, Standing.MOVED)
    assert result.start is not None
    assert text[result.start : result.end] == quote


@given(text=texts, quote=texts, start=st.integers(0, 40))
def test_what_is_said_to_be_there_is_there(text: str, quote: str, start: int) -> None:
    citation = SavedCitation("fish.txt", "", start, start + len(quote), quote)
    present: Mapping[str, PresentText] = {"fish.txt": PresentText(text, "")}
    result = verify(citation, present.get)
    is_there = bool(quote) and quote in text
    assert (result.standing is not Standing.CHANGED) == is_there
    assert (result.start is None) == (not is_there)
