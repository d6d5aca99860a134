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
BackendOption = Annotated[str | None, typer.Option("--backend", help="onnx or torch (WHENCE_BACKEND).")]
WaitOption = Annotated[
    float | None, typer.Option("--wait", min=0, help="Seconds to wait for another writer (WHENCE_WAIT).")
]
