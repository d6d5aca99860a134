"""PPTX: the slides of a presentation; every slide is a page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.exc import PythonPptxError
from pptx.shapes.autoshape import Shape
from pptx.shapes.base import BaseShape
from pptx.shapes.graphfrm import GraphicFrame
from pptx.shapes.group import GroupShape
from pptx.slide import Slide
from pptx.text.text import TextFrame

from index.documents import BlockKind, Content
from index.errors import DocumentError
from index.readers.archives import core_properties, damage_reported, open_archive
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits

_FURNITURE = frozenset([PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER])


def read_pptx(data: bytes, limits: Limits) -> Content:
    """Read a presentation: of each slide its title, texts, tables, charts and notes.

    Raises:
        DocumentError: the file is damaged, protected, or crosses a limit.
    """
    with open_archive(data, limits) as archive:
        title, metadata = core_properties(archive)
    builder = ContentBuilder(limits)
    with damage_reported("presentation", PythonPptxError):
        slides = list(Presentation(io.BytesIO(data)).slides)
        if len(slides) > limits.pages:
            raise DocumentError(
                f"it has {len(slides):,} slides, more than {limits.pages:,}; split it into smaller files"
            )
        for number, slide in enumerate(slides, start=1):
            _add_slide(builder, slide, number)
    return builder.content(title=title, metadata=metadata)


def _add_slide(builder: ContentBuilder, slide: Slide, page: int) -> None:
    title = slide.shapes.title
    if title is not None:
        builder.add(BlockKind.HEADING, _line(title.text_frame.text), level=1, page=page)
    for shape in _flat(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            _add_shape(builder, shape, page)
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None:
        for paragraph in _paragraphs(notes):
            builder.add(BlockKind.PARAGRAPH, paragraph, page=page)


def _flat(shapes: Iterable[BaseShape]) -> Iterator[BaseShape]:
    """Yield the shapes of a slide in their own order, those of a group in its place."""
    for shape in shapes:
        if isinstance(shape, GroupShape):
            yield from _flat(shape.shapes)
        else:
            yield shape


def _add_shape(builder: ContentBuilder, shape: BaseShape, page: int) -> None:
    if isinstance(shape, GraphicFrame) and shape.has_table:
        rows = [" | ".join(_line(cell.text) for cell in row.cells) for row in shape.table.rows]
        header_rows = int(shape.table.first_row and len(rows) > 1)
        builder.add_parts(BlockKind.TABLE, rows, header_rows=header_rows, page=page)
    elif isinstance(shape, GraphicFrame) and shape.has_chart:
        _add_chart(builder, shape, page)
    elif isinstance(shape, Shape):
        _add_text(builder, shape, page)


def _add_text(builder: ContentBuilder, shape: Shape, page: int) -> None:
    kind = shape.placeholder_format.type if shape.is_placeholder else None
    paragraphs = _paragraphs(shape.text_frame)
    if kind in _FURNITURE or len(paragraphs) < 2:
        for paragraph in paragraphs:
            builder.add(BlockKind.PARAGRAPH, paragraph, page=page, furniture=kind in _FURNITURE)
    else:
        builder.add_parts(BlockKind.LIST, paragraphs, page=page)


def _add_chart(builder: ContentBuilder, frame: GraphicFrame, page: int) -> None:
    """Append a chart as the table of its values: one row per category, one column per series."""
    chart = frame.chart
    if chart.has_title and chart.chart_title.has_text_frame:
        builder.add(BlockKind.CAPTION, _line(chart.chart_title.text_frame.text), page=page)
    for plot in chart.plots:
        series = list(plot.series)
        header = " | ".join(["", *(_line(one.name) for one in series)])
        rows = [
            " | ".join([_line(str(category)), *(_value(one.values, position) for one in series)])
            for position, category in enumerate(plot.categories)
        ]
        builder.add_parts(BlockKind.TABLE, [header, *rows] if rows else [], header_rows=1, page=page)


def _value(values: tuple[float | None, ...], position: int) -> str:
    value = values[position] if position < len(values) else None
    return "" if value is None else f"{value:.15g}"


def _paragraphs(frame: TextFrame) -> list[str]:
    texts = (paragraph.text.replace("\v", "\n").strip() for paragraph in frame.paragraphs)
    return [text for text in texts if text]


def _line(text: str) -> str:
    return " ".join(text.split())
