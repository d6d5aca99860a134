"""A data set in BEIR layout, small enough to be written in a test."""

from __future__ import annotations

import json
from pathlib import Path

CORPUS = {
    "light": ("Router lights", "The red light means that there is no power."),
    "reset": ("", "Hold the button on the back of the router for ten seconds to reset it."),
    "kettle": ("Kettle", "Descale the kettle with vinegar every three months."),
    "bread": ("Toaster", "Level four of the browning dial suits frozen bread."),
    "empty": ("Nothing", "  \n"),
}
QUERIES = {
    "q1": "what does a red light mean",
    "q2": "how to reset a router",
    "q3": "removing limescale from a kettle",
    "unjudged": "who asked",
}
QRELS = [("q1", "light", 1), ("q2", "reset", 2), ("q2", "light", 0), ("q3", "kettle", 1)]


def write_dataset(folder: Path) -> Path:
    """Write the data set and return its folder."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": doc_id, "title": title, "text": text} for doc_id, (title, text) in CORPUS.items()]
    queries = [{"_id": query_id, "text": text} for query_id, text in QUERIES.items()]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, judgement)) for judgement in QRELS)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder
