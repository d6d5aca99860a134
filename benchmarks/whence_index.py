"""Index documents with Whence; prints a line of JSON with what that took.

python benchmarks/whence_index.py FOLDER     a folder in BEIR layout, or of files; WHENCE_HOME says where to
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from index.build import BuildSettings, DocumentSource, sync
from index.evaluation import read_dataset
from index.generations import Home
from index.models import DEFAULT_MODEL
from index.runs import DatasetSource
from index.sources import Source
from service.models import load_model
from service.settings import read_settings


def source_of(folder: Path) -> DocumentSource:
    """Return a data set as a source, or a folder of files."""
    if not (folder / "corpus.jsonl").exists() and not (folder / "corpus.jsonl.gz").exists():
        return Source(folder.resolve())
    return DatasetSource(read_dataset(folder), key=str(folder.resolve()))


def main() -> None:
    """Index a folder."""
    started = time.perf_counter()
    settings = read_settings()
    encoder = load_model(settings, DEFAULT_MODEL)
    loaded, worked = time.perf_counter(), time.process_time()
    home = Home(settings.home)
    sync(home, [source_of(Path(sys.argv[1]))], encoder, settings=BuildSettings(keep_generations=1))
    indexed, processor_s = time.perf_counter(), time.process_time() - worked
    manifest = home.known_manifest()
    assert manifest is not None
    counts = {"chunks": manifest.chunks, "sentences": manifest.sentences}
    times = {"loading_s": loaded - started, "indexing_s": indexed - loaded, "processor_s": processor_s}
    print(json.dumps({**times, **counts}))


if __name__ == "__main__":
    main()
