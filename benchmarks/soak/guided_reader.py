"""Read files as libFuzzer damages them; soak.guided starts one of these after another.

    python -m soak.guided_reader SAMPLE CORPUS FAILED FOLDER SECONDS SEED

Nothing that is instrumented may be imported before, so this module has no imports of its own at its head but atheris.
"""

from __future__ import annotations

import random
import resource
import sys
import traceback
from pathlib import Path

import atheris

NAME = sys.argv[1]
LIBRARIES = {
    "docx": ["docx"],
    "eml": ["email", "trafilatura"],
    "epub": ["trafilatura"],
    "html": ["trafilatura"],
    "md": ["markdown_it", "yaml"],
    "pptx": ["pptx"],
    "tex": ["pylatexenc"],
    "vtt": ["webvtt"],
    "xlsx": ["openpyxl"],
}
with atheris.instrument_imports(include=["index", *LIBRARIES.get(NAME.partition(".")[2], ())]):
    from soak import fuzz
    from soak.guided_counts import Counts
    from soak.samples import samples, unzipped, zipped

    from index.errors import DocumentError
    from index.readers.formats import FORMATS, read
    from index.readers.limits import Limits

    LIMITS = Limits(seconds=20, memory_bytes=1_500_000_000)
    for each in FORMATS:
        each.load()
    read(samples()[NAME], NAME, LIMITS)  # what is imported late is instrumented, too

ADDRESS_SPACE = LIMITS.memory_bytes + 1_000_000_000  # of which libFuzzer takes a part
MAX_BYTES = 100_000
DRAWN = 0.3  # share of the damages that are those of soak.fuzz
ARCHIVE = 0.1  # share of the damages of an archive that do not keep it whole


class Guided:
    """Reads one file after another.

    Args:
        failed: where files that fail are kept.
        folder: where counts and failures are written.
    """

    def __init__(self, failed: Path, folder: Path) -> None:
        self._failed = failed
        self._failures = folder / "failures"
        self._counts = Counts(folder / "counts", fuzz.OUTCOMES)
        known = self._failures.read_text(encoding="utf-8") if self._failures.exists() else ""
        self._known = set(known.splitlines())

    def read(self, data: bytes) -> None:
        """Read a file, count what becomes of it, and write down what should not have."""
        try:
            _, content = read(data, NAME, LIMITS)
            for value in (content.title or "", content.text, repr(dict(content.metadata))):
                value.encode()
        except DocumentError as exc:
            self._counts.add("rejected")
            if not str(exc):
                self._fail(exc, data)
        except (MemoryError, RecursionError):
            self._counts.add("killed by limit")
        except Exception as exc:  # any other than those that are caught there is what this looks for
            self._fail(exc, data)
        else:
            self._counts.add("read")

    def _fail(self, exc: Exception, data: bytes) -> None:
        frames = traceback.extract_tb(exc.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]]
        said = f"{type(exc).__name__} at {' > '.join(places)}"
        if said in self._known:
            return
        self._known.add(said)
        with self._failures.open("a", encoding="utf-8") as file:
            file.write(f"{said}\n")
        (self._failed / f"failed-{len(self._known)}-{NAME}").write_bytes(data)


def damaged(data: bytes, max_size: int, seed: int) -> bytes:
    """Damage a file; of an archive mostly what is inside, so that the damage is met behind the checksums."""
    chance = random.Random(seed)
    if not data.startswith(b"PK") or chance.random() < ARCHIVE:
        return _changed(data, max_size, chance)
    try:
        files = unzipped(data)
    except Exception:  # an archive that an earlier damage broke
        return _changed(data, max_size, chance)
    if not files:
        return _changed(data, max_size, chance)
    entry = chance.choice(sorted(files))
    return zipped({**files, entry: _changed(files[entry], max_size, chance)})[:max_size]


def _changed(data: bytes, max_size: int, chance: random.Random) -> bytes:
    if chance.random() < DRAWN:
        damages, _ = fuzz.drawn(chance)
        for damage in damages:
            data = fuzz.DAMAGES[damage.kind](data, damage)[:max_size]
        return data
    changed: bytes = atheris.Mutate(data[:max_size], max_size)
    return changed


def main() -> None:
    """Read until the time is up."""
    _, corpus, failed, folder, seconds, seed = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={LIMITS.seconds:.0f}",
    ]
    options += [f"-artifact_prefix={failed}/", "-rss_limit_mb=0", "-print_final_stats=1", corpus]
    guided = Guided(Path(failed), Path(folder))
    atheris.Setup([sys.argv[0], *options], guided.read, custom_mutator=damaged)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
