"""What is known of a file of questions before the first is answered."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from index.errors import QuestionError, WhenceError
from service.batch_input import QuestionFile, Row
from service.batch_output import CellKind, common_kind, kind_of_cell

Check = Callable[[str], None]  # raises QuestionError for a question that cannot be asked

MAX_CARRIED = 1_000  # names of fields that are carried along
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Survey:
    """What a file holds.

    Attributes:
        size: in bytes; the file is read so far and no further, should it grow.
        sha256: of these bytes.
        rows: in them.
        kinds: name of each field that is carried along -> the kind of column that can hold it; empty if nobody asked.
    """

    size: int
    sha256: str
    rows: int
    kinds: Mapping[str, CellKind]


def survey(questions: QuestionFile, path: Path, *, check: Check | None, needs_kinds: bool) -> Survey:
    """Read a file once.

    Args:
        questions: in the file.
        path: of the file.
        check: lets no row pass that cannot be asked; None lets all pass.
        needs_kinds: whether it is of interest what the questions carry along.

    Raises:
        WhenceError: the file cannot be read, or a row cannot be asked.
    """
    size, sha256 = digest(path)
    counted = _Counted(questions.rows(size=size), check)
    kinds = kinds_of(counted if needs_kinds else ())
    deque(counted, maxlen=0)
    return Survey(size, sha256, counted.count, kinds)


class _Counted(Iterator[Row]):
    """Rows that are counted and checked on their way."""

    def __init__(self, rows: Iterator[Row], check: Check | None) -> None:
        self._rows = rows
        self._check = check
        self.count = 0

    def __next__(self) -> Row:
        row = next(self._rows)
        self.count += 1
        if self._check is not None:
            _check_row(row, self._check)
        return row


def _check_row(row: Row, check: Check) -> None:
    try:
        if row.error is None:
            check(row.question or "")
    except QuestionError as error:
        raise WhenceError(f"Line {row.line}: {error}") from error
    if row.error is not None:
        raise WhenceError(f"Line {row.line}: {row.error}")


def kinds_of(rows: Iterable[Row]) -> dict[str, CellKind]:
    """Find the names of what rows carry along, in the order in which they come, and the kinds of their values.

    Raises:
        WhenceError: there are too many for a table.
    """
    kinds: dict[str, CellKind | None] = {}
    for row in rows:
        for name, value in row.carried.items():
            kind, before = kind_of_cell(value), kinds.get(name)
            kinds[name] = common_kind(kind, before) if kind and before else kind or before
        if len(kinds) > MAX_CARRIED:
            raise WhenceError(
                f"The questions carry more than {MAX_CARRIED:,} different fields (line {row.line}). Leave some out."
            )
    return {name: kind or CellKind.TEXT for name, kind in kinds.items()}


def fitting(rows: Iterable[Row], kinds: Mapping[str, CellKind]) -> Iterator[Row]:
    """Let rows pass that fit the columns of a table; the others have no answer, but say why."""
    for row in rows:
        unfit = next((name for name, value in row.carried.items() if not _fits(value, kinds.get(name))), None)
        yield row if unfit is None else replace(row, error=_UNFIT.format(name=unfit), carried={})


_UNFIT = (
    "The field {name!r} is of another kind than in the first rows, or in none of them; a table keeps its columns. "
    "Give the questions as a file, which is looked through before."
)


def _fits(value: object, kind: CellKind | None) -> bool:
    found = kind_of_cell(value)
    return kind is not None and (found is None or common_kind(found, kind) is kind)


def digest(path: Path, size: int | None = None) -> tuple[int, str]:
    """Return size and SHA-256 of a file, or of its first `size` bytes.

    Raises:
        WhenceError: it cannot be read.
    """
    sha256, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            left = path.stat().st_size if size is None else size
            while left and (data := stream.read(min(left, _CHUNK))):
                sha256.update(data)
                left, done = left - len(data), done + len(data)
    except OSError as exc:
        raise WhenceError(f"{path} cannot be read: {exc.strerror or exc}. Check the path.") from exc
    return done, sha256.hexdigest()
