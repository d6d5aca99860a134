"""The manifest of a generation: what it holds, how it was made, and the digest of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from index.digests import digests_of
from index.embeddings import ModelIdentity
from index.errors import DamagedGenerationError, GenerationError
from index.sketches import DenseSearch
from index.sources import Source

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
BUILDING_PREFIX = ".building-"


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file of a generation, of a large one see `index.digests`."""

    size: int
    sha256: str


@dataclass(frozen=True)
class SourceRecord:
    """A source as a generation knows it.

    Attributes:
        path: absolute, of the folder or file; of other sources what tells them from the rest, see `index.uploads`.
        prefix: put before the ids of its documents.
        documents: how many it has in this generation.
        is_bundled: whether it is the bundled corpus, which gives way to a user's own documents.
    """

    path: str
    prefix: str = ""
    documents: int = 0
    is_bundled: bool = False

    def source(self) -> Source:
        """Return the folder or file itself, to read from."""
        return Source(Path(self.path), prefix=self.prefix, is_bundled=self.is_bundled)


@dataclass(frozen=True)
class Manifest:
    """What a generation says of itself.

    Attributes:
        name: of its folder.
        format_version: of the files; another one than this program's is refused.
        number: one more than the largest in its home when it was written; orders them whatever the clock says.
        created: UTC, ISO 8601.
        parent: name of the generation it was written from; None for the first.
        model: that embedded it.
        making: settings that decide text, chunks and embeddings; when they change, nothing is reused.
        documents, chunks, sentences: counts.
        sources: that were synced into it.
        files: relative path -> size and digest.
        dense: how chunks are searched by embedding.
    """

    name: str
    format_version: int
    number: int
    created: str
    parent: str | None
    model: ModelIdentity
    making: Mapping[str, str | int]
    documents: int
    chunks: int
    sentences: int
    sources: tuple[SourceRecord, ...] = ()
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    dense: DenseSearch = field(default_factory=DenseSearch)

    def as_json(self) -> str:
        """Return the text of `manifest.json`, with a digest of itself."""
        fields = asdict(self)
        return json.dumps({**fields, "sha256": _fields_digest(fields)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse the text of `manifest.json`.

        Raises:
            DamagedGenerationError: it is not a manifest, or was altered.
            GenerationError: it was written by another format version.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            # Made alike in every format version, so that a newer manifest is not taken for an altered one.
            if fields.pop("sha256") != _fields_digest(fields):
                raise DamagedGenerationError(f"{MANIFEST} was altered: it does not match the digest in it")
            if fields["format_version"] != FORMAT_VERSION:
                raise GenerationError(
                    f"The generation {fields['name']} has format version {fields['format_version']}, this version "
                    f"of Whence reads {FORMAT_VERSION}. Use the version that wrote it, or build it anew: "
                    "whence index PATH --home ANOTHER_HOME"
                )
            fields["model"] = ModelIdentity(**fields["model"])
            fields["sources"] = tuple(SourceRecord(**source) for source in fields["sources"])
            fields["dense"] = DenseSearch(**fields["dense"])
            fields["files"] = {name: FileRecord(**record) for name, record in fields["files"].items()}
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise DamagedGenerationError(f"{MANIFEST} is not readable as a manifest: {exc}") from exc


def _fields_digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a generation.

    Raises:
        DamagedGenerationError: it is missing, not a manifest, or names another generation.
        GenerationError: the format is another version's.
    """
    try:
        manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise DamagedGenerationError(f"{MANIFEST} cannot be read: {exc}") from exc
    if manifest.name != folder.name and not folder.name.startswith(BUILDING_PREFIX):
        raise DamagedGenerationError(f"{MANIFEST} names another generation, {manifest.name}")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare size and SHA-256 of every file with the manifest.

    Raises:
        DamagedGenerationError: the first file that is missing, unreadable, truncated or altered, by name.
    """
    for name, record in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as exc:
            raise DamagedGenerationError(f"{name} is missing") from exc
        if size != record.size:
            raise DamagedGenerationError(f"{name} has {size:,} bytes instead of {record.size:,}")
    try:
        digests = digests_of([folder / name for name in manifest.files])
    except OSError as exc:  # also of one that is pruned in this moment
        name = Path(exc.filename or folder).name
        raise DamagedGenerationError(f"{name} cannot be read: {exc.strerror or exc}") from exc
    for name, digest in zip(manifest.files, digests, strict=True):
        if digest != manifest.files[name].sha256:
            raise DamagedGenerationError(f"{name} was altered: SHA-256 {digest[:16]}… differs from the manifest's")


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Take size and digest of every file in a folder, by relative path with `/`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, digest)
        for path, digest in zip(paths, digests_of(paths), strict=True)
    }


def generation_name(created: datetime, files: Mapping[str, FileRecord]) -> str:
    """Name a generation after the moment and the content: sortable, and distinct for distinct content."""
    content = json.dumps({name: record.sha256 for name, record in files.items()}, sort_keys=True)
    moment = created.strftime("%Y%m%dT%H%M%S%fZ")
    return f"{moment[:15]}Z-{hashlib.sha256((moment + content).encode()).hexdigest()[:6]}"
