"""Index passages with txtai, in its own environment; prints a line of JSON with what that took.

python txtai_index.py PASSAGES FOLDER MODEL [--hybrid]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from txtai import Embeddings


def main() -> None:
    """Read passages, a line of JSON each, and index them as txtai's documentation does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--hybrid", action="store_true")
    arguments = parser.parse_args()
    records = [json.loads(line) for line in arguments.passages.read_text(encoding="utf-8").splitlines()]
    started = time.perf_counter()
    embeddings = Embeddings(path=arguments.model, content=True, hybrid=arguments.hybrid)
    loaded, worked = time.perf_counter(), time.process_time()
    embeddings.index((record["id"], record["text"], None) for record in records)
    embeddings.save(str(arguments.folder))
    indexed, processor_s = time.perf_counter(), time.process_time() - worked
    times = {"loading_s": loaded - started, "indexing_s": indexed - loaded, "processor_s": processor_s}
    print(json.dumps(times))


if __name__ == "__main__":
    main()
