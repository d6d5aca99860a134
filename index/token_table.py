"""Vectors of tokens: the table of the instant encoder, and what a generation puts in its place for its own tokens."""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from index.embeddings import Embeddings
from index.errors import ModelError
from index.vectors import open_array

MODEL_SHA256 = "model_sha256"  # entry of the file's metadata
REINSTALL = "Install Whence anew."
DTYPES = {"I8": np.int8, "F16": np.float16, "F32": np.float32}


@dataclass(frozen=True)
class TokenTable:
    """A vector for each token: row times scale.

    Attributes:
        rows: int8, shape (tokens, dimension), by token id.
        scales: float32, shape (tokens,).
        bias: float32, shape (dimension,): what every sum begins with.
        model_sha256: digest of the weights of the model whose embeddings it imitates.
    """

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: Embeddings
    model_sha256: str

    @classmethod
    def from_vectors(cls, vectors: Embeddings, bias: Embeddings, *, model_sha256: str) -> TokenTable:
        """Make a table of float32 vectors, shape (tokens, dimension)."""
        rows, scales = scaled(vectors)
        return cls(rows, scales, bias, model_sha256)

    @classmethod
    def load(cls, path: Path, *, sha256: str) -> TokenTable:
        """Open a saved table, memory-mapped.

        Raises:
            ModelError: the file is missing, or its digest is another.
        """
        try:
            with path.open("rb") as stream:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:  # ValueError: it is empty
            raise ModelError(f"The instant encoder's table {path} cannot be read: {exc}. {REINSTALL}") from exc
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ModelError(
                f"The instant encoder's table {path} should have the SHA-256 {sha256}, which is {found}. {REINSTALL}"
            )
        return cls._parse(data)

    @classmethod
    def _parse(cls, data: mmap.mmap) -> TokenTable:
        """View the tensors of a file in the format of safetensors: length of the header, header, tensors."""
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])

        def tensor(name: str) -> NDArray[np.generic]:
            first, end = header[name]["data_offsets"]
            dtype = np.dtype(DTYPES[header[name]["dtype"]])
            flat = np.frombuffer(data, dtype, count=(end - first) // dtype.itemsize, offset=start + first)
            return flat.reshape(header[name]["shape"])

        return cls(
            rows=tensor("rows").view(np.int8),
            scales=tensor("scales").astype(np.float32),
            bias=tensor("bias").astype(np.float32),
            model_sha256=header["__metadata__"][MODEL_SHA256],
        )

    def save(self, path: Path) -> None:
        """Write the table to a file; scales are kept in half precision."""
        tensors: dict[str, Any] = {
            "rows": self.rows,
            "scales": self.scales.astype(np.float16),
            "bias": self.bias,
        }
        save_file(tensors, path, metadata={MODEL_SHA256: self.model_sha256})

    def vectors(self, tokens: NDArray[np.integer]) -> Embeddings:
        """Return the vectors of some tokens: float32, shape (len(tokens), dimension)."""
        vectors: Embeddings = self.rows[tokens].astype(np.float32) * self.scales[tokens, None]
        return vectors


@dataclass(frozen=True)
class Adaptation:
    """Vectors that replace a table's for the texts of one generation.

    Attributes:
        tokens: int32, ascending: whose vectors they are.
        rows: int8, shape (len(tokens), dimension).
        scales: float32, shape (len(tokens),).
    """

    tokens: NDArray[np.int32]
    rows: NDArray[np.int8]
    scales: NDArray[np.float32]

    @classmethod
    def load(cls, folder: Path) -> Adaptation:
        """Open the files of a generation, memory-mapped.

        Raises:
            DamagedGenerationError: one is missing or not an array.
        """
        return cls(*(open_array(folder / f"{name}.npy") for name in ("tokens", "rows", "scales")))

    def save(self, folder: Path) -> None:
        """Write it to a folder, which is made."""
        folder.mkdir()
        for name in ("tokens", "rows", "scales"):
            np.save(folder / f"{name}.npy", getattr(self, name))


def scaled(vectors: Embeddings) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Write vectors as bytes, the largest component of each 127, and scales that half precision can hold.

    Returns:
        Rows (int8, shape of `vectors`) and scales (float32, shape (len(vectors),)); row times scale is the vector.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    scales = (largest / 127).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    rows: NDArray[np.int8] = np.clip(np.rint(vectors * inverse[:, None]), -127, 127).astype(np.int8)
    return rows, scales
