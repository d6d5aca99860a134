"""Makes the home of the present format that later versions must read, in tests/fixtures/format-N.

    PYTHONPATH=.:tests python tests/home_fixtures.py

Run it once for each new format, when the format is released; a home that was released is never made anew.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from putting import kept
from sources_in_memory import MemorySource
from tiny_encoder import WordEncoder

from index.build import sync
from index.generations import Home
from index.manifest import FORMAT_VERSION
from index.state import State
from index.uploads import Uploads

FIXTURES = Path(__file__).parent / "fixtures"
GUIDE = """# Router

## Lights

The red light means that there is no power. The blue light means that the router is connected.

## Reset – naïve café edition 🦀

Hold the button on its back for ten seconds. 東京タワーの下にあります。

| light | meaning |
|---|---|
| red | no power |
"""
NOTE = "---\nauthor: Wombleigh\nyear: 2026\n---\n# Note\n\nThe receipt is in the drawer.\n"
LETTER = "# Letter\n\nThe warranty lasts two years.\n"


def guide(text: str = GUIDE) -> MemorySource:
    """Return the documents that are synced."""
    return MemorySource({"guide.md": text}, key="handbook")


def make(path: Path) -> None:
    """Make a home with a document that is synced, and one that was put."""
    home, encoder = Home(path), WordEncoder()
    sync(home, [guide()], encoder)
    with State(path) as state:
        uploads = Uploads(path, state)
        changes = [kept(state, uploads, "notes/note.md", NOTE)]
        sync(home, [uploads.planned(changes)], encoder)
        uploads.apply(changes)
    with home.writer():
        home.prune(keep=1)
    (path / "writer.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    target = FIXTURES / f"format-{FORMAT_VERSION}"
    if target.exists():
        sys.exit(f"{target} is there already. Remove it only if no version with this format was released.")
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch) / "home")
        shutil.copytree(Path(scratch) / "home", target)
