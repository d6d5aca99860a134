"""Options that several commands have, each with the setting it stands in for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder that holds the index (WHENCE_HOME).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Embedding model: a name or a folder (WHENCE_MODEL).")
]
RerankerOption = Annotated[
    str | None,
    typer.Option(
        "--reranker", help="Cross-encoder that orders the first passages: a name or a folder (WHENCE_RERANKER)."
    ),
]
BackendOption = Annotated[str | None, typer.Option("--backend", help="onnx, onnx-float32 or torch (WHENCE_BACKEND).")]
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", help="What encodes questions: full or instant (WHENCE_ENCODER).")
]
TopKOption = Annotated[int | None, typer.Option("--top-k", help="Passages wanted, 1 to 100 (WHENCE_TOP_K).")]
FilterOption = Annotated[
    list[str] | None,
    typer.Option("--filter", help="FIELD=VALUE, or a JSON object of filters; may be repeated."),
]
MinConfidenceOption = Annotated[
    float | None,
    typer.Option("--min-confidence", help="Below it a question is not answered (WHENCE_MIN_CONFIDENCE)."),
]
WaitOption = Annotated[
    float | None, typer.Option("--wait", min=0, help="Seconds to wait for another writer (WHENCE_WAIT).")
]
