"""The corpus keeps every document exactly, and does not remember how it came to be."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_in_memory import markdown_document

from index.chunk_table import ChunkTable
from index.chunks import Chunk, split
from index.corpus import Corpus, CorpusLayout, CorpusWriter
from index.documents import Block, BlockKind, Content, Document, Span
from index.embeddings import Encoder
from index.errors import DamagedGenerationError

FILES = {
    "corpus.sqlite",
    "furniture.npy",
    "sentence_starts.npy",
    *(f"chunks/{name}.npy" for name in ("digests", "documents", "records", "starts")),
}
GUIDE = """\
---
product: router
ports: [80, 443]
---
# Guide

Plug it in. Wait for the light.

## Reset

Hold the button.   It blinks: *once*.

1. Lift the lid.
2. Press “Reset” 🎉.

"""


@dataclass(frozen=True)
class Written:
    """A document with its chunks, before it is written."""

    document: Document
    chunks: Sequence[Chunk]


def drawn_document(doc_id: str, text: str, cuts: Sequence[int]) -> Written:
    """Make a document of any text, with a chunk between the first two cuts, the next two, and so on."""
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    chunks = [
        Chunk(
            f"{doc_id}-{start}",
            start,
            end,
            headings=("Guide", "Reset"),
            context="Guide\nReset",
            sentences=halves(start, end),
            kind=BlockKind.PARAGRAPH,
            furniture=start % 2 == 1,
        )
        for start, end in spans
    ]
    blocks = tuple(Block(BlockKind.PARAGRAPH, start, end) for start, end in spans)
    content = Content(text, blocks, metadata={"language": "en", "ports": [80, 443]})
    return Written(Document(doc_id, "Guide", "text/plain", "0" * 64, len(text), content), chunks)


def halves(start: int, end: int) -> tuple[Span, ...]:
    middle = (start + end) // 2
    return ((start, middle), (middle, end)) if start < middle < end else ((start, end),)


@st.composite
def written_documents(draw: st.DrawFn) -> dict[str, Written]:
    """Draw documents of any characters that UTF-8 can hold, by id."""
    texts = draw(st.dictionaries(st.sampled_from("abcdef"), st.text(st.characters(codec="utf-8")), max_size=5))
    return {
        doc_id: drawn_document(doc_id, text, sorted(draw(st.sets(st.integers(0, len(text)), max_size=6))))
        for doc_id, text in texts.items()
    }


def write(
    folder: Path, added: Iterable[Written], *, parent: Path | None = None, kept: Iterable[str] = ()
) -> CorpusLayout:
    folder.mkdir()
    with closing(CorpusWriter(folder, parent)) as writer:
        for each in added:
            writer.add(each.document, each.chunks, source="here")
        return writer.finish(kept)


def opened(folder: Path) -> closing[Corpus]:
    return closing(Corpus.load(folder))


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file, by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(written_documents())
@settings(deadline=None, max_examples=60)
def test_text_and_chunks_come_back_exactly(written: dict[str, Written]) -> None:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "corpus"
        write(folder, written.values())
        with opened(folder) as corpus:
            records = list(corpus.documents())
            assert [record.doc_id for record in records] == sorted(written)
            for record in records:
                original = written[record.doc_id]
                text = original.document.text
                assert corpus.text(record) == text
                rows = range(record.first_row, record.first_row + record.chunk_count)
                for chunk, found in zip(original.chunks, corpus.chunks(rows), strict=True):
                    assert found.text == text[chunk.start : chunk.end] == text[found.start : found.end]
                    assert found.first_line == text.count("\n", 0, chunk.start) + 1
                    assert found.sentence_texts == [text[start:end] for start, end in chunk.sentences]
                    assert found.is_furniture == chunk.furniture
                    assert found.document == record


@given(written_documents(), st.integers(0, 12))
@settings(deadline=None, max_examples=40)
def test_what_stands_around_a_chunk_is_cut_from_the_text(written: dict[str, Written], length: int) -> None:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "corpus"
        write(folder, written.values())
        with opened(folder) as corpus:
            for chunk in corpus.chunks(range(corpus.counts()[1])):
                text = written[chunk.document.doc_id].document.text
                assert corpus.text_before(chunk, length) == text[max(0, chunk.start - length) : chunk.start]
                assert corpus.text_after(chunk, length) == text[chunk.end : chunk.end + length]


@given(written_documents(), written_documents(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_corpus_with_a_parent_equals_one_made_from_nothing(
    before: dict[str, Written], after: dict[str, Written], keeps_some: bool
) -> None:
    # Every mix comes up: documents that are kept, added, replaced and left out.
    kept = [doc_id for doc_id in before if keeps_some and doc_id not in after]
    wanted = {**{doc_id: before[doc_id] for doc_id in kept}, **after}
    with TemporaryDirectory() as scratch:
        parent, child, fresh = (Path(scratch) / name for name in ("parent", "child", "fresh"))
        write(parent, before.values())
        layout = write(child, reversed(after.values()), parent=parent, kept=kept)
        write(fresh, wanted.values())
        assert files(child) == files(fresh)
        with opened(parent) as old, opened(child) as new:
            rows = layout.rows_in_parent()
            are_kept = new.chunks(np.flatnonzero(rows >= 0).tolist())
            originals = old.chunks(rows[rows >= 0].tolist())
            assert [chunk.text for chunk in are_kept] == [chunk.text for chunk in originals]
            firsts = layout.sentences_in_parent()[[chunk.first_sentence for chunk in are_kept]]
            assert firsts.tolist() == [chunk.first_sentence for chunk in originals]
            are_added = new.chunks(np.flatnonzero(rows < 0).tolist())
            assert {chunk.document.doc_id for chunk in are_added} <= set(after)


def test_a_replaced_document_is_not_kept_as_well(tmp_path: Path) -> None:
    write(tmp_path / "parent", [drawn_document("a", "old words", [0, 9]), drawn_document("b", "other", [0, 5])])
    write(tmp_path / "child", [drawn_document("a", "new", [0, 3])], parent=tmp_path / "parent", kept=["a", "b"])
    with opened(tmp_path / "child") as corpus:
        assert [corpus.text(record) for record in corpus.documents()] == ["new", "other"]
        assert corpus.counts() == (2, 2, 4)


def test_words_of_a_document_that_is_left_out_are_nowhere_in_the_file(tmp_path: Path) -> None:
    gone = drawn_document("gone", "the word zyzzyva occurs here only", [0, 33])
    write(tmp_path / "parent", [gone, drawn_document("stays", "nothing of the kind", [0, 19])])
    write(tmp_path / "child", [], parent=tmp_path / "parent", kept=["stays"])
    assert {name for name, data in files(tmp_path / "parent").items() if b"zyzzyva" in data} == {"chunks/records.npy"}
    assert {name for name, data in files(tmp_path / "child").items() if b"zyzzyva" in data} == set()
    assert set(files(tmp_path / "child")) == FILES


def test_records_of_a_markdown_document(tmp_path: Path, encoder: Encoder) -> None:
    document = markdown_document("guide.md", GUIDE)
    write(tmp_path / "corpus", [Written(document, split(document, encoder.tokenizer))])
    with opened(tmp_path / "corpus") as corpus:
        record = corpus.document("guide.md")
        assert record is not None
        assert (record.title, record.source, record.size) == ("Guide", "here", len(GUIDE.encode()))
        assert record.metadata == {"product": "router", "ports": [80, 443]}
        assert record.sha256 == document.sha256
        assert corpus.text(record) == GUIDE
        first, second = corpus.chunks(range(record.chunk_count))
    assert (first.text, first.first_line, first.headings) == ("Plug it in. Wait for the light.", 7, ("Guide",))
    assert first.sentences == ((0, 11), (12, 31))
    assert second.first_line == 11
    assert second.headings == ("Guide", "Reset")
    assert second.first_sentence == 2
    assert second.sentence_texts == [
        "Hold the button.",
        "It blinks: *once*.",
        "1. Lift the lid.",
        "2. Press “Reset” 🎉.",
    ]
    assert second.text == GUIDE[second.start : second.end]


def test_the_outline_tells_each_heading_and_where_its_text_begins(tmp_path: Path, encoder: Encoder) -> None:
    setup = "## Setup\n\nPlug it in.\n\n### Light\n\nIt is red.\n\nIt is blue."
    text = f"# Guide\n\n{setup}\n\n## Reset\n\nHold the button.\n"
    document = markdown_document("guide.md", text)
    write(tmp_path / "corpus", [Written(document, split(document, encoder.tokenizer))])
    with opened(tmp_path / "corpus") as corpus:
        (record,) = corpus.documents()
        assert [(heading.level, heading.text, text[heading.start :][:8]) for heading in corpus.outline(record)] == [
            (1, "Guide", "Plug it "),
            (2, "Setup", "Plug it "),
            (3, "Light", "It is re"),
            (2, "Reset", "Hold the"),
        ]


@given(
    st.sets(st.text("ab/é\U0010ffff", min_size=1, max_size=4), max_size=12),
    st.text("ab/é\U0010ffff", max_size=2),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=30)
def test_pages_of_ids_with_a_prefix_are_complete_and_in_order(doc_ids: set[str], prefix: str, limit: int) -> None:
    with TemporaryDirectory() as scratch:
        write(Path(scratch) / "corpus", [drawn_document(doc_id, "text", [0, 4]) for doc_id in sorted(doc_ids)])
        with opened(Path(scratch) / "corpus") as corpus:
            found: list[str] = []
            while page := corpus.page(after=found[-1] if found else "", prefix=prefix, limit=limit):
                assert len(page) <= limit
                found += [record.doc_id for record in page]
    assert found == sorted(doc_id for doc_id in doc_ids if doc_id.startswith(prefix))


def test_a_page_begins_after_an_id_that_is_gone(tmp_path: Path) -> None:
    write(tmp_path / "corpus", [drawn_document(doc_id, "text", [0, 4]) for doc_id in "acd"])
    with opened(tmp_path / "corpus") as corpus:
        assert [record.doc_id for record in corpus.page(after="b", limit=9)] == ["c", "d"]


def test_pages_come_back_by_the_offset_at_which_they_start(tmp_path: Path) -> None:
    blocks = tuple(
        Block(BlockKind.PARAGRAPH, start, start + 2, page=page) for start, page in ((0, 1), (3, 2), (6, 2))
    )
    document = Document("a.pdf", "A", "application/pdf", "0" * 64, 9, Content("p1 p2 p2", blocks))
    write(tmp_path / "corpus", [Written(document, [])])
    with opened(tmp_path / "corpus") as corpus:
        (record,) = corpus.documents()
        assert record.page_starts == {0: 1, 3: 2}
        assert corpus.text(record) == "p1 p2 p2"
        assert record.chunk_count == 0


def test_documents_are_listed_by_source(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with closing(CorpusWriter(tmp_path / "corpus", None)) as writer:
        for doc_id, source in (("c", "one"), ("a", "two"), ("b", "one")):
            writer.add(drawn_document(doc_id, "text", [0, 4]).document, [], source=source)
        writer.finish()
    with opened(tmp_path / "corpus") as corpus:
        assert corpus.sources() == {"one": 2, "two": 1}
        assert [record.doc_id for record in corpus.documents(source="one")] == ["b", "c"]
        assert corpus.document("d") is None


def test_closing_what_is_finished_touches_nothing_so_that_no_failing_disk_disturbs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(CorpusWriter(tmp_path, None)) as writer:
        writer.finish()
        assert set(files(tmp_path)) == FILES

        def fail(path: Path, *, missing_ok: bool = False) -> None:
            raise OSError(errno.EIO, f"{path} cannot be removed")

        monkeypatch.setattr(Path, "unlink", fail)


def test_chunks_come_in_the_order_asked_for_and_more_than_once(tmp_path: Path) -> None:
    write(tmp_path / "corpus", [drawn_document("a", "one two three", [0, 3, 4, 7, 8, 13])])
    with opened(tmp_path / "corpus") as corpus:
        assert [chunk.text for chunk in corpus.chunks([2, 0, 2])] == ["three", "one", "three"]
        assert corpus.chunks([]) == []


def test_an_empty_corpus_can_be_read(tmp_path: Path) -> None:
    layout = write(tmp_path / "corpus", [])
    assert layout.rows_in_parent().tolist() == []
    with opened(tmp_path / "corpus") as corpus:
        assert corpus.counts() == (0, 0, 0)
        assert list(corpus.documents()) == []
    table = ChunkTable.load(tmp_path / "corpus")
    assert (table.sentence_starts.tolist(), table.furniture.tolist()) == ([0], [])


def test_the_layout_of_sentences_says_where_each_chunk_begins(tmp_path: Path) -> None:
    write(tmp_path / "corpus", [drawn_document("a", "one two three", [0, 3, 5, 6, 7, 13])])
    with opened(tmp_path / "corpus") as corpus:
        firsts = [chunk.first_sentence for chunk in corpus.chunks(range(3))]
    table = ChunkTable.load(tmp_path / "corpus")
    assert table.sentence_starts.tolist() == [*firsts, 5] == [0, 2, 3, 5]
    assert table.furniture.tolist() == [False, True, True]


def test_chunks_are_found_again_by_what_was_embedded(tmp_path: Path) -> None:
    write(tmp_path / "corpus", [drawn_document("a", "one two one", [0, 3, 4, 7]), drawn_document("b", "two", [0, 3])])
    with opened(tmp_path / "corpus") as corpus:
        one, two, two_again = corpus.digests([0, 1, 2])
        assert two == two_again != one
        found = corpus.rows_embedded_from([one, two, b"unknown"])
    assert found == {one: 0, two: 1}


def test_the_same_text_with_other_sentences_is_not_the_same_embedded(tmp_path: Path) -> None:
    whole = drawn_document("a", "one two", [0, 7])
    (chunk,) = whole.chunks
    divided = replace(chunk, sentences=((0, 3), (4, 7)))
    under_header = replace(chunk, row_headers=((0, 1, "Number"),))
    variants = zip("abc", [chunk, divided, under_header], strict=True)
    documents = [Written(replace(whole.document, doc_id=doc_id), [variant]) for doc_id, variant in variants]
    write(tmp_path / "corpus", documents)
    with opened(tmp_path / "corpus") as corpus:
        assert len(set(corpus.digests([0, 1, 2]))) == 3
        assert [found.embedded_sentences for found in corpus.chunks([1, 2])] == [
            ["one", "two"],
            ["Number\none", " two"],
        ]


def test_a_corpus_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedGenerationError, match=r"corpus\.sqlite cannot be opened"):
        Corpus(tmp_path / "corpus.sqlite", ChunkTable.none())
