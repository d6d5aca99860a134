"""Indexes of what a benchmark asks about, kept in the cache folder so that nothing is encoded twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console

from index.build import sync
from index.embeddings import Encoder, load_encoder
from index.evaluation import Dataset, read_dataset
from index.generations import Generation, Home
from index.models import DEFAULT_MODEL
from index.runs import index_dataset
from index.sources import Source
from service.display import TerminalProgress
from service.settings import read_settings


def default_encoder() -> Encoder:
    """Load the model that ships with the package."""
    return load_encoder(DEFAULT_MODEL, cache_folder=read_settings().cache / "models")


def progress_bars() -> TerminalProgress:
    """Show progress on standard error, where that is a terminal."""
    return TerminalProgress(Console(stderr=True))


@contextmanager
def open_dataset(folder: Path, encoder: Encoder, progress: TerminalProgress) -> Iterator[tuple[Dataset, Generation]]:
    """Read a data set in BEIR layout, and open its index."""
    dataset = read_dataset(folder)
    with closing(index_dataset(dataset, folder, _home(folder), encoder, progress)) as generation:
        yield dataset, generation


@contextmanager
def open_documents(folder: Path, encoder: Encoder, progress: TerminalProgress) -> Iterator[Generation]:
    """Open the index of a folder of documents."""
    home = _home(folder)
    sync(home, [Source(folder.resolve())], encoder, progress=progress)
    with closing(home.open_current()) as generation:
        yield generation


def _home(folder: Path) -> Home:
    return Home(read_settings().cache / "fits" / folder.resolve().name)
