"""The bundled documents, which a home without an index starts with."""

from __future__ import annotations

from pathlib import Path


def seeds_folder() -> Path:
    """Return the folder of the bundled documents, installed or in a checkout."""
    here = Path(__file__).resolve().parent
    return next(folder for folder in (here / "seeds", here.parent / "seeds") if folder.is_dir())
