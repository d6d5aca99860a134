"""Options that several commands have, each with the setting it stands in for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from index.cluster import TIME_LIMIT_S, ClusterSettings

HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder that holds the index (WHENCE_HOME).")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="Milvus server that keeps the index: milvus://[USER:PASSWORD@]HOST:PORT/NAME (WHENCE_STORE)."
    ),
]
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
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="Who does the work: local, or the workers of a ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_ADDRESS",
        help="HOST:PORT of the Ray cluster, or auto; without it one is started on this machine.",
    ),
]
TimeLimitOption = Annotated[
    float | None, typer.Option("--time-limit", min=1, help="Seconds that a Ray cluster may take; else a day.")
]
WaitOption = Annotated[
    float | None, typer.Option("--wait", min=0, help="Seconds to wait for another writer (WHENCE_WAIT).")
]


def chosen_cluster(
    engine: str | None, *, address: str | None, workers: int | None, time_limit: float | None
) -> ClusterSettings | None:
    """Return the cluster whose workers do the work; None when it is done on this machine.

    Raises:
        typer.BadParameter: there is no such engine, or it has no use for an option.
    """
    if engine not in (None, "local", "ray"):
        raise typer.BadParameter(f"{engine!r} is not an engine; choose local or ray", param_hint="--engine")
    if engine == "ray":
        return ClusterSettings(address, workers, time_limit or TIME_LIMIT_S)
    if time_limit is not None:
        raise typer.BadParameter("only a Ray cluster has a time limit: --engine ray", param_hint="--time-limit")
    return None
