"""What a person sees in a terminal: answers, reports, and how far a build is."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from index.answers import Answer, CitedPassage
from index.build import SyncReport
from index.citations import Citation
from index.errors import WhenceError

# A document's text must not move the cursor, set colours or turn the writing direction of the terminal.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PIPE_WIDTH = 1_000_000  # columns; wider than any line
SHOWN_REJECTED = 20
INDENT = "   "


class OutputConsole(Console):
    """Standard output for people; see `checked_output`."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as any console does."""
        with checked_output():
            super().print(*objects, **options)


# In a file or a pipe lines are neither wrapped nor cut, so that a quote stays whole and can be searched for.
output = OutputConsole(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


class TerminalProgress:
    """Progress bars on standard error; nothing where that is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, stage: str, total: int | None) -> None:
        """Replace the bar of the stage before."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(visible(stage), total=total)

    def advance(self, steps: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, steps)


def visible(text: str) -> str:
    """Replace characters that would act on the terminal instead of being shown."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


@contextmanager
def checked_output() -> Iterator[None]:
    """Say so when standard output cannot be written.

    Raises:
        WhenceError: the disk is full, for instance; a closed pipe stays a `BrokenPipeError`.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        _abandon_output()
        raise WhenceError(
            f"Standard output cannot be written: {exc.strerror or exc}. Make room, or send it elsewhere."
        ) from exc


def _abandon_output() -> None:
    """Let what is still in the buffer go nowhere: writing it at the end of the process would fail once more."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def print_line(text: str) -> None:
    """Write a line of data to standard output, always in UTF-8."""
    with checked_output():
        sys.stdout.buffer.write(text.encode() + b"\n")
        sys.stdout.flush()


def print_json(record: BaseModel) -> None:
    """Write a record to standard output, as a line of JSON."""
    print_line(json.dumps(record.model_dump(), ensure_ascii=False))


def print_done(record: BaseModel, message: str, as_json: bool) -> None:
    """Say what was done: a record for programs, or a sentence for people."""
    if as_json:
        print_json(record)
    else:
        output.print(Text(visible(message)))


def show_answer(console: Console, answer: Answer) -> None:
    """Print the answer sentence, then the numbered passages, then how sure it is."""
    if answer.answer is not None:
        console.print(Text(visible(answer.answer.text), style="bold"))
        console.print(Text(f"— {_place(answer.answer.citation)}", style="dim"))
        console.print(Text(f"{_sureness(answer.confidence)} ({answer.confidence:.0%})", style="dim"))
    elif answer.passages:
        console.print(Text("Not found in the documents.", style="bold"))
        console.print(Text(f"The nearest passages ({answer.confidence:.0%} likely to answer):", style="dim"))
    else:
        console.print(Text("Not found in the documents, and nothing near it.", style="bold"))
    for passage in answer.passages:
        _show_passage(console, passage)


def show_report(console: Console, report: SyncReport) -> None:
    """Print what a sync did, and every file that was left out with the reason."""
    counts = f"{report.documents} documents, {report.chunks} chunks, {report.sentences} sentences"
    if report.is_new:
        changes = (
            f"{len(report.added)} added, {len(report.changed)} changed, {len(report.removed)} removed, "
            f"{report.unchanged} unchanged; {report.encoded} chunks encoded"
        )
        console.print(Text(f"Published {report.generation}: {counts} ({changes})."))
    else:
        console.print(Text(f"Nothing changed: {report.generation} has {counts}."))
    for rejected in report.rejected[:SHOWN_REJECTED]:
        console.print(Text(visible(f"Not indexed: {rejected.path}: {rejected.reason}"), style="yellow"))
    if len(report.rejected) > SHOWN_REJECTED:
        more = len(report.rejected) - SHOWN_REJECTED
        console.print(Text(f"… and {more} more (all of them: --json)", style="yellow"))


def _show_passage(console: Console, passage: CitedPassage) -> None:
    console.print()
    console.print(Text(f"{passage.rank}. {_place(passage.citation)}", style="cyan"), end="")
    console.print(Text(f"  score {passage.score:.2f}", style="dim"))
    _show_indented(console, _marked(passage))
    for citation in passage.also_in:
        _show_indented(console, Text(f"also in {_place(citation)}", style="dim"))


def _show_indented(console: Console, text: Text) -> None:
    for line in text.wrap(console, console.width - len(INDENT)):
        line.rstrip()
        console.print(Text(INDENT).append_text(line) if line else "")


def _marked(passage: CitedPassage) -> Text:
    text = Text(visible(passage.text))
    for start, end in passage.highlights:
        text.stylize("bold green", start, end)
    return text


def _place(citation: Citation) -> str:
    """Say where a quote stands: title, headings below it, page or lines, document."""
    document = citation.document
    headings = [heading for heading in citation.headings if heading != document.title]
    lines = (
        f"line {citation.first_line}"
        if citation.first_line == citation.last_line
        else (f"lines {citation.first_line}–{citation.last_line}")
    )
    where = f"page {citation.page}" if citation.page is not None else lines
    return visible(f"{' › '.join([document.title, *headings])}, {where} ({document.id})")


def _sureness(confidence: float) -> str:
    if confidence >= 0.9:
        return "Very likely the answer"
    return "Likely the answer" if confidence >= 0.7 else "Possibly the answer"
