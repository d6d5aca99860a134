"""Fixtures that cost something, shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from handbook import Handbook
from hypothesis import HealthCheck, settings

from index.build import sync
from index.embeddings import Encoder, load_encoder
from index.generations import Generation, Home
from index.models import DEFAULT_MODEL
from index.sources import Source

SEEDS = Path(__file__).parents[1] / "seeds"

# Processes are started hundreds of times: each would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes is no matter here: the machine may be busy with other tests.
settings.register_profile("whence", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whence")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run of the tests have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return folder / "shared"


@pytest.fixture(scope="session")
def cache_folder(shared_folder: Path) -> Path:
    """A folder for exported models."""
    folder = shared_folder / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def encoder(cache_folder: Path) -> Encoder:
    """The bundled model, exported once."""
    with FileLock(cache_folder / "encoder.lock"):
        return load_encoder(DEFAULT_MODEL, cache_folder=cache_folder / "models")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in which nothing has been published."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def seeds(encoder: Encoder, shared_folder: Path) -> Iterator[Generation]:
    """A generation of the bundled documents, open; the same one in all processes."""
    with FileLock(shared_folder / "seeds.lock"):
        home = Home(shared_folder / "seeds")
        if home.published_name() is None:
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
