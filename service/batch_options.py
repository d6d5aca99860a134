"""What is said on the command line of `whence batch`, put together and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import typer

from service.batch import Batch, is_stream
from service.batch_formats import (
    INPUT_SUFFIXES,
    OUTPUT_SUFFIXES,
    Compression,
    InputFormat,
    OutputFormat,
    kind_of,
    parquet_modules,
)
from service.batch_input import QuestionFile
from service.batch_output import Shape

STREAM = Path("-")

Form = TypeVar("Form", InputFormat, OutputFormat)


def question_file(path: Path, *, form: str | None, field: str | None, encoding: str) -> QuestionFile:
    """Return the questions; those on standard input are JSON Lines unless it is said otherwise.

    Raises:
        typer.BadParameter: the format or the encoding is unknown.
    """
    try:
        "x".encode(encoding)
    except LookupError as exc:
        raise typer.BadParameter(f"{encoding!r} is not an encoding of text", param_hint="--encoding") from exc
    chosen = _form(path, form, InputFormat.JSONL, INPUT_SUFFIXES, "--input-format")
    return QuestionFile(None if path == STREAM else path, chosen, field=field, encoding=encoding)


def answer_shape(
    path: Path, *, form: str | None, top_k: int, fields: str | None, id_field: str | None, for_spreadsheet: bool
) -> Shape:
    """Return the shape of the answers; those on standard output are JSON Lines unless it is said otherwise.

    Raises:
        typer.BadParameter: the format is unknown, or has no use for an option.
    """
    chosen = _form(path, form, OutputFormat.JSONL, OUTPUT_SUFFIXES, "--format")
    if fields is not None and chosen is OutputFormat.TREC:
        raise typer.BadParameter("a TREC run has no fields to choose from", param_hint="--fields")
    if id_field is not None and chosen is not OutputFormat.TREC:
        raise typer.BadParameter("only a TREC run has query ids", param_hint="--id-field")
    if for_spreadsheet and chosen is not OutputFormat.CSV:
        raise typer.BadParameter("only CSV is for spreadsheets", param_hint="--for-spreadsheet")
    names = None if fields is None else frozenset(filter(None, map(str.strip, fields.split(","))))
    return Shape(chosen, top_k, fields=names, id_field=id_field, for_spreadsheet=for_spreadsheet)


def checked(batch: Batch) -> Batch:
    """Return a batch whose parts fit together.

    Raises:
        typer.BadParameter: they do not.
        QuestionError: `top_k`, a filter or a threshold makes no sense.
        WhenceError: Parquet is wanted, and its library is not installed.
    """
    batch.check("Does this make sense?")
    _check_parquet(batch)
    if batch.answers is None:
        return batch
    if batch.answers.is_dir():
        raise typer.BadParameter(f"{batch.answers} is a folder; name a file in it", param_hint="OUT")
    source = batch.questions.path
    if source is not None and source.exists() and batch.answers.exists() and source.samefile(batch.answers):
        raise typer.BadParameter("the answers would replace the questions; name another file", param_hint="OUT")
    return batch


def _check_parquet(batch: Batch) -> None:
    reads, writes = batch.questions.format is InputFormat.PARQUET, batch.shape.format is OutputFormat.PARQUET
    if reads and batch.questions.is_stream:
        raise typer.BadParameter("Parquet cannot be read from a stream; save it to a file", param_hint="IN")
    if writes and is_stream(batch.answers):
        raise typer.BadParameter("Parquet cannot be written to a stream; name a file", param_hint="OUT")
    if writes and batch.compression is not Compression.NONE:
        raise typer.BadParameter("Parquet is compressed by itself; leave out the second suffix", param_hint="OUT")
    if reads or writes:
        parquet_modules()


def _form(path: Path, said: str | None, usual: Form, suffixes: Mapping[str, Form], option: str) -> Form:
    """Choose a format: the one that was said, else the one of the suffix, else on a stream the usual one."""
    kinds = type(usual)
    known = ", ".join(kind.value for kind in kinds)
    if said is not None:
        try:
            return kinds(said)
        except ValueError as exc:
            raise typer.BadParameter(f"{said!r} is not a format; choose {known}", param_hint=option) from exc
    if path == STREAM:
        return usual
    suffix = kind_of(path).suffix
    if suffix not in suffixes:
        raise typer.BadParameter(f"the name of {path} does not tell its format; choose {known}", param_hint=option)
    return suffixes[suffix]
