"""Fixtures that cost something, shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from handbook import Handbook

from index.build import sync
from index.embeddings import Encoder, load_encoder
from index.generations import Generation, Home
from index.models import DEFAULT_MODEL
from index.sources import Source

SEEDS = Path(__file__).parents[1] / "seeds"


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for exported models."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def encoder(cache_folder: Path) -> Encoder:
    """The bundled model, exported once."""
    return load_encoder(DEFAULT_MODEL, cache_folder=cache_folder / "models")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in which nothing has been published."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def seeds(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    """A generation of the bundled documents, open."""
    home = Home(tmp_path_factory.mktemp("seeds"))
    sync(home, [Source(SEEDS)], encoder)
    generation = home.open_current()
    yield generation
    generation.close()


@pytest.fixture(scope="session")
def handbook(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    """A generation of a small corpus, open."""
    home = Home(tmp_path_factory.mktemp("handbook"))
    sync(home, [Handbook()], encoder)
    generation = home.open_current()
    yield generation
    generation.close()
