"""Exporting a model to ONNX once, so that ONNX Runtime can encode without torch.

The export lies in a cache folder under the digest of the model's files and the version of ONNX Runtime, which has
optimised its graph. It is written beside and renamed, so that it is whole or absent, and it is kept only if it agrees
with sentence-transformers on fixed sentences.

An export in 8-bit integers has weights scaled for each output channel, to seven bits, because the sums of eight-bit
products overflow on processors without VNNI; activations are scaled anew for each text.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from index.errors import ModelError
from index.models import (
    Architecture,
    ModelFiles,
    Pooling,
    architecture_of,
    load_reference,
    sha256_of,
    tokenizer_of,
)

# From 1.29 on ONNX Runtime tells its makers what it is used for. It reads this when it is imported, and whatever is
# said to it later comes too late: it has looked up their address and left an id of the machine in the user's cache.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

EXPORT_FORMAT = 4  # raised by whatever changes the embeddings that an export gives; they are then all made anew
GRAPH, TOKENIZER, RECORD = "model.onnx", "tokenizer.json", "encoder.json"
EXPORTED_FILES = (GRAPH, TOKENIZER)
EXACT, INTEGER = "exact.onnx", "integer.onnx"  # on the way
OPSET = 18
BESIDE_PREFIX = ".export-"
ABANDONED_S = 3_600.0  # after which nobody is still writing an export
PROBES = (
    "Who wrote it?",
    "An index is whole or absent.",
    "The quick brown fox jumps over the lazy dog, twice: once at 10:30, once at noon.",
    "naïve café, Straße, 東京タワー, Привет, `async-std` and C++ cost 3.50 € in 2026",
    "A longer text so that a batch has rows of different length. " * 12,
)


class Precision(Enum):
    """Of the arithmetic of an export."""

    INT8 = "int8"
    FLOAT32 = "float32"

    @property
    def smallest_agreement(self) -> float:
        """The smallest cosine to the reference with which an export is kept."""
        return {Precision.INT8: 0.97, Precision.FLOAT32: 0.9999}[self]


@dataclass(frozen=True)
class ExportedModel:
    """A model in the cache folder, ready for ONNX Runtime.

    Attributes:
        folder: holds `model.onnx`, `tokenizer.json` and `encoder.json`.
        architecture: of the model, as it said when it was exported.
        precision: that it has; float32 for a model that loses too much in 8-bit integers.
    """

    folder: Path
    architecture: Architecture
    precision: Precision

    @property
    def graph_path(self) -> Path:
        """Token ids of one text in, last hidden state out."""
        return self.folder / GRAPH

    @property
    def tokenizer_path(self) -> Path:
        """The model's tokenizer, as the tokenizers library keeps it."""
        return self.folder / TOKENIZER


class OnnxSession:
    """An exported model, loaded. Several threads may use it at the same time.

    A text is computed by one thread: a second one makes a question an eighth faster where nothing else runs, takes
    twice the work, and where something runs both wait for each other.

    Attributes:
        tokenizer: of the model; it neither cuts off nor pads.
    """

    def __init__(self, exported: ExportedModel) -> None:
        # Imported here: a caller who chose torch has no use for it.
        import onnxruntime  # type: ignore[import-untyped]

        self._architecture = exported.architecture
        self.tokenizer = Tokenizer.from_file(str(exported.tokenizer_path))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # Done when it was exported.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            str(exported.graph_path), options, providers=["CPUExecutionProvider"]
        )

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids, special tokens included, cut off at the model's maximum."""
        token_ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        for place, text in enumerate(texts):
            if len(token_ids[place]) > self._architecture.max_tokens:
                token_ids[place] = self._cutting_tokenizer.encode(text).ids
        return token_ids

    @cached_property
    def _cutting_tokenizer(self) -> Tokenizer:
        """A copy that cuts off what is too long for the model: rarely wanted, and as large as the other one."""
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.enable_truncation(self._architecture.max_tokens)
        return tokenizer

    def embed(self, token_ids: list[int]) -> NDArray[np.float32]:
        """Run the model on one text.

        Returns:
            float32, shape (dimension,), of unit length.
        """
        hidden = self.hidden_states(token_ids)
        pooled = hidden[0] if self._architecture.pooling is Pooling.CLS else hidden.mean(axis=0)
        unit: NDArray[np.float32] = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
        return unit

    def hidden_states(self, token_ids: list[int]) -> NDArray[np.float32]:
        """Run the model on one text, and return what its last layer says of each token: shape (tokens, dimension)."""
        (hidden,) = self._session.run(None, {"input_ids": np.array([token_ids], dtype=np.int64)})
        states: NDArray[np.float32] = hidden[0]
        return states


def exported_model(model: ModelFiles, cache_folder: Path, precision: Precision) -> ExportedModel | None:
    """Return a model's export, making it the first time.

    Args:
        model: to export.
        cache_folder: where exports are kept.
        precision: wanted. A model that loses too much in 8-bit integers is exported in float32 all the same.

    Returns:
        None when the model's build cannot be exported faithfully; the log says why. sentence-transformers
        runs it all the same.

    Raises:
        ModelError: the model cannot be loaded, or the cache folder cannot be written.
    """
    # Imported here: a caller who chose torch has no use for it.
    from onnxruntime import __version__ as runtime

    folder = cache_folder / f"onnx-{EXPORT_FORMAT}-{runtime}-{precision.value}-{model.files_sha256[:16]}"
    exported = _load(folder)
    if exported is not None:
        return exported
    reference = load_reference(model)
    architecture = architecture_of(reference)
    if architecture.pooling is Pooling.OTHER:
        logger.warning("%s is of an unusual build: it runs on torch, which is slower to start", model.name)
        return None
    try:
        return _write(reference, architecture, precision, folder)
    except OSError as exc:
        raise ModelError(
            f"The exported model cannot be written to {cache_folder}: {exc.strerror or exc}. "
            "Make room or choose another cache folder (WHENCE_CACHE), or use --backend torch."
        ) from exc


def _load(folder: Path) -> ExportedModel | None:
    """Open an export; one that is missing or was altered counts as absent and is made anew."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        fields = record["architecture"]
        architecture = Architecture(**{**fields, "pooling": Pooling(fields["pooling"])})
        precision = Precision(record["precision"])
        is_whole = record["files"] == {name: sha256_of(folder / name) for name in EXPORTED_FILES}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        logger.warning("the exported model in %s was altered; it is made anew", folder)
        return None
    return ExportedModel(folder, architecture, precision)


def _write(
    reference: SentenceTransformer, architecture: Architecture, precision: Precision, folder: Path
) -> ExportedModel | None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=BESIDE_PREFIX))
    try:
        try:
            _export_graph(reference, beside / EXACT)
            _fuse(beside / EXACT)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as exc:
            # Tracing runs the model's own code, which fails in as many ways as there are models.
            logger.warning("the model cannot be exported to ONNX (%s): it runs on torch", exc)
            return None
        (beside / TOKENIZER).write_text(tokenizer_of(reference).to_str(), encoding="utf-8")
        exported = _quantised(reference, beside, architecture) if precision is Precision.INT8 else None
        exported = exported or _optimised(beside, EXACT, architecture, Precision.FLOAT32)
        agreement = _agreement(reference, exported)
        if agreement < exported.precision.smallest_agreement:
            logger.warning("the ONNX export agrees only to %.5f with the model: it runs on torch", agreement)
            return None
        for path in (beside / EXACT, beside / INTEGER):
            path.unlink(missing_ok=True)
        _write_record(exported, agreement)
        if _load(folder) is None:  # unless another process was there first and may be loading its own
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        return ExportedModel(folder, architecture, exported.precision)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sweep(cache_folder: Path) -> None:
    """Remove what exports left that were killed: each is as large as a model."""
    for left in cache_folder.glob(f"{BESIDE_PREFIX}*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - ABANDONED_S:
                shutil.rmtree(left)


def _quantised(reference: SentenceTransformer, folder: Path, architecture: Architecture) -> ExportedModel | None:
    """Turn the graph in a folder into one of 8-bit integers; return None if it loses too much."""
    # Imported here: only an export needs them.
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    graph = onnx.load(folder / EXACT)
    # Nothing to pre-process in what was just exported; without this mark it is advised on the root logger.
    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
    quantize_dynamic(
        graph,
        folder / INTEGER,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        # Of what comes out of an operator of ONNX Runtime's own, such as attention, the type is not known otherwise.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    exported = _optimised(folder, INTEGER, architecture, Precision.INT8)
    agreement = _agreement(reference, exported)
    if agreement >= exported.precision.smallest_agreement:
        return exported
    logger.warning("in 8-bit integers the model agrees only to %.4f with itself: it runs in float32", agreement)
    return None


def _optimised(folder: Path, name: str, architecture: Architecture, precision: Precision) -> ExportedModel:
    """Have ONNX Runtime optimise a graph, which is half of what loading it would take, each time.

    So far the outcome depends on the version of ONNX Runtime, not on the processor.

    Raises:
        OSError: the folder cannot be written.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / GRAPH)
    try:
        onnxruntime.InferenceSession(
            str(folder / name),
            options,
            providers=["CPUExecutionProvider"],
            # Slower by half than the sum and the normalisation that it stands for.
            disabled_optimizers=["SkipLayerNormFusion"],
            # Without a second try, of which it would tell on standard output.
            enable_fallback=False,
        )
    except Exception as exc:  # which of its dozen kinds depends on the number of the system's error
        raise OSError(f"ONNX Runtime could not optimise the graph and write it ({exc})") from exc
    return ExportedModel(folder, architecture, precision)


def _write_record(exported: ExportedModel, agreement: float) -> None:
    paths = [exported.folder / name for name in EXPORTED_FILES]
    record = {
        "architecture": {**asdict(exported.architecture), "pooling": exported.architecture.pooling.value},
        "precision": exported.precision.value,
        "smallest_cosine_to_reference": round(agreement, 7),
        "files": {path.name: sha256_of(path) for path in paths},
    }
    (exported.folder / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    for path in (*paths, exported.folder / RECORD):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _export_graph(reference: SentenceTransformer, path: Path) -> None:
    import torch

    class LastHiddenState(torch.nn.Module):
        def __init__(self, transformer: torch.nn.Module) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            # No mask: a text goes through alone, and a mask of ones would only be added and taken away again.
            output = self.transformer(input_ids=input_ids)
            hidden: torch.Tensor = output.last_hidden_state
            return hidden

    transformer: torch.nn.Module = reference[0].auto_model  # type: ignore[assignment]
    token_ids = torch.ones(1, 8, dtype=torch.long)
    dynamic = {1: "tokens"}
    with warnings.catch_warnings():
        # The newer exporter needs another package and its graph was slower; what it warns of is checked by
        # comparing embeddings.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LastHiddenState(transformer).eval(),
            (token_ids,),
            str(path),
            dynamo=False,
            input_names=["input_ids"],
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys(("input_ids", "last_hidden_state"), dynamic),
            opset_version=OPSET,
        )


def _fuse(path: Path) -> None:
    """Put ONNX Runtime's own operator in the place of what torch wrote for attention."""
    # Imported here: only an export needs them.
    import onnx

    from index.fused_attention import fuse_attention

    model = onnx.load(path)
    if fuse_attention(model):
        onnx.save(model, path)


def _agreement(reference: SentenceTransformer, exported: ExportedModel) -> float:
    """Return the smallest cosine between reference and export over the probes."""
    expected = reference.encode(list(PROBES), prompt="", normalize_embeddings=True, show_progress_bar=False)
    session = OnnxSession(exported)
    found = np.stack([session.embed(ids) for ids in session.token_ids(PROBES)])
    return float(np.sum(expected * found, axis=1).min())
