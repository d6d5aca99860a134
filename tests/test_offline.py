"""Nothing is told to anybody: no address is looked up or connected to, and nothing is left in the user's folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from soak.injection import missing
from sources_in_memory import MemorySource

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home

ROOT = Path(__file__).parents[1]
ASKING = "import sys; from service.cli import main; sys.argv = ['whence', 'ask', 'Red light?', '--json']; main()"


def test_asking_tells_nobody_and_leaves_nothing_behind(
    home: Home, encoder: Encoder, cache_folder: Path, tmp_path: Path
) -> None:
    sync(home, [MemorySource({"router.md": "The red light means that there is no power."})], encoder)
    user, calls = tmp_path / "user", tmp_path / "calls"
    user.mkdir()
    # ONNX Runtime keeps quiet by itself where CI is set, and nowhere else.
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CI", "ORT_"))}
    given = {"HOME": str(user), "WHENCE_HOME": str(home.path), "WHENCE_CACHE": str(cache_folder)}
    traced = [] if missing() else ["strace", "--follow-forks", "--trace=connect,sendto", f"--output={calls}"]
    done = subprocess.run(
        [*traced, sys.executable, "-c", ASKING],
        cwd=ROOT,
        env=bare | given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert '"answered":true' in done.stdout, done.stderr
    assert [path for path in user.rglob("*") if path.is_file()] == []
    said = calls.read_text().splitlines() if traced else []
    assert [call for call in said if "AF_INET" in call] == []
